//! The configuration as an immutable value, and the application of changes to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use prost::Message;
use uuid::Uuid;

use super::change::Change;
use super::invalid::ResourceError;
use super::{Listener, Network, Pool, ResourceKind};

/// A resource of the configuration.
pub trait Resource: Sized {
    /// Its message on the wire and on disk.
    type Wire: Message + Default;
    /// Its kind.
    const KIND: ResourceKind;

    /// Parses and checks it.
    ///
    /// # Errors
    /// The first reason to refuse it.
    fn read(id: Uuid, wire: &Self::Wire) -> Result<Self, ResourceError>;

    /// Takes over state from its previous form.
    fn succeed(&mut self, _before: &Self) {}

    /// Generation for the acknowledgement; 0 for kinds without one.
    fn generation(_wire: &Self::Wire) -> u64 {
        0
    }
}

/// A resource that has passed its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T> {
    /// The resource.
    pub value: T,
    /// Its encoded message, which is written to disk and compared with the next one.
    pub encoded: Box<[u8]>,
}

/// Resources of one kind, by id. One that did not change is the same `Arc` in the next configuration.
pub type Items<T> = BTreeMap<Uuid, Arc<Item<T>>>;

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Generation of the refused form.
    pub generation: u64,
    /// Reason of the refusal.
    pub reason: ResourceError,
}

/// Configuration of the node. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Networks that are placed on the node.
    pub networks: Items<Network>,
    /// Pools that the node checks or proxies to.
    pub pools: Items<Pool>,
    /// Listeners that the node serves.
    pub listeners: Items<Listener>,
    /// Refused resources. Their last good form, if it stays in force, is among the others.
    pub refused: BTreeMap<(ResourceKind, Uuid), Refusal>,
}

impl Configuration {
    /// True if the health checks of a listener's pools connect wherever clients are connected to: a check that goes elsewhere, or to
    /// the first port of several, says nothing of these.
    #[must_use]
    pub fn is_checked(&self, listener: Uuid) -> bool {
        let Some(listener) = self.listeners.get(&listener).map(|it| &it.value) else { return false };
        let is_checked = |pool: &Pool| {
            pool.check.is_some() && pool.backends.iter().all(|it| it.monitor_address == it.address)
        };
        let mut pools = listener.pools.iter().map(|pool| self.pools.get(&pool.id).map(|it| &it.value));
        listener.ports == 1 && !listener.pools.is_empty() && pools.all(|pool| pool.is_some_and(is_checked))
    }

    /// Applies a change.
    #[must_use]
    pub fn changed(&self, change: Change) -> Self {
        let mut next = self.clone();
        next.merge(change, self);
        next
    }

    /// Applies a full snapshot: resources that are not in it are removed. Of a refused one the form in force
    /// stays.
    #[must_use]
    pub fn replaced(&self, snapshot: impl IntoIterator<Item = Change>) -> Self {
        let mut next = Self::default();
        for change in snapshot {
            next.merge(change, self);
        }
        next
    }

    fn merge(&mut self, change: Change, before: &Self) {
        let Self { networks, pools, listeners, refused } = self;
        put(networks, refused, change.networks, &before.networks);
        put(pools, refused, change.pools, &before.pools);
        put(listeners, refused, change.listeners, &before.listeners);
        take(networks, refused, &change.removed.networks);
        take(pools, refused, &change.removed.pools);
        take(listeners, refused, &change.removed.listeners);
    }

    /// The generation of a listener, the refused one where its last form was refused.
    #[must_use]
    pub fn generation(&self, listener: Uuid) -> u64 {
        let refused = self.refused.get(&(ResourceKind::Listener, listener)).map(|refusal| refusal.generation);
        refused.or_else(|| Some(self.listeners.get(&listener)?.value.generation)).unwrap_or_default()
    }
}

type Refused = BTreeMap<(ResourceKind, Uuid), Refusal>;

fn put<T: Resource>(
    items: &mut Items<T>,
    refused: &mut Refused,
    new: Vec<(Uuid, T::Wire)>,
    before: &Items<T>,
) {
    for (id, wire) in new {
        // An earlier generation may have required a feature that this release does not know.
        let is_void = refused.get(&(T::KIND, id)).is_some_and(|refusal| !refusal.reason.keeps_last_good());
        let before = items.get(&id).or_else(|| before.get(&id).filter(|_| !is_void)).cloned();
        let encoded = wire.encode_to_vec().into_boxed_slice();
        let same = before.as_ref().filter(|before| before.encoded == encoded).cloned();
        let read = same.map_or_else(|| read(id, &wire, encoded, before.as_deref()).map(Arc::new), Ok);
        let reason = match read {
            Ok(item) => {
                items.insert(id, item);
                refused.remove(&(T::KIND, id));
                continue;
            }
            Err(reason) => reason,
        };
        let kept = before.filter(|_| reason.keeps_last_good());
        tracing::warn!(kind = %T::KIND, %id, %reason, last_good_stays = kept.is_some(), "refused a resource");
        refused.insert((T::KIND, id), Refusal { generation: T::generation(&wire), reason });
        match kept {
            Some(kept) => items.insert(id, kept),
            None => items.remove(&id),
        };
    }
}

fn read<T: Resource>(
    id: Uuid,
    wire: &T::Wire,
    encoded: Box<[u8]>,
    before: Option<&Item<T>>,
) -> Result<Item<T>, ResourceError> {
    let mut value = T::read(id, wire)?;
    if let Some(before) = before {
        value.succeed(&before.value);
    }
    Ok(Item { value, encoded })
}

fn take<T: Resource>(items: &mut Items<T>, refused: &mut Refused, gone: &[Uuid]) {
    for id in gone {
        items.remove(id);
        refused.remove(&(T::KIND, *id));
    }
}

/// Message in which a configuration is written to disk; it is read as if it had been received.
impl From<&Configuration> for v1::Update {
    fn from(configuration: &Configuration) -> Self {
        fn decoded<T: Resource>(items: &Items<T>) -> Vec<T::Wire> {
            // It was encoded here, so that decoding succeeds.
            items.values().filter_map(|item| T::Wire::decode(&*item.encoded).ok()).collect()
        }
        Self {
            networks: decoded(&configuration.networks),
            pools: decoded(&configuration.pools),
            listeners: decoded(&configuration.listeners),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
