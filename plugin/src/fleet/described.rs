//! The configuration of one node as it is kept in step with what changes, one tree or network at a time.

use std::collections::HashMap;
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::agents::Configuration;

/// A node's configuration, and which tree each part of it comes from.
#[derive(Debug, Default)]
pub(super) struct Described {
    configuration: Configuration,
    trees: HashMap<Uuid, Parts>,
}

/// Ids of what a tree put into a configuration.
#[derive(Debug, Default)]
struct Parts {
    pools: Vec<Uuid>,
    listeners: Vec<Uuid>,
}

impl Described {
    /// All of it.
    pub(super) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Replaces what a network is (`None`: it is not placed on the node).
    pub(super) fn set_network(&mut self, id: Uuid, network: Option<v1::Network>) {
        match network {
            Some(network) => keep(&mut self.configuration.networks, id, Arc::new(network)),
            None => drop(self.configuration.networks.remove(&id)),
        }
    }

    /// Replaces what a tree asks of the node. What has not changed stays the same object, so that comparing is cheap.
    pub(super) fn set_tree(&mut self, tree: Uuid, wanted: Configuration) {
        let before = self.trees.remove(&tree).unwrap_or_default();
        for gone in before.pools.iter().filter(|id| !wanted.pools.contains_key(id)) {
            self.configuration.pools.remove(gone);
        }
        for gone in before.listeners.iter().filter(|id| !wanted.listeners.contains_key(id)) {
            self.configuration.listeners.remove(gone);
        }
        let parts = Parts {
            pools: wanted.pools.keys().copied().collect(),
            listeners: wanted.listeners.keys().copied().collect(),
        };
        if !parts.pools.is_empty() || !parts.listeners.is_empty() {
            self.trees.insert(tree, parts);
        }
        for (id, pool) in wanted.pools {
            keep(&mut self.configuration.pools, id, pool);
        }
        for (id, listener) in wanted.listeners {
            keep(&mut self.configuration.listeners, id, listener);
        }
    }
}

fn keep<T: PartialEq>(map: &mut std::collections::BTreeMap<Uuid, Arc<T>>, id: Uuid, value: Arc<T>) {
    if map.get(&id) != Some(&value) {
        map.insert(id, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pools: &[u128], listeners: &[u128]) -> Configuration {
        let mut wanted = Configuration::default();
        wanted.pools.extend(pools.iter().map(|id| (Uuid::from_u128(*id), Arc::default())));
        wanted.listeners.extend(listeners.iter().map(|id| (Uuid::from_u128(*id), Arc::default())));
        wanted
    }

    #[test]
    fn a_tree_takes_with_it_what_it_brought_and_nothing_else() {
        let mut described = Described::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        described.set_tree(one, wanted(&[10, 11], &[12]));
        described.set_tree(other, wanted(&[20], &[]));
        described.set_tree(one, wanted(&[11], &[13]));
        assert_eq!(*described.configuration(), wanted(&[11, 20], &[13]));
        described.set_tree(one, Configuration::default());
        assert_eq!(*described.configuration(), wanted(&[20], &[]));
    }

    #[test]
    fn what_has_not_changed_is_the_same_object() {
        let mut described = Described::default();
        described.set_tree(Uuid::nil(), wanted(&[10], &[]));
        let before = Arc::clone(&described.configuration().pools[&Uuid::from_u128(10)]);
        described.set_tree(Uuid::nil(), wanted(&[10], &[11]));
        assert!(Arc::ptr_eq(&before, &described.configuration().pools[&Uuid::from_u128(10)]));
    }
}
