//! The five verbs, generic over the kinds of resources.

use clap::ArgMatches;
use fiberlb_proto::v1::{ProvisioningStatus, WeightedPool};
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use tokio::time::Instant;

use crate::args::{self, FieldChanges, Format, Verb, WaitFor};
use crate::client::{CallError, Client};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::names::Names;
use crate::render::{Output, escape::clean};
use crate::resolve;
use crate::resource::Resource;
use crate::schema::{clear_at, field_at, set_at};
use crate::wait::{Aim, Until, Wait};

/// Carries out a verb.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; timeout of the wait; closed standard output.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    verb: Verb,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    match verb {
        Verb::Create => create(client, out, kind, matches).await,
        Verb::Get => get(client, out, kind, matches).await,
        Verb::List => list(client, out, kind, matches).await,
        Verb::Update => update(client, out, kind, matches).await,
        Verb::Delete => delete(client, out, kind, matches).await,
    }
}

async fn create(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let mut message = DynamicMessage::new(client.schema.message(kind.message)?);
    let parent_id = parent_id(client, kind, matches).await?;
    if let (Some(parent), Some(parent_id)) = (kind.parent, &parent_id) {
        set_at(&mut message, &parent.id_field(), Value::String(parent_id.clone()))?;
    }
    if let Some(id) = args::word(matches, "id") {
        set_at(&mut message, "id", Value::String(id))?;
    }
    let changes = args::field_changes(kind, &client.schema, matches)?;
    merge(client, kind, &mut message, changes, parent_id.as_deref().unwrap_or_default()).await?;

    let request_id = args::word(matches, "request-id").unwrap_or_default();
    let fill = |request: &mut DynamicMessage| {
        set_at(request, kind.field, Value::Message(message))?;
        set_at(request, "validate_only", Value::Bool(args::is_dry_run(matches)))?;
        set_at(request, "request_id", Value::String(request_id))
    };
    let created = client.call(&kind.service(), &kind.method("Create"), fill).await;
    let message = created.map_err(|error| field_failure(client, kind, error))?;
    let created = Resource { kind, message };
    if args::is_dry_run(matches) {
        return checked(client, out, &created).await;
    }
    note_namesakes(client, out, &created, parent_id).await;
    written(client, out, created, args::wait(matches)).await
}

/// Says that a new resource has the name of another one below the same parent.
async fn note_namesakes(client: &Client, out: &mut Output, created: &Resource, parent_id: Option<String>) {
    let (kind, name) = (created.kind, created.name());
    if name.is_empty() {
        return;
    }
    let fill = |request: &mut DynamicMessage| {
        if let (Some(parent), Some(parent_id)) = (kind.parent, &parent_id) {
            set_at(request, &parent.id_field(), Value::String(parent_id.clone()))?;
        }
        set_at(request, "name", Value::String(name.clone()))
    };
    let found = client.list(kind, usize::MAX, fill).await.unwrap_or_default();
    let others = found.iter().filter(|it| {
        it.id() != created.id() && it.state().provisioning_status() != ProvisioningStatus::PendingDelete
    });
    let others = match others.count() {
        0 => return,
        1 => format!("another {} has", kind.label),
        count => format!("{count} other {}s have", kind.label),
    };
    let (name, id) = (clean(&name), created.id());
    out.progress(&format!("note: {others} the name {name:?}, too: tell them apart by id; this one is {id}"));
}

async fn get(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let references = args::words(matches, "ref");
    let mut found = Vec::with_capacity(references.len());
    for reference in &references {
        found.push(resolve::resource(client, kind, reference).await?);
    }
    if out.format == Format::Name || (!out.format.is_for_people() && found.len() > 1) {
        return show_list(client, out, &found).await;
    }
    let names = names_for(client, out, &found).await;
    for (at, resource) in found.iter().enumerate() {
        if at > 0 {
            out.result("\n")?;
        }
        out.resource(resource, &names)?;
    }
    Ok(())
}

async fn list(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let parent_id = parent_id(client, kind, matches).await?;
    let limit = matches
        .get_one::<u32>("limit")
        .map_or(usize::MAX, |limit| usize::try_from(*limit).unwrap_or(usize::MAX));
    let order = args::word(matches, "sort-by");
    // The first ones of an order are known when all are.
    let fetched = if order.is_some() { usize::MAX } else { limit };
    let fill = |request: &mut DynamicMessage| {
        if let (Some(parent), Some(parent_id)) = (kind.parent, &parent_id) {
            set_at(request, &parent.id_field(), Value::String(parent_id.clone()))?;
        }
        args::filters(request, matches)
    };
    let mut found = client.list(kind, fetched, fill).await.map_err(|error| client.plain_failure(error))?;
    if let Some(order) = order {
        sort(&mut found, &order)?;
    }
    found.truncate(limit);
    show_list(client, out, &found).await
}

async fn update(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let changes = args::field_changes(kind, &client.schema, matches)?;
    let mut mask = changes.mask();
    if mask.is_empty() {
        return Err(Failure::usage(format!(
            "nothing to change: give at least one flag; see fiberlb {} update --help",
            kind.command
        )));
    }
    let reference = args::word(matches, "ref").unwrap_or_default();
    let mut etag = args::word(matches, "etag").unwrap_or_default();
    let mut message = DynamicMessage::new(client.schema.message(kind.message)?);
    let mut parent_id = String::new();
    // The mask has whole fields: changing a part of one needs the rest of it, guarded by the etag.
    let id = if changes.touches_parts() || changes.has_references() {
        let current = resolve::resource(client, kind, &reference).await?;
        let is_replaced = |path: &&str| {
            let field = field_at(&current.message.descriptor(), path);
            field.is_some_and(|field| current.message.has_field(&field))
                && !mask.iter().any(|own| own == path)
        };
        let replaced: Vec<String> =
            changes.replaced.iter().copied().filter(is_replaced).map(str::to_owned).collect();
        mask.extend(replaced);
        parent_id = current.parent_id().unwrap_or_default();
        if changes.touches_parts() {
            copy(&current.message, &mut message, &mask);
            etag = if etag.is_empty() { current.state().etag } else { etag };
        }
        current.id()
    } else {
        resolve::id(client, kind, &reference).await?
    };
    set_at(&mut message, "id", Value::String(id))?;
    merge(client, kind, &mut message, changes, &parent_id).await?;
    let is_dry_run = args::is_dry_run(matches);
    let message = send_update(client, kind, message, &mask, etag, is_dry_run).await?;
    let updated = Resource { kind, message };
    if is_dry_run {
        return checked(client, out, &updated).await;
    }
    written(client, out, updated, args::wait(matches)).await
}

/// Shows a resource as a write that was only checked would leave it.
async fn checked(client: &Client, out: &mut Output, resource: &Resource) -> Result<(), Failure> {
    out.progress("dry run, nothing is written");
    show_written(client, out, resource).await
}

/// Updates the fields of `mask`, or only checks that.
pub(crate) async fn send_update(
    client: &Client,
    kind: &'static Kind,
    message: DynamicMessage,
    mask: &[String],
    etag: String,
    is_dry_run: bool,
) -> Result<DynamicMessage, Failure> {
    let fill = |request: &mut DynamicMessage| {
        let paths = mask.iter().cloned().map(Value::String).collect();
        set_at(request, kind.field, Value::Message(message))?;
        set_at(request, "update_mask.paths", Value::List(paths))?;
        set_at(request, "validate_only", Value::Bool(is_dry_run))?;
        set_at(request, "etag", Value::String(etag))
    };
    let updated = client.call(&kind.service(), &kind.method("Update"), fill).await;
    updated.map_err(|error| field_failure(client, kind, error))
}

async fn delete(
    client: &Client,
    out: &mut Output,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<(), Failure> {
    let references = args::words(matches, "ref");
    let etag = args::word(matches, "etag").unwrap_or_default();
    if references.len() > 1 && !etag.is_empty() {
        return Err(Failure::usage("--etag applies to a single resource, but several are given"));
    }
    let deletion = Deletion {
        etag: &etag,
        cascade: matches.try_get_one::<bool>("cascade").ok().flatten().copied().unwrap_or(false),
        ignore_missing: matches.get_flag("ignore-missing"),
        dry_run: args::is_dry_run(matches),
    };
    // All are resolved before the first is deleted: with a misspelt name, nothing is deleted.
    let mut ids = Vec::with_capacity(references.len());
    for reference in &references {
        if !deletion.ignore_missing {
            ids.push((resolve::id(client, kind, reference).await?, reference));
        } else if let Some(id) = resolve::id_if_there(client, kind, reference).await? {
            ids.push((id, reference));
        } else {
            out.progress(&not_there(kind, reference));
        }
    }
    let mut deleted = Vec::with_capacity(ids.len());
    for (id, reference) in &ids {
        let outcome = delete_one(client, kind, id, &deletion).await;
        // Of several, the message alone may not say which is meant.
        let about = |failure: Failure| if ids.len() > 1 { failure.about(reference) } else { failure };
        match outcome.map_err(about)? {
            Some(resource) => deleted.push(resource),
            None => out.progress(&not_there(kind, reference)),
        }
    }
    if deletion.dry_run {
        out.progress("dry run, nothing is deleted");
        let names = Names::of(client, &deleted).await;
        return report_deleted(out, &deleted, &names, WOULD_BE_DELETED);
    }
    if let Some(wait) = args::wait(matches) {
        let deadline = Instant::now() + wait.time;
        for resource in &deleted {
            Wait::of(client, resource, Until::Gone).await.run(client, out, deadline).await?;
        }
    }
    let names = Names::of(client, &deleted).await;
    report_deleted(out, &deleted, &names, if args::wait(matches).is_some() { DELETED } else { DELETING })
}

/// Conditions of a deletion.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deletion<'a> {
    /// Etag that the resource must have; empty: any.
    pub(crate) etag: &'a str,
    /// True: everything below it goes, too.
    pub(crate) cascade: bool,
    /// True: one that is not there is no failure.
    pub(crate) ignore_missing: bool,
    /// True: it is only checked.
    pub(crate) dry_run: bool,
}

/// Deletes a resource; `None` if it is not there, and that is no failure.
pub(crate) async fn delete_one(
    client: &Client,
    kind: &'static Kind,
    id: &str,
    deletion: &Deletion<'_>,
) -> Result<Option<Resource>, Failure> {
    let fill = |request: &mut DynamicMessage| {
        set_at(request, "id", Value::String(id.to_owned()))?;
        set_at(request, "etag", Value::String(deletion.etag.to_owned()))?;
        set_at(request, "allow_missing", Value::Bool(deletion.ignore_missing))?;
        set_at(request, "validate_only", Value::Bool(deletion.dry_run))?;
        if kind.cascade { set_at(request, "cascade", Value::Bool(deletion.cascade)) } else { Ok(()) }
    };
    let answer = client.call(&kind.service(), &kind.method("Delete"), fill).await;
    let resource = Resource { kind, message: answer.map_err(|error| client.plain_failure(error))? };
    Ok(Some(resource).filter(|resource| !resource.id().is_empty()))
}

/// Line about a resource that is not there.
pub(crate) fn not_there(kind: &Kind, reference: &str) -> String {
    format!("{} {} is not there", kind.label, clean(reference))
}

/// Words for resources that a dry run would delete.
pub(crate) const WOULD_BE_DELETED: &str = "would be deleted";

/// Word for resources that do not exist any more.
pub(crate) const DELETED: &str = "deleted";
/// Words for resources that OVN may still have.
pub(crate) const DELETING: &str = "is being deleted";

/// Shows resources, by the names of their parents, and `how` their deletion stands.
pub(crate) fn report_deleted(
    out: &mut Output,
    deleted: &[Resource],
    names: &Names,
    how: &str,
) -> Result<(), Failure> {
    if !out.format.is_for_people() {
        return out.list(deleted, names);
    }
    for resource in deleted {
        let line = format!("{} {how}\n", clean(&names.labelled(resource, out.format == Format::Wide)));
        out.result(&line)?;
    }
    Ok(())
}

/// Waits if requested, and shows the resource as it is then, even if it is not active.
pub(crate) async fn written(
    client: &Client,
    out: &mut Output,
    resource: Resource,
    wait: Option<WaitFor>,
) -> Result<(), Failure> {
    let Some(WaitFor { online, time }) = wait else { return show_written(client, out, &resource).await };
    let deadline = Instant::now() + time;
    let aim = if online { Aim::Online } else { Aim::Active };
    let outcome = Wait::of(client, &resource, Until::Active { generation: resource.state().generation, aim })
        .await
        .run(client, out, deadline)
        .await;
    let now = client.get(resource.kind, &resource.id()).await.unwrap_or(resource);
    show_written(client, out, &now).await?;
    outcome
}

async fn show_list(client: &Client, out: &mut Output, resources: &[Resource]) -> Result<(), Failure> {
    let names = names_for(client, out, resources).await;
    out.list(resources, &names)
}

/// Names of what resources refer to, where people read the output.
async fn names_for(client: &Client, out: &Output, resources: &[Resource]) -> Names {
    if out.format.is_for_people() { Names::of(client, resources).await } else { Names::default() }
}

/// Shows one resource after a change of it: for people, as in a list.
async fn show_written(client: &Client, out: &mut Output, resource: &Resource) -> Result<(), Failure> {
    if !out.format.is_for_people() {
        return out.resource(resource, &Names::default());
    }
    show_list(client, out, std::slice::from_ref(resource)).await
}

/// Sorts by the field at a dotted path: numbers and times by their value, other fields as text. `-PATH` and `PATH:desc` are the
/// descending orders.
///
/// # Errors
/// Usage failure: the kind has no such field.
fn sort(resources: &mut [Resource], order: &str) -> Result<(), Failure> {
    let descending = order.strip_prefix('-').or_else(|| order.strip_suffix(":desc"));
    let path = descending.or_else(|| order.strip_suffix(":asc")).unwrap_or(order);
    let Some(first) = resources.first() else { return Ok(()) };
    if field_at(&first.message.descriptor(), path).is_none() {
        return Err(Failure::usage(format!(
            "--sort-by: a {} has no field {path:?}; see the fields by -o json, such as name or state.created_at",
            first.kind.label
        )));
    }
    resources.sort_by_cached_key(|resource| {
        let shown = resource.show(path);
        (shown.parse::<i64>().ok(), shown)
    });
    if descending.is_some() {
        resources.reverse();
    }
    Ok(())
}

/// Id of the given parent; `None` without the flag.
async fn parent_id(
    client: &Client,
    kind: &'static Kind,
    matches: &ArgMatches,
) -> Result<Option<String>, Failure> {
    match (kind.parent, args::word(matches, "parent")) {
        (Some(parent), Some(reference)) => {
            let id = resolve::id(client, parent, &reference).await;
            Ok(Some(id.map_err(|failure| failure.about(&format!("--{}", parent.flag())))?))
        }
        _ => Ok(None),
    }
}

/// Merges changes into a message. References are resolved below `parent_id`.
async fn merge(
    client: &Client,
    kind: &'static Kind,
    message: &mut DynamicMessage,
    changes: FieldChanges,
    parent_id: &str,
) -> Result<(), Failure> {
    for path in &changes.cleared {
        clear_at(message, path);
    }
    for (path, value) in changes.values {
        set_at(message, &path, value)?;
    }
    for (path, referred, reference) in changes.references {
        let id = resolve::child_id(client, referred, &reference, parent_id).await;
        let flag = || flag_of(kind, path).unwrap_or_default();
        set_at(message, path, Value::String(id.map_err(|failure| failure.about(&flag()))?))?;
    }
    for (path, referred, pools) in changes.weighted {
        let mut found = Vec::with_capacity(pools.len());
        for pool in pools {
            let id = resolve::child_id(client, referred, &pool.pool_id, parent_id).await;
            let flag = || flag_of(kind, path).unwrap_or_default();
            let pool_id = id.map_err(|failure| failure.about(&flag()))?;
            let pool = WeightedPool { pool_id, ..pool };
            found.push(Value::Message(client.schema.dynamic("WeightedPool", &pool)?));
        }
        set_at(message, path, Value::List(found))?;
    }
    Ok(())
}

/// Copies the fields of `mask`.
fn copy(from: &DynamicMessage, to: &mut DynamicMessage, mask: &[String]) {
    for field in mask.iter().filter_map(|name| field_at(&from.descriptor(), name)) {
        if from.has_field(&field) {
            to.set_field(&field, from.get_field(&field).into_owned());
        }
    }
}

/// Failure of a write, each violation with the flag that sets its field.
pub(crate) fn field_failure(client: &Client, kind: &'static Kind, error: CallError) -> Failure {
    client.failure(error, |field| flag_of(kind, field))
}

/// Flag that sets a field, by its path in the resource or in the request. An element of a list has the flag of the list.
fn flag_of(kind: &Kind, field: &str) -> Option<String> {
    let own = field.strip_prefix(kind.field).and_then(|rest| rest.strip_prefix('.')).unwrap_or(field);
    let path = own.split('[').next().unwrap_or(own);
    if path == "admin_state_up" {
        return Some("--admin-state".to_owned());
    }
    if matches!(path, "id" | "request_id" | "etag") {
        return Some(format!("--{}", path.replace('_', "-")));
    }
    if let Some(parent) = kind.parent.filter(|parent| parent.id_field() == path) {
        return Some(format!("--{}", parent.flag()));
    }
    let sets = |prefix: &str| {
        kind.fields.iter().find(|field| field.path == prefix || field.path.starts_with(&format!("{prefix}.")))
    };
    let field = sets(path).or_else(|| sets(path.split('.').next()?))?;
    Some(format!("--{}", field.flag))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{LISTENER, LOAD_BALANCER, POOL};

    #[test]
    fn violations_name_the_flag() {
        for (kind, field, flag) in [
            (&LISTENER, "port", Some("--port")),
            (&LISTENER, "listener.port", Some("--port")),
            (&LISTENER, "load_balancer_id", Some("--load-balancer")),
            (&LISTENER, "default_pool_id", Some("--default-pool")),
            (&LISTENER, "weighted_pools[1].pool_id", Some("--pool")),
            (&LISTENER, "allowed_cidrs[2]", Some("--allowed-cidr")),
            (&LISTENER, "insert_headers.x_forwarded_for", Some("--insert-header")),
            (&LISTENER, "tls", Some("--certificate")),
            (&POOL, "session_persistence.timeout", Some("--persistence-timeout")),
            (&POOL, "session_persistence", Some("--session-persistence")),
            (&LOAD_BALANCER, "additional_vips[0].address", Some("--additional-vip")),
            (&LOAD_BALANCER, "admin_state_up", Some("--admin-state")),
            (&LOAD_BALANCER, "update_mask", None),
            (&LOAD_BALANCER, "", None),
        ] {
            assert_eq!(flag_of(kind, field).as_deref(), flag, "{field}");
        }
    }
}
