//! A load balancer with all that is below it: the unit of reads, writes and reconciliation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::key::{guard, head_key, status_key};
use super::kinds::{Shelved, Tree, each_kind};
use super::{Backend, Common, HealthCheck, Key, Kind, LoadBalancer, Record, RecordError};
use crate::store::{Compare, Revision, Transaction, Write};

/// Description of a kind of resource that stands below a load balancer.
pub trait Resource:
    Shelved + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Kind of the parent.
    const PARENT: Kind;
    /// Id of the parent.
    fn parent(&self) -> Uuid;
    /// Name, description and tags.
    fn common(&self) -> &Common;
    /// Key that is put with the record, only where absent, and so is unique. `None`: nothing is.
    fn guard(&self) -> Option<String> {
        None
    }
}

impl Tree {
    /// Id of the load balancer.
    pub fn id(&self) -> Uuid {
        self.load_balancer.id
    }

    /// The backends of a pool.
    pub fn backends_of(&self, pool: Uuid) -> impl Iterator<Item = &Arc<Record<Backend>>> {
        self.backends.values().filter(move |backend| backend.spec.pool_id == pool)
    }

    /// The health check of a pool.
    pub fn health_check_of(&self, pool: Uuid) -> Option<&Arc<Record<HealthCheck>>> {
        self.health_checks.values().find(|check| check.spec.pool_id == pool)
    }

    /// Number of resources that are not being deleted, the load balancer included.
    pub fn alive(&self) -> usize {
        fn count<T: Resource>(tree: &Tree) -> usize {
            T::of(tree).values().filter(|record| !record.deleting).count()
        }
        let mut alive = 1;
        each_kind!(T => alive += count::<T>(self));
        alive
    }

    /// Ids and kinds of all below the load balancer.
    pub fn children(&self) -> impl Iterator<Item = (Kind, Uuid)> {
        let mut children = Vec::new();
        each_kind!(T => children.extend(T::of(self).keys().map(|id| (T::KIND, *id))));
        children.into_iter()
    }

    /// Key of the load balancer's record.
    pub fn key(&self) -> Key {
        Key::LoadBalancer {
            org_id: self.load_balancer.spec.org_id.clone(),
            project_id: self.load_balancer.spec.project_id.clone(),
            id: self.id(),
        }
    }

    /// The tree with all records marked as deleted.
    #[must_use]
    pub fn deleted(&self) -> Self {
        fn mark<T: Resource>(tree: &mut Tree) {
            for record in T::of_mut(tree).values_mut() {
                *record = Arc::new(record.deleted());
            }
        }
        let mut tree = self.clone();
        tree.load_balancer = Arc::new(self.load_balancer.deleted());
        each_kind!(T => mark::<T>(&mut tree));
        tree
    }

    /// The tree without the records that `seen` marks as deleted; `None` if none are left.
    #[must_use]
    pub fn without_deleted_of(&self, seen: &Self) -> Option<Self> {
        fn purge<T: Resource>(tree: &mut Tree, seen: &Tree) {
            let gone = |id: &Uuid| T::of(seen).get(id).is_some_and(|record| record.deleting);
            T::of_mut(tree).retain(|id, _| !gone(id));
        }
        if seen.load_balancer.deleting {
            return None;
        }
        let mut tree = self.clone();
        each_kind!(T => purge::<T>(&mut tree, seen));
        Some(tree)
    }

    /// Backends with an enabled health check.
    pub fn checked_backends(&self) -> impl Iterator<Item = &Record<Backend>> {
        let checks = self.health_checks.values().filter(|check| check.is_in_force());
        let pools: BTreeSet<Uuid> = checks.map(|check| check.spec.pool_id).collect();
        self.backends.values().map(AsRef::as_ref).filter(move |backend: &&Record<Backend>| {
            pools.contains(&backend.spec.pool_id) && backend.spec.admin_state_up && !backend.deleting
        })
    }

    /// True if any record in it is marked as deleted.
    pub fn has_deleted(&self) -> bool {
        fn any<T: Resource>(tree: &Tree) -> bool {
            T::of(tree).values().any(|record| record.deleting)
        }
        let mut has_deleted = self.load_balancer.deleting;
        each_kind!(T => has_deleted |= any::<T>(self));
        has_deleted
    }
}

/// The transaction that turns one stored tree into another: changed records, added and removed guards, and
/// the head.
///
/// # Errors
/// A record that cannot be encoded.
pub fn transaction(before: Option<&Tree>, after: Option<&Tree>) -> Result<Transaction, RecordError> {
    let mut transaction = Transaction::default();
    let Some(id) = before.or(after).map(Tree::id) else { return Ok(transaction) };

    root_writes(before, after, &mut transaction)?;
    each_kind!(T => child_writes::<T>(before, after, &mut transaction)?);
    guard_writes(before, after, &mut transaction);
    if transaction.writes.is_empty() {
        return Ok(transaction);
    }

    let head = before.map_or(Revision::ZERO, |tree| tree.head);
    transaction.compares.push(Compare { key: head_key(id), revision: head });
    transaction.writes.push(match after {
        Some(_) => Write::Put { key: head_key(id), value: br#"{"version":1}"#.to_vec() },
        None => Write::Delete { key: head_key(id) },
    });
    if after.is_none() {
        transaction.writes.push(Write::Delete { key: status_key(id) });
    }
    Ok(transaction)
}

fn root_writes(
    before: Option<&Tree>,
    after: Option<&Tree>,
    transaction: &mut Transaction,
) -> Result<(), RecordError> {
    match (before, after) {
        (Some(before), None) => transaction.writes.push(Write::Delete { key: before.key().to_string() }),
        (before, Some(after)) if before.map(|tree| &tree.load_balancer) != Some(&after.load_balancer) => {
            let (key, value) = (after.key().to_string(), after.load_balancer.encode()?);
            transaction.writes.push(Write::Put { key, value });
        }
        _ => {}
    }
    Ok(())
}

fn child_writes<T: Resource>(
    before: Option<&Tree>,
    after: Option<&Tree>,
    transaction: &mut Transaction,
) -> Result<(), RecordError> {
    let none = BTreeMap::new();
    let (before, after) = (before.map_or(&none, T::of), after.map_or(&none, T::of));
    let key = |record: &Record<T>| {
        Key::Child { kind: T::KIND, parent: record.spec.parent(), id: record.id }.to_string()
    };
    for (id, record) in after {
        if !is_same(before.get(id), record) {
            transaction.writes.push(Write::Put { key: key(record), value: record.encode()? });
        }
    }
    let gone = before.iter().filter(|(id, _)| !after.contains_key(id));
    transaction.writes.extend(gone.map(|(_, record)| Write::Delete { key: key(record) }));
    Ok(())
}

fn guard_writes(before: Option<&Tree>, after: Option<&Tree>, transaction: &mut Transaction) {
    let (old, new) = (changed_guards(before, after), changed_guards(after, before));
    let id = before.or(after).map(Tree::id).unwrap_or_default();
    for key in new.difference(&old) {
        transaction.compares.push(Compare { key: key.clone(), revision: Revision::ZERO });
        let value = format!(r#"{{"version":1,"load_balancer_id":"{id}"}}"#).into_bytes();
        transaction.writes.push(Write::Put { key: key.clone(), value });
    }
    transaction.writes.extend(old.difference(&new).map(|key| Write::Delete { key: key.clone() }));
}

/// Uniqueness guards of the records that differ from `other`; unchanged records need none.
fn changed_guards(tree: Option<&Tree>, other: Option<&Tree>) -> BTreeSet<String> {
    fn below<T: Resource>(tree: &Tree, other: Option<&Tree>, guards: &mut BTreeSet<String>) {
        let in_other = |id| other.and_then(|other| T::of(other).get(id));
        let changed = T::of(tree).iter().filter(|(id, record)| !is_same(in_other(*id), record));
        for (_, record) in changed {
            guards.extend(record.spec.guard());
            identity(record, &tree.load_balancer.spec, guards);
        }
    }
    let mut guards = BTreeSet::new();
    let Some(tree) = tree else { return guards };
    if !is_same(other.map(|other| &other.load_balancer), &tree.load_balancer) {
        let owner = &tree.load_balancer.spec;
        guards.extend(owner.vips.iter().map(|vip| guard::vip(owner.network, *vip)));
        identity(&tree.load_balancer, owner, &mut guards);
    }
    each_kind!(T => below::<T>(tree, other, &mut guards));
    guards
}

fn is_same<T: PartialEq>(one: Option<&Arc<Record<T>>>, other: &Arc<Record<T>>) -> bool {
    one.is_some_and(|one| Arc::ptr_eq(one, other) || one == other)
}

fn identity<T>(record: &Record<T>, owner: &LoadBalancer, guards: &mut BTreeSet<String>) {
    if let Some((request, _)) = &record.identity.request {
        guards.insert(guard::request(&owner.org_id, &owner.project_id, request));
    }
    if record.identity.chosen_id {
        guards.insert(guard::id(record.id));
    }
}
