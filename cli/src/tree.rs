//! `tree`: one load balancer with everything below it, or all of them.

use fiberlb_proto::v1::LoadBalancerTree;
use prost_reflect::DynamicMessage;

use crate::args::Format;
use crate::client::{Client, typed_tree};
use crate::failure::Failure;
use crate::kinds::LOAD_BALANCER;
use crate::render::{Output, canonical, escape::clean, tree};
use crate::resolve;

/// Draws the tree of the load balancer that `reference` names, or all trees.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; closed standard output.
pub(crate) async fn run(client: &Client, out: &mut Output, reference: Option<&str>) -> Result<(), Failure> {
    let Some(reference) = reference else { return all(client, out).await };
    let id = resolve::id(client, &LOAD_BALANCER, reference).await?;
    let tree = client.tree(&id).await.map_err(|error| client.plain_failure(error))?;
    show(out, &tree)
}

/// Prints one tree.
pub(crate) fn show(out: &mut Output, message: &DynamicMessage) -> Result<(), Failure> {
    let text = match &out.format {
        Format::Name => name(&typed_tree(message)?),
        format if format.is_for_people() => tree::draw(&typed_tree(message)?),
        format => canonical::one(message, format)?,
    };
    out.result(&text)
}

/// Line with the reference of a tree's load balancer.
fn name(tree: &LoadBalancerTree) -> String {
    let root = tree.load_balancer.clone().unwrap_or_default();
    format!("{}\n", clean(if root.name.is_empty() { &root.id } else { &root.name }))
}

async fn all(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let roots = client.list(&LOAD_BALANCER, usize::MAX, |_| Ok(())).await;
    let mut trees = Vec::new();
    for root in roots.map_err(|error| client.plain_failure(error))? {
        match client.tree(&root.id()).await {
            Ok(tree) => trees.push(tree),
            // Deleted since it was listed.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(client.plain_failure(error)),
        }
    }
    if !out.format.is_for_people() {
        let text = canonical::several(&trees.iter().collect::<Vec<_>>(), &out.format)?;
        return out.result(&text);
    }
    if trees.is_empty() && out.format != Format::Name {
        return out.result("no load balancers\n");
    }
    for (at, tree) in trees.iter().enumerate() {
        if at > 0 && out.format != Format::Name {
            out.result("\n")?;
        }
        show(out, tree)?;
    }
    Ok(())
}
