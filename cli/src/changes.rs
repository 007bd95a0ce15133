//! Differences between what is stored and what would be, resource by resource. Pure.

use std::collections::BTreeMap;

use fiberlb_proto::v1::ProvisioningStatus;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use serde::Serialize;

use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER, LOAD_BALANCER, OUTPUT_ONLY, POOL};
use crate::names::{is_reference, with_names};
use crate::resource::{Resource, show_field};
use crate::schema::field_at;

/// Change of one resource.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    /// Effect on it.
    pub(crate) action: ChangeAction,
    /// Kind, as in messages for people.
    pub(crate) kind: &'static str,
    /// Name, or address and port, or id.
    pub(crate) name: String,
    /// Id; of a resource that is not stored yet, the one that the server has chosen for the trial.
    pub(crate) id: String,
    /// Changed fields.
    pub(crate) fields: Vec<FieldChange>,
}

/// Effect on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeAction {
    /// Created.
    Create,
    /// Changed.
    Update,
    /// Deleted.
    Delete,
}

/// Change of one field; values as in messages for people, references by name, empty where there is none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FieldChange {
    /// Name in the API.
    pub(crate) field: String,
    /// Value that is stored.
    pub(crate) old: String,
    /// Value that would be.
    pub(crate) new: String,
}

/// Changes that applying a single resource with these fields would make.
pub(crate) fn of_resource(current: Option<&Resource>, wanted: &Resource, fields: &[String]) -> Vec<Change> {
    let Some(current) = current else { return vec![change(ChangeAction::Create, wanted, Vec::new())] };
    let changed = differing(&current.message, &wanted.message, fields);
    let fields: Vec<FieldChange> = changed.iter().map(|name| field_change(current, wanted, name)).collect();
    if fields.is_empty() { Vec::new() } else { vec![change(ChangeAction::Update, wanted, fields)] }
}

/// Changes between two trees.
pub(crate) fn between(before: &[Resource], after: &[Resource]) -> Vec<Change> {
    let known: BTreeMap<String, &Resource> = before.iter().map(|it| (it.id(), it)).collect();
    let kept: BTreeMap<String, &Resource> =
        after.iter().filter(|it| !is_leaving(it)).map(|it| (it.id(), it)).collect();
    let mut changes = Vec::new();
    for resource in after.iter().filter(|it| !is_leaving(it)) {
        match known.get(&resource.id()) {
            None => changes.push(change(ChangeAction::Create, resource, Vec::new())),
            Some(old) => {
                let descriptor = resource.message.descriptor();
                let names = descriptor.fields().map(|field| field.name().to_owned());
                let own: Vec<String> = names.filter(|name| !OUTPUT_ONLY.contains(&name.as_str())).collect();
                changes.extend(of_resource(Some(old), resource, &own));
            }
        }
    }
    let gone = before.iter().filter(|it| !kept.contains_key(&it.id()) && !is_leaving(it));
    changes.extend(gone.map(|it| change(ChangeAction::Delete, it, Vec::new())));
    let names: BTreeMap<String, String> =
        before.iter().chain(after).filter_map(|it| Some((it.id(), it.own()?))).collect();
    for field in changes.iter_mut().flat_map(|change| &mut change.fields) {
        if is_reference(&field.field) {
            for shown in [&mut field.old, &mut field.new] {
                *shown = with_names(shown, |id| names.get(id).cloned());
            }
        }
    }
    changes
}

/// The latest `count` deletions in an applied tree, where what is deleted stays until OVN has let go of it.
pub(crate) fn deletions(after: &[Resource], count: u32) -> Vec<Change> {
    let mut leaving: Vec<&Resource> = after.iter().filter(|it| is_leaving(it)).collect();
    let written = |it: &&Resource| it.state().updated_at.map(|at| (at.seconds, at.nanos));
    leaving.sort_by_key(|it| std::cmp::Reverse(written(it)));
    leaving.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    leaving.into_iter().map(|it| change(ChangeAction::Delete, it, Vec::new())).collect()
}

fn is_leaving(resource: &Resource) -> bool {
    resource.state().provisioning_status() == ProvisioningStatus::PendingDelete
}

fn change(action: ChangeAction, resource: &Resource, fields: Vec<FieldChange>) -> Change {
    let label = resource.label();
    let name = label.strip_prefix(resource.kind.label).unwrap_or(&label).trim_start().to_owned();
    Change { action, kind: resource.kind.label, name, id: resource.id(), fields }
}

fn field_change(current: &Resource, wanted: &Resource, name: &str) -> FieldChange {
    let shown = |resource: &Resource| {
        let field = field_at(&resource.message.descriptor(), name);
        let set = field.filter(|field| resource.message.has_field(field));
        set.map(|field| show_field(&field, &resource.message.get_field(&field))).unwrap_or_default()
    };
    FieldChange { field: name.to_owned(), old: shown(current), new: shown(wanted) }
}

/// All resources of a tree, parents first.
pub(crate) fn resources(tree: &DynamicMessage) -> Vec<Resource> {
    let mut found = Vec::new();
    push(&mut found, tree, &LOAD_BALANCER, LOAD_BALANCER.field);
    push(&mut found, tree, &LISTENER, LISTENER.plural);
    for pool in messages(tree, POOL.plural) {
        push(&mut found, &pool, &POOL, POOL.field);
        push(&mut found, &pool, &HEALTH_CHECK, HEALTH_CHECK.field);
        push(&mut found, &pool, &BACKEND, BACKEND.plural);
    }
    found
}

fn push(found: &mut Vec<Resource>, message: &DynamicMessage, kind: &'static Kind, field: &str) {
    found.extend(messages(message, field).into_iter().map(|message| Resource { kind, message }));
}

/// Messages in a field that has one or a list of them.
fn messages(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    if !message.has_field_by_name(field) {
        return Vec::new();
    }
    match message.get_field_by_name(field).as_deref() {
        Some(Value::Message(inner)) => vec![inner.clone()],
        Some(Value::List(values)) => values.iter().filter_map(Value::as_message).cloned().collect(),
        _ => Vec::new(),
    }
}

/// Selects the `fields` whose values differ.
pub(crate) fn differing(current: &DynamicMessage, wanted: &DynamicMessage, fields: &[String]) -> Vec<String> {
    let differs = |name: &&String| {
        field_at(&current.descriptor(), name).is_some_and(|field| {
            current.has_field(&field) != wanted.has_field(&field)
                || current.get_field(&field) != wanted.get_field(&field)
        })
    };
    fields.iter().filter(differs).cloned().collect()
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{Backend, Listener, Pool, ResourceState, WeightedPool};

    use super::*;
    use crate::schema::Schema;

    fn backend(name: &str, status: ProvisioningStatus, seconds: i64) -> Resource {
        let state = ResourceState {
            provisioning_status: status.into(),
            updated_at: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        let backend = Backend { name: name.to_owned(), state: Some(state), ..Default::default() };
        Resource { kind: &BACKEND, message: Schema::load().unwrap().dynamic("Backend", &backend).unwrap() }
    }

    #[test]
    fn a_reference_is_shown_by_its_name() {
        let schema = Schema::load().unwrap();
        let pool = |id: &str, name: &str| {
            let pool = Pool { id: id.to_owned(), name: name.to_owned(), ..Default::default() };
            Resource { kind: &POOL, message: schema.dynamic("Pool", &pool).unwrap() }
        };
        let listener = |pool: &str| {
            let listener = Listener { default_pool_id: pool.to_owned(), port: 80, ..Default::default() };
            Resource { kind: &LISTENER, message: schema.dynamic("Listener", &listener).unwrap() }
        };
        let (blue, green) = (pool("p1", "blue"), pool("p2", "green"));
        let changes =
            between(&[blue.clone(), listener("p1")], &[blue.clone(), green.clone(), listener("p2")]);
        let fields: Vec<&FieldChange> = changes.iter().flat_map(|change| &change.fields).collect();
        let [field] = fields.as_slice() else { panic!("{changes:?}") };
        assert_eq!((field.old.as_str(), field.new.as_str()), ("blue", "green"));
        let divided = |weights: [u32; 2]| {
            let pools = ["p1", "p2"].into_iter().zip(weights);
            let pools =
                pools.map(|(id, weight)| WeightedPool { pool_id: id.to_owned(), weight: Some(weight) });
            let listener = Listener { weighted_pools: pools.collect(), port: 80, ..Default::default() };
            Resource { kind: &LISTENER, message: schema.dynamic("Listener", &listener).unwrap() }
        };
        let changes =
            between(&[blue.clone(), green.clone(), divided([90, 10])], &[blue, green, divided([0, 100])]);
        let [field] = changes[0].fields.as_slice() else { panic!("{changes:?}") };
        assert_eq!((field.old.as_str(), field.new.as_str()), ("blue=90, green=10", "blue=0, green=100"));
    }

    #[test]
    fn what_was_deleted_before_is_not_named_again() {
        let tree = [
            backend("long gone", ProvisioningStatus::PendingDelete, 1),
            backend("stays", ProvisioningStatus::Active, 9),
            backend("a", ProvisioningStatus::PendingDelete, 9),
            backend("b", ProvisioningStatus::PendingDelete, 9),
        ];
        let names: Vec<String> = deletions(&tree, 2).into_iter().map(|change| change.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(deletions(&tree, 0), []);
    }
}
