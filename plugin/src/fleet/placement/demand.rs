//! Demands of trees on the proxy nodes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fiberlb_northbound::plan::Capabilities;
use uuid::Uuid;

use crate::datapath::{self, Carrier};
use crate::resources::Tree;

/// Demand of one tree on the nodes of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Demand {
    /// UUID of the logical switch.
    pub network: Uuid,
    /// Listeners that proxies carry.
    pub proxied: BTreeMap<Uuid, Carrier>,
    /// True if one of its pools is checked.
    pub checked: bool,
}

impl Demand {
    /// Demand of `tree`; `None`: it needs no node.
    pub(in crate::fleet) fn of(tree: &Tree, capabilities: &Capabilities) -> Option<Self> {
        if tree.load_balancer.deleting {
            return None;
        }
        let listeners = tree.listeners.values().filter(|listener| !listener.deleting);
        let carrier = |listener: &crate::resources::Listener| {
            datapath::decide(tree, listener, capabilities).ok().map(|decision| decision.carrier)
        };
        let proxied: BTreeMap<Uuid, Carrier> = listeners
            .filter_map(|listener| Some((listener.id, carrier(&listener.spec)?)))
            .filter(|(_, carrier)| carrier.is_proxy())
            .collect();
        let checked = tree.health_checks.values().any(|check| check.is_in_force());
        let demand = Self { network: tree.load_balancer.spec.network, proxied, checked };
        (demand.checked || !demand.proxied.is_empty()).then_some(demand)
    }
}

/// Grace period in which a new backend waits for a node that could check it.
pub(in crate::fleet) fn check_grace(tree: &Tree, pool: Uuid) -> Duration {
    let check = tree.health_check_of(pool);
    check.map_or(Duration::ZERO, |check| {
        Duration::from_millis(u64::from(check.spec.delay_ms) + u64::from(check.spec.timeout_ms))
    })
}

/// Demands of all trees, by tree and by network.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Demands {
    trees: HashMap<Uuid, Demand>,
    networks: BTreeMap<Uuid, BTreeSet<Uuid>>,
}

impl Demands {
    /// Sets the demand of a tree. Returns true if it has changed.
    pub(in crate::fleet) fn set(&mut self, tree: Uuid, demand: Option<Demand>) -> bool {
        if self.trees.get(&tree) == demand.as_ref() {
            return false;
        }
        if let Some(before) = self.trees.remove(&tree)
            && let Some(trees) = self.networks.get_mut(&before.network)
        {
            trees.remove(&tree);
            if trees.is_empty() {
                self.networks.remove(&before.network);
            }
        }
        if let Some(demand) = demand {
            self.networks.entry(demand.network).or_default().insert(tree);
            self.trees.insert(tree, demand);
        }
        true
    }

    /// Demand of a tree.
    pub(in crate::fleet) fn of(&self, tree: Uuid) -> Option<&Demand> {
        self.trees.get(&tree)
    }

    /// Trees on a network with a demand.
    pub(in crate::fleet) fn on(&self, network: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.networks.get(&network).into_iter().flatten().copied()
    }

    /// Networks with a demand.
    pub(in crate::fleet) fn networks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.networks.keys().copied()
    }

    /// True if a tree on the network has a demand.
    pub(in crate::fleet) fn has(&self, network: Uuid) -> bool {
        self.networks.contains_key(&network)
    }
}
