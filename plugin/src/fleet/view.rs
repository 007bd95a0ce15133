//! View of the fleet on a tree.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use uuid::Uuid;

use crate::datapath::{Carrier, NodeFeature, backend_families};
use crate::fleet::directory::node::Node;
use crate::fleet::placement::allocator::AllocationError;
use crate::fleet::placement::demand::{Demand, ProxiedListener, check_grace};
use crate::fleet::state::FleetState;
use crate::resources::Tree;
use crate::status::{
    BackendVerdict, EjectedBackend, FleetView, Health, InconclusiveCheck, PlacedNode, Proxied,
};

impl FleetState {
    /// View of the fleet on a tree with `demand`.
    pub(in crate::fleet) fn view(
        &self,
        tree: &Tree,
        demand: &Demand,
        now: Instant,
        port_name: impl Fn(&str) -> String,
    ) -> FleetView {
        let nodes = self.nodes_on(demand.network, now, &port_name);
        let (health, look_again) = self.health_of(tree, &nodes, now);
        let vips = tree.load_balancer.spec.vips.iter();
        let holder = |vip: &IpAddr| Some((*vip, self.holder(tree.id(), *vip)?.to_owned()));
        FleetView {
            proxied: demand
                .proxied
                .iter()
                .map(|(id, listener)| (*id, self.proxied(tree, *id, listener, &nodes)))
                .collect(),
            health,
            verdicts: self.verdicts_on(tree),
            inconclusive: self.inconclusive_on(tree),
            ejections: self.ejections_on(tree),
            look_again,
            holders: vips.filter_map(holder).collect(),
            trouble: self.trouble(demand.network),
            nodes,
        }
    }

    /// Verdicts of nodes on the checked backends of a tree, without those that nobody has judged.
    pub(in crate::fleet) fn verdicts_on(
        &self,
        tree: &Tree,
    ) -> BTreeMap<Uuid, BTreeMap<String, BackendVerdict>> {
        let shown = tree.checked_backends().map(|backend| (backend.id, self.verdicts.shown(backend.id)));
        shown.filter(|(_, verdicts)| !verdicts.is_empty()).collect()
    }

    /// Checks of nodes that say nothing about backends of a tree.
    pub(in crate::fleet) fn inconclusive_on(
        &self,
        tree: &Tree,
    ) -> BTreeMap<Uuid, BTreeMap<String, InconclusiveCheck>> {
        let checks = |backend: Uuid| Some((backend, self.inconclusive.of(backend)?.clone()));
        tree.checked_backends().filter_map(|backend| checks(backend.id)).collect()
    }

    /// Backends of a tree that nodes leave out.
    pub(in crate::fleet) fn ejections_on(
        &self,
        tree: &Tree,
    ) -> BTreeMap<Uuid, BTreeMap<String, EjectedBackend>> {
        let mut ejections = self.ejections.of(tree.id());
        ejections.retain(|backend, _| tree.backends.contains_key(backend));
        ejections
    }

    /// Nodes that have a port on a network, in order of preference; draining ones last.
    fn nodes_on(&self, network: Uuid, now: Instant, port_name: &dyn Fn(&str) -> String) -> Vec<PlacedNode> {
        let placed = self.placed(network, now);
        let leaving = self.allocations.ports(network).map(|(id, _)| id);
        let leaving = leaving.filter(|id| !placed.contains(id) && !self.is_lost(id, now));
        let leaving = leaving.filter(|id| !self.is_overdue(network, id, &placed, now));
        let ids = placed.iter().copied().chain(leaving);
        let nodes = ids.filter_map(|id| self.placed_node(id, network, now, port_name));
        let (draining, serving): (Vec<_>, Vec<_>) = nodes.partition(|node| node.draining);
        serving.into_iter().chain(draining).collect()
    }

    fn trouble(&self, network: Uuid) -> Option<String> {
        if self.nodes.is_empty() {
            return Some("no proxy node has ever connected: start fiberlb-proxy on a node".to_owned());
        }
        // Whoever has ports lacks nothing.
        let trouble = self.troubles.get(&network).filter(|trouble| **trouble != AllocationError::NoPort)?;
        Some(trouble.to_string())
    }

    fn placed_node(
        &self,
        id: &str,
        network: Uuid,
        now: Instant,
        port_name: &dyn Fn(&str) -> String,
    ) -> Option<PlacedNode> {
        let (node, port) = (self.nodes.get(id)?, self.allocations.port(network, id)?);
        let trouble = node.results.get(&network).and_then(|result| result.clone().err());
        Some(PlacedNode {
            id: id.to_owned(),
            port_name: port_name(id),
            hosts: port.hosts().collect(),
            liveness: node.contact.liveness(now),
            draining: port.draining_since.is_some(),
            trouble,
        })
    }

    fn proxied(
        &self,
        tree: &Tree,
        listener: Uuid,
        demand: &ProxiedListener,
        nodes: &[PlacedNode],
    ) -> Proxied {
        let (needs, network) = (&demand.needs, tree.load_balancer.spec.network);
        // The demand may be that of an earlier tree.
        let backends = tree.listeners.get(&listener).map(|it| backend_families(tree, &it.spec));
        let demand = &ProxiedListener {
            vips: tree.load_balancer.spec.vips.iter().copied().collect(),
            backends: backends.unwrap_or_default(),
            ..demand.clone()
        };
        let is_able =
            |node: &&PlacedNode| self.can_serve(&node.id, needs) && demand.is_served_from(&node.hosts);
        let (able, unable): (Vec<_>, Vec<_>) = nodes.iter().partition(is_able);
        let able: Vec<&str> = able.into_iter().map(|node| node.id.as_str()).collect();
        let result = |id: &str| {
            let result = self.nodes.get(id)?.results.get(&listener)?.clone();
            Some((id.to_owned(), result))
        };
        let trouble = |id: &str| {
            let trouble = self.nodes.get(id)?.listener_troubles.get(&listener)?;
            Some((id.to_owned(), trouble.clone()))
        };
        let port = self.allocations.proxy_block(network, listener, demand.ports);
        let lacks_ports = port.is_none() && demand.carrier == Carrier::Proxy;
        let trouble_of_ports =
            lacks_ports.then(|| self.troubles.get(&network).map(ToString::to_string)).flatten();
        let lack = || able.is_empty().then(|| self.lack(demand, &unable)).flatten();
        Proxied {
            port,
            troubles: able.iter().filter_map(|id| trouble(id)).collect(),
            results: able.iter().filter_map(|id| result(id)).collect(),
            without_share: self.shares().without(listener).filter(|id| self.has_shares(id)).collect(),
            unable: unable.iter().map(|node| node.id.clone()).collect(),
            lack: trouble_of_ports.or_else(lack),
        }
    }

    /// True if a node keeps to its share of a connection limit. Older agents, which do not know limits of clients either, keep to
    /// all of the limit.
    fn has_shares(&self, node: &str) -> bool {
        let capabilities = self.nodes.get(node).and_then(Node::capabilities);
        capabilities.is_some_and(|capabilities| capabilities.has(&NodeFeature::CLIENT_LIMITS))
    }

    /// Reason why no node of a network can serve a listener; `None`: no node is placed on the network yet.
    fn lack(&self, listener: &ProxiedListener, unable: &[&PlacedNode]) -> Option<String> {
        let ProxiedListener { needs, vips, backends, .. } = listener;
        let is_somewhere = self.nodes.values().any(|node| node.can_serve(needs));
        if !is_somewhere && !self.nodes.is_empty() {
            return Some(format!(
                "it needs a node with the {needs}, and there is none: update fiberlb-proxy on the nodes"
            ));
        }
        let first = &unable.first()?.id;
        if let Some(node) = unable.iter().find(|node| self.can_serve(&node.id, needs)) {
            let (of, families) = match backends.are_reached_from(&node.hosts) {
                true => ("VIPs", vips),
                false => ("backends", backends),
            };
            return Some(format!(
                "its {of} have {families} addresses, and node {} has none: the network has no such subnet, or no free \
                 address in it",
                node.id
            ));
        }
        Some(format!("it needs a node with the {needs}, unlike node {first}"))
    }

    /// Health of the backends in checked pools, and the instant at which it changes by itself.
    fn health_of(
        &self,
        tree: &Tree,
        nodes: &[PlacedNode],
        now: Instant,
    ) -> (BTreeMap<Uuid, Health>, Option<Instant>) {
        let can_check = nodes.iter().any(PlacedNode::can_check);
        let mut look_again: Option<Instant> = None;
        let mut sooner = |due: Instant| look_again = Some(look_again.map_or(due, |at| at.min(due)));
        let mut all = BTreeMap::new();
        for backend in tree.checked_backends() {
            let mut health = self.verdicts.health(backend.id);
            // A backend that the controller has not seen yet is new.
            let since = self.checked.get(backend.id).map_or(Some(now), |checked| checked.since);
            match (&health, since.map(|since| since + check_grace(tree, backend.spec.pool_id))) {
                (Health::Unknown, Some(due)) if !can_check && now < due => sooner(due),
                (Health::Unknown, due) if !can_check && (due.is_some() || self.nodes.is_empty()) => {
                    health = Health::NotChecked;
                }
                _ => {}
            }
            all.insert(backend.id, health);
        }
        (all, look_again)
    }
}
