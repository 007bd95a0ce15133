//! The configuration as an immutable value, and how a change makes the next one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use prost::Message;
use uuid::Uuid;

use super::change::Change;
use super::invalid::Invalid;
use super::{Kind, Listener, Network, Pool};

/// A kind of resource.
pub trait Resource: Sized {
    /// As it comes over the wire, and stays on disk.
    type Wire: Message + Default;
    /// Which.
    const KIND: Kind;

    /// Checks all of it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    fn read(id: Uuid, wire: &Self::Wire) -> Result<Self, Invalid>;

    /// Takes over what it has to from the form before.
    fn succeed(&mut self, _before: &Self) {}

    /// For the acknowledgement; 0 where there is none.
    fn generation(_wire: &Self::Wire) -> u64 {
        0
    }
}

/// A resource that passed its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<T> {
    /// The resource.
    pub value: T,
    /// Its encoded wire form: what is written to disk, and what tells whether another form is the same.
    pub encoded: Box<[u8]>,
}

/// Resources of one kind. What did not change is the same `Arc` in the next configuration.
pub type Shelf<T> = BTreeMap<Uuid, Arc<Item<T>>>;

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the refused form.
    pub generation: u64,
    /// What is wrong with it.
    pub reason: Invalid,
}

/// What the node is to do. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Networks that are placed on the node.
    pub networks: Shelf<Network>,
    /// Pools that it checks or proxies to.
    pub pools: Shelf<Pool>,
    /// Listeners that it serves.
    pub listeners: Shelf<Listener>,
    /// What was refused. Where there was a good form before, that is on its shelf still.
    pub refused: BTreeMap<(Kind, Uuid), Refusal>,
}

impl Configuration {
    /// The configuration that a change leads to.
    #[must_use]
    pub fn changed(&self, change: Change) -> Self {
        let mut next = self.clone();
        next.merge(change, self);
        next
    }

    /// The configuration that a whole snapshot says: what is not in it goes. Of what cannot be used, the form that is in
    /// force stays.
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
        let refused = self.refused.get(&(Kind::Listener, listener)).map(|refusal| refusal.generation);
        refused.or_else(|| Some(self.listeners.get(&listener)?.value.generation)).unwrap_or_default()
    }
}

type Refused = BTreeMap<(Kind, Uuid), Refusal>;

fn put<T: Resource>(
    shelf: &mut Shelf<T>,
    refused: &mut Refused,
    new: Vec<(Uuid, T::Wire)>,
    before: &Shelf<T>,
) {
    for (id, wire) in new {
        let before = shelf.get(&id).or_else(|| before.get(&id)).cloned();
        let encoded = wire.encode_to_vec().into_boxed_slice();
        let same = before.as_ref().filter(|before| before.encoded == encoded).cloned();
        let read = same.map_or_else(|| read(id, &wire, encoded, before.as_deref()).map(Arc::new), Ok);
        let reason = match read {
            Ok(item) => {
                shelf.insert(id, item);
                refused.remove(&(T::KIND, id));
                continue;
            }
            Err(reason) => reason,
        };
        tracing::warn!(kind = %T::KIND, %id, %reason, "refused; what was in force of it stays");
        refused.insert((T::KIND, id), Refusal { generation: T::generation(&wire), reason });
        if let Some(before) = before {
            shelf.insert(id, before);
        }
    }
}

fn read<T: Resource>(
    id: Uuid,
    wire: &T::Wire,
    encoded: Box<[u8]>,
    before: Option<&Item<T>>,
) -> Result<Item<T>, Invalid> {
    let mut value = T::read(id, wire)?;
    if let Some(before) = before {
        value.succeed(&before.value);
    }
    Ok(Item { value, encoded })
}

fn take<T: Resource>(shelf: &mut Shelf<T>, refused: &mut Refused, gone: &[Uuid]) {
    for id in gone {
        shelf.remove(id);
        refused.remove(&(T::KIND, *id));
    }
}

/// What is written to disk is read as if it had come over the wire.
impl From<&Configuration> for v1::Update {
    fn from(configuration: &Configuration) -> Self {
        fn decoded<T: Resource>(shelf: &Shelf<T>) -> Vec<T::Wire> {
            // It was encoded here, so that it can be decoded.
            shelf.values().filter_map(|item| T::Wire::decode(&*item.encoded).ok()).collect()
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
