//! `node`: proxy nodes, for operators.

use std::time::{Duration, SystemTime};

use fiberlb_proto::v1::{Node, NodeStatus};
use prost_reflect::{DynamicMessage, Value};
use tokio::time::{Instant, sleep};

use crate::args::{Format, NodeAction};
use crate::client::{CallError, Client};
use crate::failure::Failure;
use crate::render::{Output, canonical, drain, escape::clean, fleet};
use crate::schema::{internal, set_at};
use crate::wait::Progress;

const SERVICE: &str = "NodeService";
/// Interval between queries of a draining node.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Carries out an action on nodes.
///
/// # Errors
/// Refusal of the server; timeout of the wait; closed standard output.
pub(crate) async fn run(client: &Client, out: &mut Output, action: NodeAction) -> Result<(), Failure> {
    match action {
        NodeAction::List => list(client, out).await,
        NodeAction::Show(id) => show(out, &answer(client, "GetNode", &id).await?),
        NodeAction::Cordon(id) => show(out, &answer(client, "CordonNode", &id).await?),
        NodeAction::Uncordon(id) => show(out, &answer(client, "UncordonNode", &id).await?),
        NodeAction::Drain(id, None) => show(out, &answer(client, "DrainNode", &id).await?),
        NodeAction::Drain(id, Some(longest)) => drain(client, out, &id, longest).await,
        NodeAction::Remove(id) => {
            let answer = answer(client, "RemoveNode", &id).await?;
            out.result(&match &out.format {
                format if format.is_for_people() => format!("{id} removed\n"),
                format => canonical::one(&answer, format)?,
            })
        }
    }
}

/// Lists all nodes by id.
async fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let answer = client.call(SERVICE, "ListNodes", |_| Ok(())).await;
    let nodes = listed(answer.map_err(|error| client.plain_failure(error))?);
    let text = match &out.format {
        Format::Name => {
            nodes.iter().map(typed).map(|node| Ok(id_line(&node?))).collect::<Result<_, Failure>>()?
        }
        format if format.is_for_people() => {
            fleet::nodes(&nodes.iter().map(typed).collect::<Result<Vec<_>, _>>()?)
        }
        format => canonical::several(&nodes.iter().collect::<Vec<_>>(), format)?,
    };
    out.result(&text)
}

fn show(out: &mut Output, node: &DynamicMessage) -> Result<(), Failure> {
    let text = match &out.format {
        Format::Name => id_line(&typed(node)?),
        format if format.is_for_people() => fleet::node(&typed(node)?),
        format => canonical::one(node, format)?,
    };
    out.result(&text)
}

/// Drains a node, and waits until it has no networks; reports what it waits for.
async fn drain(client: &Client, out: &mut Output, id: &str, longest: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + longest;
    let mut answer = answer(client, "DrainNode", id).await?;
    let mut progress = Progress::new();
    loop {
        let node = typed(&answer)?;
        if !node.draining {
            return Err(Failure::error(format!("node {id} was uncordoned meanwhile: the drain has ended")));
        }
        if node.networks == 0 {
            return show(out, &answer);
        }
        if Instant::now() >= deadline {
            return Err(Failure::timed_out(remaining(&node)));
        }
        progress.print(out, &remaining(&node));
        sleep(POLL_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        match call(client, "GetNode", id).await {
            Ok(next) => answer = next,
            // A plugin that restarts continues the drain.
            Err(error) if error.is_unavailable() => {
                progress.print(out, &["the plugin does not answer".to_owned()]);
            }
            Err(error) => return Err(client.plain_failure(error)),
        }
    }
}

/// Remaining work of a drain, a line each.
fn remaining(node: &Node) -> Vec<String> {
    let Node { id, networks, draining_networks, connections, .. } = node;
    let waiting = networks.saturating_sub(*draining_networks);
    let mut lines = vec![format!(
        "{id}: {networks} networks left, {waiting} of them not taken over yet; {connections} connections"
    )];
    if node.connections_draining > 0 {
        let reset = drain::reset(node.drain_deadline.as_ref(), SystemTime::now());
        lines.push(format!("{id}: draining: {} connections left, {reset}", node.connections_draining));
    }
    lines.extend((!node.waiting_for.is_empty()).then(|| node.waiting_for.clone()));
    if node.status() != NodeStatus::Alive {
        lines.push(format!("{id} is not connected: {}", node.reason));
    }
    lines
}

async fn answer(client: &Client, method: &str, id: &str) -> Result<DynamicMessage, Failure> {
    call(client, method, id).await.map_err(|error| client.plain_failure(error))
}

async fn call(client: &Client, method: &str, id: &str) -> Result<DynamicMessage, CallError> {
    client.call(SERVICE, method, |request| set_at(request, "id", Value::String(id.to_owned()))).await
}

/// Nodes of a List response.
fn listed(mut answer: DynamicMessage) -> Vec<DynamicMessage> {
    let Some(Value::List(values)) = answer.take_field_by_name("nodes") else { return Vec::new() };
    let message = |value| if let Value::Message(message) = value { Some(message) } else { None };
    values.into_iter().filter_map(message).collect()
}

fn id_line(node: &Node) -> String {
    format!("{}\n", clean(&node.id))
}

/// Ids of all nodes.
pub(crate) async fn ids(client: &Client) -> Result<Vec<String>, CallError> {
    let nodes = listed(client.call(SERVICE, "ListNodes", |_| Ok(())).await?);
    Ok(nodes.iter().map(|node| Ok(typed(node)?.id)).collect::<Result<_, Failure>>()?)
}

fn typed(node: &DynamicMessage) -> Result<Node, Failure> {
    node.transcode_to().map_err(|error| internal(&error.to_string()))
}
