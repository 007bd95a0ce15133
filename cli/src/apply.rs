//! `apply`: writes the content of files.

use prost_reflect::{DynamicMessage, Value};
use tokio::time::Instant;

use crate::args::{ApplyArgs, Format, WaitFor};
use crate::changes::{Change, between, deletions, differing, of_resource, resources};
use crate::client::Client;
use crate::document::{Document, Placed};
use crate::failure::{Exit, Failure};
use crate::kinds::{Kind, LOAD_BALANCER};
use crate::render::{Output, canonical, escape::clean};
use crate::resource::Resource;
use crate::schema::set_at;
use crate::tree;
use crate::verbs::{field_failure, send_update, written};
use crate::wait::Wait;

/// Applies documents in turn, up to the first that fails.
///
/// # Errors
/// Refusal of the server; timeout of the wait; [`Exit::Different`] where a dry run shows differences.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    documents: Vec<Placed>,
    args: &ApplyArgs,
    wait: Option<WaitFor>,
) -> Result<(), Failure> {
    if documents.len() > 1 && args.etag.is_some() {
        return Err(Failure::usage("--etag applies to a single document, but the file has several"));
    }
    let count = documents.len();
    let places: Vec<String> = documents.iter().map(|document| document.place.clone()).collect();
    let mut differs = false;
    for (at, Placed { place, document }) in documents.into_iter().enumerate() {
        if count > 1 && out.format == Format::Yaml {
            out.result("---\n")?;
        }
        let applied = match document {
            Document::Tree(tree) => apply_tree(client, out, tree, args, wait).await,
            Document::Resource(kind, message, fields) => {
                apply_one(client, out, (kind, message, &fields), args, wait).await
            }
        };
        differs |= applied
            .map_err(|failure| if count > 1 { failure.about(&place) } else { failure })
            .map_err(|mut failure| {
                // What a wait was for is applied, though it is not yet as it should be.
                let is_applied = failure.exit == Exit::TimedOut;
                failure.lines.extend(stopped(&places, at + usize::from(is_applied), at + 1, args.dry_run));
                failure
            })?;
    }
    if differs && args.dry_run { Err(Failure { exit: Exit::Different, lines: Vec::new() }) } else { Ok(()) }
}

/// Lines on the documents that stay applied, and on those from `next` on, which were never sent.
fn stopped(places: &[String], applied: usize, next: usize, is_dry: bool) -> Vec<String> {
    if places.len() < 2 {
        return Vec::new();
    }
    let before = places.get(..applied).unwrap_or_default();
    let after = places.get(next..).unwrap_or_default();
    let list = |what: &str, places: &[String]| {
        (!places.is_empty() && !is_dry).then(|| format!("{what}: {}", places.join(", ")))
    };
    list("applied", before).into_iter().chain(list("not applied", after)).collect()
}

/// Applies a tree. Returns true if it has shown differences.
async fn apply_tree(
    client: &Client,
    out: &mut Output,
    message: DynamicMessage,
    args: &ApplyArgs,
    wait: Option<WaitFor>,
) -> Result<bool, Failure> {
    let mut differs = false;
    if args.diff {
        let changes = changes_of(client, message.clone()).await?;
        differs = !changes.is_empty();
        out.changes(&changes)?;
    }
    let etag = args.etag.clone().unwrap_or_default();
    let mut answer = send_tree(client, message, etag, args.dry_run).await?;
    // Before the wait, after which they are gone.
    let deleted = deletions(&resources(&tree_of(client, &answer)?), count(&answer, "deleted"));
    let mut outcome = Ok(());
    if let Some(WaitFor { online, time }) = wait.filter(|_| !args.dry_run) {
        let wait = Wait::of_tree(&tree_of(client, &answer)?, online);
        let (id, deadline) = (wait.load_balancer_id.clone(), Instant::now() + time);
        outcome = wait.run(client, out, deadline).await;
        if let Ok(now) = client.tree(&id).await {
            set_at(&mut answer, "tree", Value::Message(now))?;
        }
    }
    report(client, out, &answer, if args.diff { &[] } else { &deleted }, args.dry_run)?;
    outcome.map(|()| differs)
}

/// Applies a tree, or only says what that would do.
async fn send_tree(
    client: &Client,
    tree: DynamicMessage,
    etag: String,
    dry_run: bool,
) -> Result<DynamicMessage, Failure> {
    let fill = |request: &mut DynamicMessage| {
        set_at(request, "tree", Value::Message(tree))?;
        set_at(request, "etag", Value::String(etag))?;
        set_at(request, "validate_only", Value::Bool(dry_run))
    };
    let answer = client.call("LoadBalancerService", "ApplyLoadBalancer", fill).await;
    // Paths as in the file.
    let in_file = |field: &str| field.strip_prefix("tree.").map(str::to_owned);
    answer.map_err(|error| client.failure(error, in_file))
}

/// Changes that applying a tree would make, by the server's own trial.
///
/// # Errors
/// Refusal of the server.
pub(crate) async fn changes_of(client: &Client, tree: DynamicMessage) -> Result<Vec<Change>, Failure> {
    let answer = send_tree(client, tree, String::new(), true).await?;
    let after = resources(&tree_of(client, &answer)?);
    let Some(root) = after.iter().find(|it| it.kind.field == LOAD_BALANCER.field) else {
        return Ok(Vec::new());
    };
    let before = match client.tree(&root.id()).await {
        Ok(tree) => resources(&tree),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(client.plain_failure(error)),
    };
    Ok(between(&before, &after))
}

/// Tree of a response.
fn tree_of(client: &Client, answer: &DynamicMessage) -> Result<DynamicMessage, Failure> {
    let tree = answer.get_field_by_name("tree").and_then(|tree| tree.as_message().cloned());
    tree.map_or_else(|| Ok(DynamicMessage::new(client.schema.message("LoadBalancerTree")?)), Ok)
}

fn report(
    client: &Client,
    out: &mut Output,
    answer: &DynamicMessage,
    deletions: &[Change],
    is_dry: bool,
) -> Result<(), Failure> {
    if out.format == Format::Name {
        return tree::show(out, &tree_of(client, answer)?);
    }
    if !out.format.is_for_people() {
        return out.result(&canonical::one(answer, &out.format)?);
    }
    let prefix = if is_dry { "dry run, nothing is written: " } else { "" };
    let [created, updated, deleted, unchanged] =
        ["created", "updated", "deleted", "unchanged"].map(|name| count(answer, name));
    out.result(&format!(
        "{prefix}created {created}, updated {updated}, deleted {deleted}, unchanged {unchanged}\n"
    ))?;
    if !deletions.is_empty() {
        out.changes(deletions)?;
    }
    tree::show(out, &tree_of(client, answer)?)
}

/// Number of resources in a response.
fn count(answer: &DynamicMessage, name: &str) -> u32 {
    answer.get_field_by_name(name).and_then(|count| count.as_u32()).unwrap_or(0)
}

/// Updates the resource of a document, in those of its fields that differ, or creates it. Returns true if it has shown differences.
async fn apply_one(
    client: &Client,
    out: &mut Output,
    (kind, message, fields): (&'static Kind, DynamicMessage, &[String]),
    args: &ApplyArgs,
    wait: Option<WaitFor>,
) -> Result<bool, Failure> {
    let wanted = Resource { kind, message };
    let current = match client.get(kind, &wanted.id()).await {
        Ok(current) => Some(current),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(client.plain_failure(error)),
    };
    let mask = current.as_ref().map(|current| differing(&current.message, &wanted.message, fields));
    if args.diff {
        out.changes(&of_resource(current.as_ref(), &wanted, fields))?;
    }
    let outcome = match &mask {
        None => "created",
        Some(mask) if mask.is_empty() => "unchanged",
        Some(_) => "updated",
    };
    let shown = match (current, mask) {
        (Some(current), _) if outcome == "unchanged" => current,
        (Some(current), Some(mask)) => {
            let etag = args.etag.clone().unwrap_or_else(|| current.state().etag);
            Resource {
                kind,
                message: send_update(client, kind, wanted.message, &mask, etag, args.dry_run).await?,
            }
        }
        _ => create(client, wanted, args.dry_run).await?,
    };
    let prefix = if args.dry_run { "dry run, nothing is written: " } else { "" };
    out.progress(&format!("{prefix}{outcome} {}", clean(&shown.label())));
    written(client, out, shown, wait.filter(|_| !args.dry_run)).await?;
    Ok(args.diff && outcome != "unchanged")
}

async fn create(client: &Client, wanted: Resource, is_dry_run: bool) -> Result<Resource, Failure> {
    let Resource { kind, message } = wanted;
    let fill = |request: &mut DynamicMessage| {
        set_at(request, kind.field, Value::Message(message))?;
        set_at(request, "validate_only", Value::Bool(is_dry_run))
    };
    let created = client.call(&kind.service(), &kind.method("Create"), fill).await;
    Ok(Resource { kind, message: created.map_err(|error| field_failure(client, kind, error))? })
}
