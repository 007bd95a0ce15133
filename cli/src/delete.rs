//! `delete`: deletes what files describe.

use prost_reflect::DynamicMessage;
use tokio::time::Instant;

use crate::args::{DeleteArgs, WaitFor};
use crate::client::Client;
use crate::document::{Document, Placed};
use crate::failure::Failure;
use crate::kinds::{Kind, LOAD_BALANCER};
use crate::names::Names;
use crate::render::Output;
use crate::resolve;
use crate::resource::Resource;
use crate::verbs::{DELETED, DELETING, Deletion, WOULD_BE_DELETED, delete_one, not_there, report_deleted};
use crate::wait::{Until, Wait};

/// Deletes the trees and resources of documents, the last first. All are looked for before the first is deleted.
///
/// # Errors
/// Ambiguous name; refusal of the server; timeout of the wait.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    documents: Vec<Placed>,
    args: &DeleteArgs,
    wait: Option<WaitFor>,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    for Placed { place, document } in documents.iter().rev() {
        let (kind, reference) = reference(document);
        if reference.is_empty() {
            let why = "a tree to be deleted needs the id or the name of its load balancer";
            return Err(Failure::usage(format!("{place}: load_balancer.name: missing; {why}")));
        }
        match resolve::find(client, kind, &reference).await? {
            Some(resource) => found.push(resource),
            None => out.progress(&not_there(kind, &reference)),
        }
    }
    let names = Names::of(client, &found).await;
    if args.dry_run {
        out.progress("dry run, nothing is deleted");
        return report_deleted(out, &found, &names, WOULD_BE_DELETED);
    }
    let mut deleted = Vec::new();
    for resource in found {
        let deletion =
            Deletion { cascade: resource.kind.cascade, ignore_missing: true, ..Deletion::default() };
        let outcome = delete_one(client, resource.kind, &resource.id(), &deletion).await;
        deleted.extend(outcome.map_err(|failure| failure.about(&resource.label()))?);
    }
    if let Some(wait) = wait {
        let deadline = Instant::now() + wait.time;
        for resource in &deleted {
            Wait::of(client, resource, Until::Gone).await.run(client, out, deadline).await?;
        }
    }
    report_deleted(out, &deleted, &names, if wait.is_some() { DELETED } else { DELETING })
}

/// Reference to what a document describes: its id, or else, of a tree, the name of its load balancer.
fn reference(document: &Document) -> (&'static Kind, String) {
    let (kind, message) = match document {
        Document::Tree(tree) => (&LOAD_BALANCER, root(tree)),
        Document::Resource(kind, message, _) => (*kind, Some(message.clone())),
    };
    let resource = message.map(|message| Resource { kind, message });
    let id = resource.as_ref().map(Resource::id).filter(|id| !id.is_empty());
    (kind, id.or_else(|| resource.map(|resource| resource.name())).unwrap_or_default())
}

fn root(tree: &DynamicMessage) -> Option<DynamicMessage> {
    tree.get_field_by_name("load_balancer").and_then(|root| root.as_message().cloned())
}
