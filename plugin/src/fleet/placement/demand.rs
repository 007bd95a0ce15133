//! What trees ask of the proxy nodes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fiberlb_ovn::plan::Capabilities;
use uuid::Uuid;

use crate::datapath::{self, Carrier};
use crate::resources::Tree;

/// What one tree asks of the nodes on its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Demand {
    /// Its logical switch.
    pub network: Uuid,
    /// Listeners that proxies carry.
    pub proxied: BTreeMap<Uuid, Carrier>,
    /// Whether a pool of it is checked.
    pub checked: bool,
}

impl Demand {
    /// What `tree` asks for; `None`: nothing.
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

/// How long a new backend waits for a node that could check it.
pub(in crate::fleet) fn patience(tree: &Tree, pool: Uuid) -> Duration {
    let check = tree.health_check_of(pool);
    check.map_or(Duration::ZERO, |check| {
        Duration::from_millis(u64::from(check.spec.delay_ms) + u64::from(check.spec.timeout_ms))
    })
}

/// What all trees ask for, by tree and by network.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Demands {
    trees: HashMap<Uuid, Demand>,
    networks: BTreeMap<Uuid, BTreeSet<Uuid>>,
}

impl Demands {
    /// Notes what a tree asks for now. Answers whether that is something else than before.
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

    /// What a tree asks for.
    pub(in crate::fleet) fn of(&self, tree: Uuid) -> Option<&Demand> {
        self.trees.get(&tree)
    }

    /// The trees on a network that ask for something.
    pub(in crate::fleet) fn on(&self, network: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.networks.get(&network).into_iter().flatten().copied()
    }

    /// Networks on which something is asked for.
    pub(in crate::fleet) fn networks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.networks.keys().copied()
    }

    /// Whether anything is asked for on a network.
    pub(in crate::fleet) fn has(&self, network: Uuid) -> bool {
        self.networks.contains_key(&network)
    }
}
