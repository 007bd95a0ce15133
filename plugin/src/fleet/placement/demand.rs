//! Demands of trees on the proxy nodes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use fiberlb_northbound::plan::Capabilities;
use uuid::Uuid;

use crate::datapath::{self, Carrier, Families, NodeFeatures};
use crate::resources::{Listener, Record, Tree};
use crate::status::Observation;

/// Demand of one tree on the nodes of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Demand {
    /// UUID of the logical switch.
    pub network: Uuid,
    /// Listeners that proxies carry.
    pub proxied: BTreeMap<Uuid, ProxiedListener>,
    /// Capabilities that nodes need to check its pools, by pools that need the same; empty: none is checked.
    pub checked: BTreeSet<NodeFeatures>,
}

/// A listener that proxies carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct ProxiedListener {
    /// Its carrier, never OVN.
    pub carrier: Carrier,
    /// Number of its ports.
    pub ports: u16,
    /// True if an OVN row leads to it: also to a DIRECT one, until it is served by its VIP.
    pub is_behind_ovn: bool,
    /// Capabilities that a node needs to serve it.
    pub needs: NodeFeatures,
    /// Families of its VIPs: OVN's row leads from each to nodes' addresses of its own.
    pub vips: Families,
    /// Families of its backends: a node needs an address of one of them.
    pub backends: Families,
}

impl ProxiedListener {
    /// True if a node with these addresses reaches some of its backends, and is reached from a VIP.
    pub(in crate::fleet) fn is_served_from(&self, hosts: &[IpAddr]) -> bool {
        let is_met = self.carrier == Carrier::Direct || self.vips.are_reached_from(hosts);
        is_met && self.backends.are_reached_from(hosts)
    }
}

impl Demand {
    /// Demand of `tree`; `None`: it needs no node. `before`: what was last observed of it. Proxies keep what OVN is to carry
    /// until it does, also if it cannot, and go on behind an OVN row until one of them has the VIP.
    pub(in crate::fleet) fn of(
        tree: &Tree,
        capabilities: &Capabilities,
        before: &Observation,
    ) -> Option<Self> {
        if tree.load_balancer.deleting {
            return None;
        }
        let listeners = tree.listeners.values().filter(|listener| !listener.deleting);
        let proxied = |listener: &Record<Listener>| {
            let decided = datapath::decide(tree, &listener.spec, capabilities).ok();
            let decided = decided.map(|decision| decision.carrier).filter(|carrier| carrier.is_proxy());
            let stands = before.carrier_in_force(listener.id).filter(|carrier| *carrier == Carrier::Proxy);
            let carrier = decided.or(stands)?;
            let needs = datapath::needed_features(tree, &listener.spec);
            Some(ProxiedListener {
                carrier,
                is_behind_ovn: carrier == Carrier::Proxy || stands.is_some(),
                ports: listener.spec.port_count(),
                needs,
                vips: tree.load_balancer.spec.vips.iter().copied().collect(),
                backends: datapath::backend_families(tree, &listener.spec),
            })
        };
        let proxied: BTreeMap<Uuid, ProxiedListener> =
            listeners.filter_map(|listener| Some((listener.id, proxied(listener)?))).collect();
        let checks = tree.health_checks.values().filter(|check| check.is_in_force());
        let pools = checks.filter_map(|check| tree.pools.get(&check.spec.pool_id));
        let checked = pools.map(|pool| datapath::needed_by_protocol(pool.spec.protocol)).collect();
        let demand = Self { network: tree.load_balancer.spec.network, proxied, checked };
        (!demand.checked.is_empty() || !demand.proxied.is_empty()).then_some(demand)
    }

    /// Capabilities of the one node that serves all DIRECT listeners of the tree; `None`: it has none.
    pub(in crate::fleet) fn needs_of_holder(&self) -> Option<NodeFeatures> {
        let mut direct = self.proxied.values().filter(|listener| listener.carrier == Carrier::Direct);
        let first = direct.next()?.needs.clone();
        Some(direct.fold(first, |mut all, listener| {
            all.add(&listener.needs);
            all
        }))
    }

    /// Sets of capabilities for each of which the network needs nodes of its own: those of each listener, and those
    /// of health checks, most of which need no capability at all.
    fn requirements(&self) -> BTreeSet<NodeFeatures> {
        let behind_ovn = self.proxied.values().filter(|listener| listener.is_behind_ovn);
        let of_listeners = behind_ovn.map(|listener| listener.needs.clone());
        let of_checks = self.checked.iter().cloned();
        of_listeners.chain(self.needs_of_holder()).chain(of_checks).collect()
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
    networks: BTreeMap<Uuid, NetworkDemand>,
}

/// Demand of all trees of a network.
#[derive(Debug, Default)]
struct NetworkDemand {
    trees: BTreeSet<Uuid>,
    /// Requirements, with the number of trees that have each.
    requirements: BTreeMap<NodeFeatures, usize>,
}

impl NetworkDemand {
    fn add(&mut self, tree: Uuid, demand: &Demand) {
        self.trees.insert(tree);
        for requirement in demand.requirements() {
            *self.requirements.entry(requirement).or_default() += 1;
        }
    }

    fn remove(&mut self, tree: Uuid, demand: &Demand) {
        self.trees.remove(&tree);
        for requirement in demand.requirements() {
            if let Some(count) = self.requirements.get_mut(&requirement) {
                *count = count.saturating_sub(1);
            }
        }
        self.requirements.retain(|_, count| *count > 0);
    }
}

impl Demands {
    /// Sets the demand of a tree. Returns true if it has changed.
    pub(in crate::fleet) fn set(&mut self, tree: Uuid, demand: Option<Demand>) -> bool {
        if self.trees.get(&tree) == demand.as_ref() {
            return false;
        }
        if let Some(before) = self.trees.remove(&tree)
            && let Some(network) = self.networks.get_mut(&before.network)
        {
            network.remove(tree, &before);
            if network.trees.is_empty() {
                self.networks.remove(&before.network);
            }
        }
        if let Some(demand) = demand {
            self.networks.entry(demand.network).or_default().add(tree, &demand);
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
        self.networks.get(&network).into_iter().flat_map(|network| &network.trees).copied()
    }

    /// Networks with a demand.
    pub(in crate::fleet) fn networks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.networks.keys().copied()
    }

    /// Requirements of a network: sets of capabilities for each of which it needs nodes.
    pub(in crate::fleet) fn requirements(&self, network: Uuid) -> impl Iterator<Item = &NodeFeatures> {
        self.networks.get(&network).into_iter().flat_map(|network| network.requirements.keys())
    }

    /// True if a tree on the network has a demand.
    pub(in crate::fleet) fn has(&self, network: Uuid) -> bool {
        self.networks.contains_key(&network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{LISTENER, POOL, change, tree};
    use crate::resources::{Pool, PoolProtocol};

    #[test]
    fn checks_with_a_header_need_nodes_that_send_it() {
        let needs = |protocol: PoolProtocol| {
            let mut tree = tree();
            change::<Pool>(&mut tree, POOL, |pool| pool.protocol = protocol);
            tree.listeners.remove(&LISTENER);
            let demand = Demand::of(&tree, &Capabilities::ALL, &Observation::default()).unwrap();
            demand.requirements().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(needs(PoolProtocol::ProxyV2), ["capability proxy-protocol"]);
        assert_eq!(needs(PoolProtocol::Tcp), [NodeFeatures::default().to_string()]);
    }
}
