//! `stats`: traffic of one load balancer, its pools and backends, or of the listeners of all.

use std::time::SystemTime;

use prost_reflect::{DynamicMessage, Value};

use crate::client::{CallError, Client, typed_tree};
use crate::failure::Failure;
use crate::kinds::LOAD_BALANCER;
use crate::render::{Output, canonical, stats};
use crate::resolve;
use crate::schema::{internal, set_at};

/// Shows the traffic of the load balancer that `reference` names, or of all load balancers.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; closed standard output.
pub(crate) async fn run(client: &Client, out: &mut Output, reference: Option<&str>) -> Result<(), Failure> {
    let ids = match reference {
        Some(reference) => vec![resolve::id(client, &LOAD_BALANCER, reference).await?],
        None => {
            let roots = client.list(&LOAD_BALANCER, usize::MAX, |_| Ok(())).await;
            roots.map_err(|error| client.plain_failure(error))?.iter().map(|root| root.id()).collect()
        }
    };
    let mut messages = Vec::new();
    let (mut listeners, mut pools) = (Vec::new(), None);
    for id in ids {
        match of_one(client, out, &id).await {
            Ok((message, None)) => messages.push(message),
            Ok((message, Some(tree))) => {
                let statistics = message.transcode_to().map_err(|error| internal(&error.to_string()))?;
                let tree = typed_tree(&tree)?;
                listeners.extend(stats::listeners(&tree, &statistics));
                if reference.is_some() {
                    pools = Some(stats::pools(&tree, &statistics));
                }
                messages.push(message);
            }
            // Deleted since it was listed.
            Err(error) if error.is_not_found() && reference.is_none() => {}
            Err(error) => return Err(client.plain_failure(error)),
        }
    }
    let text = match (&out.format, messages.as_slice()) {
        (format, _) if format.is_for_people() => {
            stats::tables(&listeners, pools.as_deref(), SystemTime::now())
        }
        (format, [one]) if reference.is_some() => canonical::one(one, format)?,
        (format, all) => canonical::several(&all.iter().collect::<Vec<_>>(), format)?,
    };
    out.result(&text)
}

/// Statistics of one load balancer, and its tree where people read them.
async fn of_one(
    client: &Client,
    out: &Output,
    id: &str,
) -> Result<(DynamicMessage, Option<DynamicMessage>), CallError> {
    let fill = |request: &mut DynamicMessage| set_at(request, "id", Value::String(id.to_owned()));
    let message = client.call(&LOAD_BALANCER.service(), "GetLoadBalancerStatistics", fill).await?;
    let tree = if out.format.is_for_people() { Some(client.tree(id).await?) } else { None };
    Ok((message, tree))
}
