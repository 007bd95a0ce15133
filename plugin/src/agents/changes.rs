//! Desired configuration of a node, and the updates that lead there from what it was sent. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use prost::Message as _;
use uuid::Uuid;

/// Most bytes of an encoded update, unless one object alone is larger.
pub(crate) const UPDATE_BYTES: usize = 256 << 10;
/// Bytes of an update besides its objects: revision, end of the snapshot, and the envelope with the epoch.
const ENVELOPE_BYTES: usize = 64;

/// Desired configuration of one node. Unchanged parts are the same `Arc` in the next version: that keeps the
/// cost of a change small.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// Tenant networks that are placed on the node, by the logical switch's UUID.
    pub networks: BTreeMap<Uuid, Arc<v1::Network>>,
    /// Pools that the node checks or proxies to, by id.
    pub pools: BTreeMap<Uuid, Arc<v1::Pool>>,
    /// Listeners that the node serves, by id.
    pub listeners: BTreeMap<Uuid, Arc<v1::Listener>>,
}

impl Configuration {
    /// Returns true if any part of it has this id.
    pub fn has(&self, id: Uuid) -> bool {
        self.networks.contains_key(&id) || self.pools.contains_key(&id) || self.listeners.contains_key(&id)
    }
}

/// One step between two configurations.
#[derive(Clone, Debug)]
enum ItemChange {
    Network(Arc<v1::Network>),
    Pool(Arc<v1::Pool>),
    Listener(Arc<v1::Listener>),
    NoListener(Uuid),
    NoPool(Uuid),
    NoNetwork(Uuid),
}

/// Diff of two configurations: objects that others refer to come first, removals last.
fn difference(old: &Configuration, new: &Configuration) -> VecDeque<ItemChange> {
    let mut changes = VecDeque::new();
    changes.extend(changed(&old.networks, &new.networks).map(ItemChange::Network));
    changes.extend(changed(&old.pools, &new.pools).map(ItemChange::Pool));
    changes.extend(changed(&old.listeners, &new.listeners).map(ItemChange::Listener));
    changes.extend(gone(&old.listeners, &new.listeners).map(ItemChange::NoListener));
    changes.extend(gone(&old.pools, &new.pools).map(ItemChange::NoPool));
    changes.extend(gone(&old.networks, &new.networks).map(ItemChange::NoNetwork));
    changes
}

fn changed<'a, T: PartialEq>(
    old: &'a BTreeMap<Uuid, Arc<T>>,
    new: &'a BTreeMap<Uuid, Arc<T>>,
) -> impl Iterator<Item = Arc<T>> + 'a {
    let same =
        |id: &Uuid, value: &Arc<T>| old.get(id).is_some_and(|old| Arc::ptr_eq(old, value) || old == value);
    new.iter().filter(move |(id, value)| !same(id, value)).map(|(_, value)| Arc::clone(value))
}

fn gone<'a, T>(
    old: &'a BTreeMap<Uuid, Arc<T>>,
    new: &'a BTreeMap<Uuid, Arc<T>>,
) -> impl Iterator<Item = Uuid> + 'a {
    old.keys().filter(|id| !new.contains_key(id)).copied()
}

impl ItemChange {
    /// Bytes that it adds to an encoded update: one of tag, a length, the object.
    fn bytes(&self) -> usize {
        let length = match self {
            Self::Network(network) => network.encoded_len(),
            Self::Pool(pool) => pool.encoded_len(),
            Self::Listener(listener) => listener.encoded_len(),
            Self::NoListener(_) | Self::NoPool(_) | Self::NoNetwork(_) => uuid::fmt::Hyphenated::LENGTH,
        };
        1 + prost::length_delimiter_len(length) + length
    }

    fn put(self, update: &mut v1::Update) {
        match self {
            Self::Network(network) => update.networks.push(Arc::unwrap_or_clone(network)),
            Self::Pool(pool) => update.pools.push(Arc::unwrap_or_clone(pool)),
            Self::Listener(listener) => update.listeners.push(Arc::unwrap_or_clone(listener)),
            Self::NoListener(id) => update.removed_listener_ids.push(id.to_string()),
            Self::NoPool(id) => update.removed_pool_ids.push(id.to_string()),
            Self::NoNetwork(id) => update.removed_network_ids.push(id.to_string()),
        }
    }
}

/// Brings one node from nothing to its configuration, and from there to each newer one.
///
/// It holds the configuration in progress and pointers to its remaining objects, however many versions came
/// since: a slow node costs no more than a fast one.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    target: Option<Arc<Configuration>>,
    left: VecDeque<ItemChange>,
    snapshot_ended: bool,
}

impl Follower {
    /// Returns true if everything up to the last target has been handed out.
    pub(crate) fn is_idle(&self) -> bool {
        self.left.is_empty() && (self.snapshot_ended || self.target.is_none())
    }

    /// Targets a newer configuration. The rest of the old target is still handed out first, so that a node
    /// goes from one full configuration to another: call it when idle.
    pub(crate) fn follow(&mut self, newest: Arc<Configuration>) {
        match &self.target {
            None => self.left = difference(&Configuration::default(), &newest),
            Some(old) => self.left.extend(difference(old, &newest)),
        }
        self.target = Some(newest);
    }

    /// Generation of a listener in the newest configuration; `None`: it has none with this id.
    pub(crate) fn generation(&self, listener: Uuid) -> Option<u64> {
        Some(self.target.as_ref()?.listeners.get(&listener)?.generation)
    }

    /// The next update, without a revision.
    pub(crate) fn next_update(&mut self) -> Option<v1::Update> {
        if self.is_idle() {
            return None;
        }
        let mut update = v1::Update::default();
        let mut room = UPDATE_BYTES - ENVELOPE_BYTES;
        let mut empty = true;
        while self.left.front().is_some_and(|change| empty || change.bytes() <= room) {
            let Some(change) = self.left.pop_front() else { break };
            room = room.saturating_sub(change.bytes());
            empty = false;
            change.put(&mut update);
        }
        if self.left.is_empty() && !self.snapshot_ended {
            self.snapshot_ended = true;
            update.snapshot_end = true;
        }
        Some(update)
    }
}

#[cfg(test)]
mod tests;
