//! `describe`: all that is known of a resource: its fields, what stands below it, the health of its backends, and what has
//! become of it lately.

use std::collections::HashSet;

use fiberlb_proto::v1::{
    Backend, BackendHealth, ListEventsResponse, LoadBalancerTree, OperatingStatus, PoolTree,
};
use prost_reflect::{DynamicMessage, Value};

use crate::changes::resources;
use crate::client::{Client, typed_tree};
use crate::failure::Failure;
use crate::kinds::{BACKEND, Kind, LISTENER, LOAD_BALANCER, POOL};
use crate::names::{self, Names};
use crate::render::{Output, events, fleet, table, tree};
use crate::resolve;
use crate::resource::Resource;
use crate::schema::{internal, set_at};
use crate::wait::root_id;

/// Most backends whose verdicts are requested.
const MOST_BACKENDS: usize = 20;

/// Describes the resources that references name.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; closed standard output.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    references: &[String],
) -> Result<(), Failure> {
    for (at, reference) in references.iter().enumerate() {
        if at > 0 {
            out.result("\n")?;
        }
        let resource = resolve::resource(client, kind, reference).await?;
        let text = describe(client, &resource).await?;
        out.result(&text)?;
    }
    Ok(())
}

async fn describe(client: &Client, resource: &Resource) -> Result<String, Failure> {
    let root = root_id(client, resource).await;
    let message = client.tree(&root).await.map_err(|error| client.plain_failure(error))?;
    let tree = typed_tree(&message)?;
    let names = Names::of(client, std::slice::from_ref(resource)).await;
    let mut sections = vec![table::details(resource, &names)];
    sections.extend(below(resource, &tree));
    sections.push(health(client, resource, &tree).await?);
    sections.push(recent(client, resource, &root, &message).await?);
    sections.retain(|section| !section.is_empty());
    Ok(sections.join("\n"))
}

/// Drawing of what stands below a resource, or behind a listener.
fn below(resource: &Resource, tree: &LoadBalancerTree) -> Option<String> {
    let of_pools = |ids: &str| {
        let pool = |id| tree.pools.iter().find(|it| it.pool.as_ref().is_some_and(|pool| pool.id == id));
        let drawn: Vec<String> = ids.split(", ").filter_map(pool).map(tree::draw_pool).collect();
        (!drawn.is_empty()).then(|| drawn.concat())
    };
    match resource.kind.field {
        field if field == LOAD_BALANCER.field => Some(tree::draw(tree)),
        field if field == POOL.field => of_pools(&resource.id()),
        field if field == LISTENER.field => {
            of_pools(&resource.show("default_pool_id,weighted_pools.pool_id"))
        }
        _ => None,
    }
}

/// Verdicts of nodes on a backend, or on those below a resource that are checked and not well.
async fn health(client: &Client, resource: &Resource, tree: &LoadBalancerTree) -> Result<String, Failure> {
    if resource.kind.field == BACKEND.field {
        let health = of_backend(client, &resource.id()).await?;
        return Ok(fleet::verdicts(&health));
    }
    let is_whole = resource.kind.field == LOAD_BALANCER.field;
    let is_own = |it: &&PoolTree| it.pool.as_ref().is_some_and(|pool| is_whole || pool.id == resource.id());
    let checked = tree.pools.iter().filter(is_own).filter(|it| it.health_check.is_some());
    let unwell: Vec<&Backend> = checked.flat_map(|it| &it.backends).filter(|it| !is_well(it)).collect();
    let mut found = Vec::new();
    for backend in unwell.iter().take(MOST_BACKENDS) {
        found.push((names::socket(backend), of_backend(client, &backend.id).await?));
    }
    let more = unwell.len().saturating_sub(MOST_BACKENDS);
    Ok(fleet::healths(&found, more))
}

fn is_well(backend: &Backend) -> bool {
    let status = backend.state.clone().unwrap_or_default().operating_status();
    matches!(status, OperatingStatus::Online | OperatingStatus::NoMonitor | OperatingStatus::Draining)
        || backend.admin_state_up == Some(false)
}

async fn of_backend(client: &Client, id: &str) -> Result<BackendHealth, Failure> {
    let health = client.backend_health(id).await.map_err(|error| client.plain_failure(error))?;
    health.transcode_to().map_err(|error| internal(&error.to_string()))
}

/// Recent events of a resource and of what stands below it.
async fn recent(
    client: &Client,
    resource: &Resource,
    root: &str,
    tree: &DynamicMessage,
) -> Result<String, Failure> {
    let fill =
        |request: &mut DynamicMessage| set_at(request, "load_balancer_id", Value::String(root.to_owned()));
    let answer = match client.call(&LOAD_BALANCER.service(), "ListEvents", fill).await {
        Ok(answer) => answer,
        Err(error) if error.is_unimplemented() => return Ok("this plugin keeps no events\n".to_owned()),
        Err(error) => return Err(client.plain_failure(error)),
    };
    let mut found: ListEventsResponse =
        answer.transcode_to().map_err(|error| internal(&error.to_string()))?;
    if resource.kind.field != LOAD_BALANCER.field {
        let own = Some(resource.id());
        let is_below = |it: &&Resource| Some(it.id()) == own || it.parent_id() == own;
        let ids: HashSet<String> = resources(tree).iter().filter(is_below).map(Resource::id).collect();
        found.events.retain(|event| ids.contains(&event.resource_id));
    }
    Ok(events::table(&found))
}
