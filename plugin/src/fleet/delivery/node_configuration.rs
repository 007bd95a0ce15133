//! Configuration of one node, updated incrementally, one tree or network at a time.

use std::collections::HashMap;
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::agents::Configuration;

/// Configuration of a node, with the tree that each part of it comes from.
#[derive(Debug, Default)]
pub(in crate::fleet) struct NodeConfiguration {
    configuration: Configuration,
    trees: HashMap<Uuid, Parts>,
    has_changed: bool,
    /// Ids that were removed since the last call of `take_changes`.
    gone: Vec<Uuid>,
}

/// Ids that a tree contributes to a configuration.
#[derive(Debug, Default)]
struct Parts {
    pools: Vec<Uuid>,
    listeners: Vec<Uuid>,
}

impl NodeConfiguration {
    /// Current configuration.
    pub(in crate::fleet) fn current(&self) -> &Configuration {
        &self.configuration
    }

    /// Ids removed since the last call; `None`: nothing has changed at all.
    pub(in crate::fleet) fn take_changes(&mut self) -> Option<Vec<Uuid>> {
        let gone = std::mem::take(&mut self.gone);
        std::mem::take(&mut self.has_changed).then_some(gone)
    }

    /// Returns true if a network is placed on the node.
    pub(in crate::fleet) fn has_network(&self, id: Uuid) -> bool {
        self.configuration.networks.contains_key(&id)
    }

    /// Replaces a network (`None`: it is not placed on the node).
    pub(in crate::fleet) fn set_network(&mut self, id: Uuid, network: Option<v1::Network>) {
        match network {
            Some(network) => {
                self.has_changed |= keep(&mut self.configuration.networks, id, Arc::new(network));
            }
            None if self.configuration.networks.remove(&id).is_some() => self.went(id),
            None => {}
        }
    }

    fn went(&mut self, id: Uuid) {
        self.has_changed = true;
        self.gone.push(id);
    }

    /// Replaces the node's share in the connection limit of a listener that has one.
    pub(in crate::fleet) fn set_share(&mut self, listener: Uuid, share: u32) {
        let message = self.configuration.listeners.get_mut(&listener);
        let is_other =
            |message: &&mut Arc<v1::Listener>| message.connection_share.is_some_and(|it| it != share);
        if let Some(message) = message.filter(is_other) {
            Arc::make_mut(message).connection_share = Some(share);
            self.has_changed = true;
        }
    }

    /// Replaces the part of a tree. Unchanged values stay the same object, so that comparing is cheap.
    pub(in crate::fleet) fn set_tree(&mut self, tree: Uuid, wanted: Configuration) {
        let before = self.trees.remove(&tree).unwrap_or_default();
        for gone in before.pools.iter().filter(|id| !wanted.pools.contains_key(id)) {
            self.configuration.pools.remove(gone);
            self.went(*gone);
        }
        for gone in before.listeners.iter().filter(|id| !wanted.listeners.contains_key(id)) {
            self.configuration.listeners.remove(gone);
            self.went(*gone);
        }
        let parts = Parts {
            pools: wanted.pools.keys().copied().collect(),
            listeners: wanted.listeners.keys().copied().collect(),
        };
        if !parts.pools.is_empty() || !parts.listeners.is_empty() {
            self.trees.insert(tree, parts);
        }
        for (id, pool) in wanted.pools {
            self.has_changed |= keep(&mut self.configuration.pools, id, pool);
        }
        for (id, listener) in wanted.listeners {
            self.has_changed |= keep(&mut self.configuration.listeners, id, listener);
        }
    }
}

/// Returns true if the value has changed.
fn keep<T: PartialEq>(map: &mut std::collections::BTreeMap<Uuid, Arc<T>>, id: Uuid, value: Arc<T>) -> bool {
    let is_new = map.get(&id) != Some(&value);
    if is_new {
        map.insert(id, value);
    }
    is_new
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
        let mut configuration = NodeConfiguration::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        configuration.set_tree(one, wanted(&[10, 11], &[12]));
        configuration.set_tree(other, wanted(&[20], &[]));
        configuration.set_tree(one, wanted(&[11], &[13]));
        assert_eq!(*configuration.current(), wanted(&[11, 20], &[13]));
        configuration.set_tree(one, Configuration::default());
        assert_eq!(*configuration.current(), wanted(&[20], &[]));
    }

    #[test]
    fn it_tells_whether_anything_has_changed_and_what_went() {
        let id = Uuid::from_u128;
        let bound = |address: &str| {
            let listener =
                v1::Listener { bind_addresses: vec![address.to_owned()], ..v1::Listener::default() };
            Configuration { listeners: [(id(12), Arc::new(listener))].into(), ..wanted(&[10], &[]) }
        };
        let mut configuration = NodeConfiguration::default();
        configuration.set_network(id(5), Some(v1::Network::default()));
        configuration.set_tree(id(1), bound("10.0.0.1:1"));
        assert_eq!(configuration.take_changes(), Some(vec![]));
        configuration.set_tree(id(1), bound("10.0.0.1:1"));
        assert_eq!(configuration.take_changes(), None);
        configuration.set_tree(id(1), bound("10.0.0.9:80"));
        assert_eq!(configuration.take_changes(), Some(vec![]));
        configuration.set_tree(id(1), Configuration::default());
        configuration.set_network(id(5), None);
        assert_eq!(configuration.take_changes(), Some(vec![id(10), id(12), id(5)]));
    }

    #[test]
    fn a_share_alone_can_change_and_is_another_object_then() {
        let shared = |connection_share| {
            let listener = v1::Listener { connection_share, ..v1::Listener::default() };
            let listeners = [(Uuid::nil(), Arc::new(listener))].into();
            Configuration { listeners, ..Configuration::default() }
        };
        let mut configuration = NodeConfiguration::default();
        configuration.set_tree(Uuid::nil(), shared(Some(3)));
        let published = configuration.current().clone();
        configuration.take_changes();
        configuration.set_share(Uuid::nil(), 3);
        assert_eq!(configuration.take_changes(), None);
        configuration.set_share(Uuid::nil(), 4);
        configuration.set_share(Uuid::max(), 4);
        assert_eq!(configuration.take_changes(), Some(vec![]));
        assert_eq!((configuration.current(), &published), (&shared(Some(4)), &shared(Some(3))));
        configuration.set_tree(Uuid::nil(), shared(None));
        configuration.set_share(Uuid::nil(), 4);
        assert_eq!(configuration.current(), &shared(None), "it has no limit");
    }

    #[test]
    fn what_has_not_changed_is_the_same_object() {
        let mut configuration = NodeConfiguration::default();
        configuration.set_tree(Uuid::nil(), wanted(&[10], &[]));
        let before = Arc::clone(&configuration.current().pools[&Uuid::from_u128(10)]);
        configuration.set_tree(Uuid::nil(), wanted(&[10], &[11]));
        assert!(Arc::ptr_eq(&before, &configuration.current().pools[&Uuid::from_u128(10)]));
    }
}
