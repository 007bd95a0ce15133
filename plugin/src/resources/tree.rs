//! A load balancer with all that is below it: the unit of reads, writes and reconciliation.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::aggregate::{Aggregate, Changes, Part};
use super::key::{guard, head_key, status_key};
use super::kinds::{InTree as _, Tree, TreeField, each_kind, every_kind, of_kind};
use super::users::Member;
use super::{
    Backend, HealthCheck, Kind, Listener, LoadBalancer, Pool, Quoted, Record, RecordError, Reference,
    Resource,
};
use fiberlb_store::{Revision, Transaction};

impl Tree {
    /// Id of the load balancer.
    pub fn id(&self) -> Uuid {
        self.load_balancer.id
    }

    /// Identifies one write of the tree: of the load balancer, or of anything below it.
    pub fn etag(&self) -> String {
        format!("tree-{:x}", self.head.0)
    }

    /// A resource in sentences: its kind and name, or what stands for the name, as in `listener tcp:80`.
    pub fn called(&self, kind: Kind, id: Uuid) -> String {
        let name = of_kind!(kind, T => T::find(self, id).map(|record| record.spec.common().name.as_str()));
        let own = match name {
            Some("") | None => self.own_name(kind, id).unwrap_or_else(|| id.to_string()),
            Some(name) => Quoted(name).to_string(),
        };
        format!("{} {own}", kind.words())
    }

    /// Name of a resource, or what stands for it, as in `tcp:80`; `None`: only the id tells it apart.
    pub fn own_name(&self, kind: Kind, id: Uuid) -> Option<String> {
        of_kind!(kind, T => T::find(self, id).and_then(|record| {
            let name = &record.spec.common().name;
            if name.is_empty() { record.spec.place() } else { Some(name.clone()) }
        }))
    }

    /// The backends of a pool.
    pub fn backends_of(&self, pool: Uuid) -> impl Iterator<Item = &Arc<Record<Backend>>> {
        self.backends.values().filter(move |backend| backend.spec.pool_id == pool)
    }

    /// Pools of a listener that are not being deleted, with their weights.
    pub fn pools_of<'a>(
        &'a self,
        listener: &'a Listener,
    ) -> impl Iterator<Item = (&'a Arc<Record<Pool>>, u16)> {
        let pools = listener.pools().filter_map(|own| Some((self.pools.get(&own.pool_id)?, own.weight)));
        pools.filter(|(pool, _)| !pool.deleting)
    }

    /// Backends of these pools, found in one pass: a tree may have tens of thousands, and listeners many pools.
    pub fn backends_of_any(&self, pools: &[Uuid]) -> impl Iterator<Item = &Arc<Record<Backend>>> {
        self.backends.values().filter(move |backend| pools.contains(&backend.spec.pool_id))
    }

    /// Backends of the pools of a listener. Neither these nor the pools are being deleted.
    pub fn backends_behind(&self, listener: &Listener) -> Vec<&Arc<Record<Backend>>> {
        let pools: Vec<Uuid> = self.pools_of(listener).map(|(pool, _)| pool.id).collect();
        self.backends_of_any(&pools).filter(|backend| !backend.deleting).collect()
    }

    /// The health check of a pool.
    pub fn health_check_of(&self, pool: Uuid) -> Option<&Arc<Record<HealthCheck>>> {
        self.health_checks.values().find(|check| check.spec.pool_id == pool)
    }

    /// Most bytes of it in an answer, about.
    pub fn bytes(&self) -> u64 {
        let mut bytes = 0;
        every_kind!(T => bytes += T::records(self).map(|record| record.spec.bytes() as u64).sum::<u64>());
        bytes
    }

    /// Number of resources that are not being deleted, the load balancer included.
    pub fn alive(&self) -> usize {
        let mut alive = 0;
        every_kind!(T => alive += T::records(self).filter(|record| !record.deleting).count());
        alive
    }

    /// Ids and kinds of all below the load balancer.
    pub fn children(&self) -> impl Iterator<Item = (Kind, Uuid)> {
        let mut children = Vec::new();
        each_kind!(T => children.extend(T::of(self).keys().map(|id| (T::KIND, *id))));
        children.into_iter()
    }

    /// Resources directly below another one that are not being deleted.
    pub fn children_of(&self, parent: Uuid) -> Vec<(Kind, Uuid)> {
        let mut children = Vec::new();
        each_kind!(T => {
            let below = T::records(self).filter(|record| record.spec.parent() == Some(parent) && !record.deleting);
            children.extend(below.map(|record| (T::KIND, record.id)));
        });
        children
    }

    /// Uses of a resource by others that are not being deleted, with kind and id of the user.
    pub fn uses_of(&self, kind: Kind, id: Uuid) -> Vec<(Kind, Uuid, Reference)> {
        let mut uses = Vec::new();
        each_kind!(T => for record in T::records(self).filter(|record| !record.deleting) {
            let own = record.spec.references().into_iter().filter(|used| (used.kind, used.id) == (kind, id));
            uses.extend(own.map(|used| (T::KIND, record.id, used)));
        });
        uses
    }

    /// Returns true if a resource is in the tree and not being deleted.
    pub fn stands(&self, kind: Kind, id: Uuid) -> bool {
        of_kind!(kind, T => T::find(self, id).is_some_and(|record| !record.deleting))
    }

    /// A resource and its ancestors, the root last. Empty if the resource is not in the tree.
    pub fn lineage(&self, kind: Kind, id: Uuid) -> Vec<(Kind, Uuid)> {
        let parent_of = |(kind, id): (Kind, Uuid)| {
            let parent = of_kind!(kind, T => T::find(self, id).and_then(|record| record.spec.parent()));
            kind.parent().zip(parent)
        };
        let is_there = of_kind!(kind, T => T::find(self, id).is_some());
        std::iter::successors(is_there.then_some((kind, id)), |place| parent_of(*place)).collect()
    }

    /// Marks a resource and all below it as deleted.
    pub fn delete(&mut self, kind: Kind, id: Uuid) {
        for (kind, child) in self.children_of(id) {
            self.delete(kind, child);
        }
        of_kind!(kind, T => if let Some(record) = T::find_mut(self, id) {
            *record = Arc::new(record.deleted());
        });
    }

    /// The tree without the records that `seen` marks as deleted; `None` if none are left.
    #[must_use]
    pub fn without_deleted_of(&self, seen: &Self) -> Option<Self> {
        fn purge<T: TreeField>(tree: &mut Tree, seen: &Tree) {
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
        let mut has_deleted = false;
        every_kind!(T => has_deleted |= T::records(self).any(|record| record.deleting));
        has_deleted
    }
}

/// The transaction that turns one stored tree into another, but for the users of members of other aggregates,
/// which the writer adds.
///
/// # Errors
/// A record that cannot be encoded.
pub fn transaction(before: Option<&Tree>, after: Option<&Tree>) -> Result<Transaction, RecordError> {
    Ok(Changes::between(before, after)?.transaction())
}

/// Lookups that search a tree before it is worth an index.
const SEARCHES: u32 = 8;

/// A tree with an index of its backends, for checks of many of them.
pub struct TreeLookup<'a> {
    tree: &'a Tree,
    searches: Cell<u32>,
    by_address: OnceCell<BackendsByAddress<'a>>,
}

type BackendsByAddress<'a> = HashMap<(Uuid, SocketAddr), Vec<&'a Arc<Record<Backend>>>>;

impl<'a> TreeLookup<'a> {
    /// A lookup in `tree`.
    pub fn new(tree: &'a Tree) -> Self {
        Self { tree, searches: Cell::new(0), by_address: OnceCell::new() }
    }

    /// The tree.
    pub fn tree(&self) -> &'a Tree {
        self.tree
    }

    /// Backends of a pool at an address.
    pub fn backends_at(&self, pool: Uuid, address: SocketAddr) -> Vec<&'a Arc<Record<Backend>>> {
        let searches = self.searches.replace(self.searches.get().saturating_add(1));
        if searches < SEARCHES {
            let backends = self.tree.backends.values();
            return backends.filter(|it| it.spec.pool_id == pool && it.spec.address == address).collect();
        }
        let index = self.by_address.get_or_init(|| {
            let mut index = BackendsByAddress::new();
            for backend in self.tree.backends.values() {
                index.entry((backend.spec.pool_id, backend.spec.address)).or_default().push(backend);
            }
            index
        });
        index.get(&(pool, address)).cloned().unwrap_or_default()
    }
}

impl Aggregate for Tree {
    const ID_FIELD: &'static str = "load_balancer_id";

    fn head_key(id: Uuid) -> String {
        head_key(id)
    }

    fn keys_beside(id: Uuid) -> Vec<String> {
        vec![status_key(id)]
    }

    fn id(&self) -> Uuid {
        Self::id(self)
    }

    fn head(&self) -> Revision {
        self.head
    }

    fn set_head(&mut self, head: Revision) {
        self.head = head;
    }

    fn changed(&self, other: Option<&Self>) -> Result<Vec<Part>, RecordError> {
        let mut parts = Vec::new();
        every_kind!(T => for record in T::records(self) {
            if !is_same(other.and_then(|other| T::find(other, record.id)), record) {
                parts.push(part(record, &self.load_balancer.spec)?);
            }
        });
        Ok(parts)
    }
}

fn is_same<T: PartialEq>(one: Option<&Arc<Record<T>>>, other: &Arc<Record<T>>) -> bool {
    one.is_some_and(|one| Arc::ptr_eq(one, other) || one == other)
}

/// Stored form of a record in a tree of this owner.
fn part<T: Resource>(record: &Record<T>, owner: &LoadBalancer) -> Result<Part, RecordError> {
    let mut guards = record.spec.guards();
    if let Some((request, _)) = &record.identity.request {
        guards.push(guard::request(&owner.org_id, &owner.project_id, request));
    }
    if record.identity.chosen_id {
        guards.push(guard::id(record.id));
    }
    let uses = if record.deleting { Vec::new() } else { record.spec.foreign_references() };
    Ok(Part {
        member: Member { folder: T::KIND.folder(), id: record.id },
        key: record.spec.key(record.id).to_string(),
        value: record.encode()?,
        guards,
        former_guards: record.spec.former_guards(),
        is_usable: false,
        uses: uses.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Listener;
    use super::super::examples::{BACKENDS, CHECK, LISTENER, LOAD_BALANCER, POOL, change, tree};
    use super::*;

    #[test]
    fn a_resource_is_called_by_its_name_or_by_what_tells_it_apart() {
        let mut tree = tree();
        for (kind, id, called) in [
            (Kind::LoadBalancer, LOAD_BALANCER, format!("load balancer {LOAD_BALANCER}")),
            (Kind::Listener, LISTENER, "listener tcp:80".to_owned()),
            (Kind::Pool, POOL, format!("pool {POOL}")),
            (Kind::Backend, BACKENDS[0], "backend 10.0.0.11:8080".to_owned()),
            (Kind::HealthCheck, CHECK, "health check tcp".to_owned()),
            (Kind::Pool, CHECK, format!("pool {CHECK}")),
        ] {
            assert_eq!(tree.called(kind, id), called);
        }
        for (name, called) in [("fast", r#"listener "fast""#), ("a\n\"", r#"listener "a\n\"""#)] {
            change::<Listener>(&mut tree, LISTENER, |listener| listener.common.name = name.to_owned());
            assert_eq!(tree.called(Kind::Listener, LISTENER), called);
        }
        change::<Listener>(&mut tree, LISTENER, |listener| listener.common.name = "x".repeat(255));
        assert!(tree.called(Kind::Listener, LISTENER).len() < 100);
    }
}
