//! `tree`: one load balancer with everything below it, or all of them.

use fiberlb_proto::v1::LoadBalancerTree;
use prost_reflect::{DynamicMessage, Value};

use crate::args::{Format, TreeArgs};
use crate::bare::{self, Bare};
use crate::client::{Client, typed_tree};
use crate::failure::Failure;
use crate::kinds::LOAD_BALANCER;
use crate::render::{Output, canonical, escape::clean, tree};
use crate::resolve;
use crate::resource::Resource;
use crate::schema::set_at;

/// Draws the tree of the load balancer that the arguments name, or all trees.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; closed standard output.
pub(crate) async fn run(client: &Client, out: &mut Output, args: &TreeArgs) -> Result<(), Failure> {
    let reference = args.scope.load_balancer.as_deref();
    let trees = match reference {
        Some(reference) => {
            let id = resolve::id(client, &LOAD_BALANCER, reference).await?;
            vec![client.tree(&id).await.map_err(|error| client.plain_failure(error))?]
        }
        None => all(client).await?,
    };
    if args.bare {
        return bare(client, out, &trees, reference.is_some()).await;
    }
    if args.bad {
        let trees: Vec<LoadBalancerTree> = trees.iter().map(typed_tree).collect::<Result<_, _>>()?;
        return out.result(&tree::draw_bad(&trees));
    }
    match trees.as_slice() {
        [tree] if reference.is_some() => show(out, tree),
        trees if !out.format.is_for_people() => {
            out.result(&canonical::several(&trees.iter().collect::<Vec<_>>(), &out.format)?)
        }
        [] if out.format != Format::Name => out.result("no load balancers\n"),
        trees => {
            for (at, tree) in trees.iter().enumerate() {
                if at > 0 && out.format != Format::Name {
                    out.result("\n")?;
                }
                show(out, tree)?;
            }
            Ok(())
        }
    }
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

async fn all(client: &Client) -> Result<Vec<DynamicMessage>, Failure> {
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
    Ok(trees)
}

/// Prints trees as `apply` reads them: YAML documents, or in JSON a list unless there is `one` only.
async fn bare(client: &Client, out: &mut Output, trees: &[DynamicMessage], one: bool) -> Result<(), Failure> {
    let trees: Vec<LoadBalancerTree> = trees.iter().map(typed_tree).collect::<Result<_, _>>()?;
    let name = |tree: &LoadBalancerTree| tree.load_balancer.clone().unwrap_or_default().name;
    let mut named = bare::unique(trees.iter().map(name));
    if let Some(only) = trees.first().map(name).filter(|_| one) {
        let fill = |request: &mut DynamicMessage| set_at(request, "name", Value::String(only.clone()));
        let found = client.list(&LOAD_BALANCER, 2, fill).await;
        let found = found.map_err(|error| client.plain_failure(error))?;
        named = bare::unique(found.iter().map(Resource::name));
    }
    let of = |tree: LoadBalancerTree| Bare::of(&client.schema, &named, tree);
    let trees: Vec<Bare> = trees.into_iter().map(of).collect::<Result<_, _>>()?;
    let text = match (&out.format, trees.as_slice()) {
        (Format::Table | Format::Yaml, trees) => {
            let documents = trees.iter().map(|tree| canonical::write(tree, &out.format));
            documents.collect::<Result<Vec<_>, _>>()?.join("---\n")
        }
        (format, [tree]) if one => canonical::write(tree, format)?,
        (format, trees) => canonical::write(&trees, format)?,
    };
    out.result(&text)
}
