//! View of the fleet on one tree, as the reconciler and the statuses need it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::health::{BackendVerdict, EjectedBackend, Health, InconclusiveCheck};
use super::liveness::Liveness;

/// View of the fleet on one tree. Empty for a tree that needs no proxy node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetView {
    /// Nodes that have a port on its network, in order of preference; draining ones last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<PlacedNode>,
    /// Listeners that proxies carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub proxied: BTreeMap<Uuid, Proxied>,
    /// Health of checked backends; all others are [`Health::Unchecked`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub health: BTreeMap<Uuid, Health>,
    /// Verdicts of nodes on checked backends, for display; those without any are absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub verdicts: BTreeMap<Uuid, BTreeMap<String, BackendVerdict>>,
    /// Checks of nodes that say nothing about a backend.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inconclusive: BTreeMap<Uuid, BTreeMap<String, InconclusiveCheck>>,
    /// Backends that nodes leave out by passive health checks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ejections: BTreeMap<Uuid, BTreeMap<String, EjectedBackend>>,
    /// Instant at which the view changes by the passage of time alone.
    #[serde(skip)]
    pub look_again: Option<Instant>,
    /// Nodes that hold its VIPs, for DIRECT exposure; empty otherwise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<IpAddr, String>,
    /// Reason why nodes cannot be allocated what they need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A node that serves the tree's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedNode {
    /// Node id.
    pub id: String,
    /// Name of its logical switch port on the network.
    pub port_name: String,
    /// Addresses on the network, without prefix lengths.
    pub hosts: Vec<IpAddr>,
    /// Liveness by its last contact.
    pub liveness: Liveness,
    /// True once the network has moved to others: the node gets new connections only where nobody else
    /// serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Reason, reported by the node, why it is not attached to the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl PlacedNode {
    /// Name and addresses, for people: `node-1 (10.0.0.250, fd00::fa)`.
    pub fn place(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        format!("{} ({})", self.id, hosts.join(", "))
    }

    /// True if verdicts can be expected of it.
    pub fn can_check(&self) -> bool {
        self.liveness != Liveness::Dead && self.trouble.is_none()
    }
}

/// Degree to which a node is to be spared new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reserve {
    /// The node takes its part.
    None,
    /// The node is to become empty.
    Draining,
    /// The node would turn them away.
    WithoutShare,
    /// The node would turn them away, and is to become empty.
    DrainingWithoutShare,
}

/// A listener that proxies carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proxied {
    /// Port that they listen on; `None`: not allocated yet.
    pub port: Option<u16>,
    /// Result by node: the generation that it serves, or its error.
    pub results: BTreeMap<String, Result<u64, String>>,
    /// Troubles that keep nodes from serving all of its clients, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub troubles: BTreeMap<String, String>,
    /// Nodes that have no share in its connection limit, and turn every client away: new ones go to the others, if there are any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_share: BTreeSet<String>,
    /// Nodes of the network that lack a capability which it needs: they never get it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unable: BTreeSet<String>,
    /// Reason why no node of the network can serve it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
}

impl FleetView {
    /// The health of a backend.
    pub fn health(&self, backend: Uuid) -> &Health {
        self.health.get(&backend).unwrap_or(&Health::Unchecked)
    }

    /// Checks of a backend that say nothing, from nodes of which verdicts can be expected.
    pub fn doubts(&self, backend: Uuid) -> impl Iterator<Item = (&PlacedNode, &InconclusiveCheck)> {
        let checks = self.inconclusive.get(&backend);
        let of_node = move |node: &'_ PlacedNode| checks.and_then(|checks| checks.get(&node.id));
        let nodes = self.nodes.iter().filter(|node| node.can_check());
        nodes.filter_map(move |node| Some((node, of_node(node)?)))
    }

    /// Nodes that leave a backend out, without dead ones.
    pub fn ejections_of(&self, backend: Uuid) -> impl Iterator<Item = (&PlacedNode, &EjectedBackend)> {
        let ejections = self.ejections.get(&backend);
        let of_node = move |node: &'_ PlacedNode| ejections.and_then(|ejections| ejections.get(&node.id));
        let nodes = self.nodes.iter().filter(|node| node.liveness != Liveness::Dead);
        nodes.filter_map(move |node| Some((node, of_node(node)?)))
    }

    /// Decides whether a node receives new connections for a listener. `is_in_row`, the current state,
    /// decides until the node has reported since the plugin's start.
    pub fn serves(&self, listener: Uuid, node: &PlacedNode, is_in_row: bool) -> bool {
        let proxied = self.proxied.get(&listener);
        if proxied.is_some_and(|proxied| proxied.unable.contains(&node.id)) {
            return false;
        }
        let result = proxied.and_then(|proxied| proxied.results.get(&node.id));
        match (node.liveness, result) {
            (Liveness::Dead, _) | (_, Some(Err(_))) => false,
            (_, Some(Ok(_))) => true,
            (_, None) => is_in_row,
        }
    }

    /// The newest generation of a listener that a live node serves; 0: none does.
    pub fn served_generation(&self, listener: Uuid) -> u64 {
        let Some(proxied) = self.proxied.get(&listener) else { return 0 };
        let alive = self.nodes.iter().filter(|node| node.liveness != Liveness::Dead);
        let served = alive.filter_map(|node| proxied.results.get(&node.id)?.as_ref().ok());
        served.copied().max().unwrap_or(0)
    }

    /// Degree to which a node is to be spared the new connections of a listener: nodes that are to be spared more get none
    /// while another one serves it.
    pub fn reserve(&self, listener: Uuid, node: &PlacedNode) -> Reserve {
        let proxied = self.proxied.get(&listener);
        let is_without = proxied.is_some_and(|proxied| proxied.without_share.contains(&node.id));
        match (node.draining, is_without) {
            (false, false) => Reserve::None,
            (true, false) => Reserve::Draining,
            (false, true) => Reserve::WithoutShare,
            (true, true) => Reserve::DrainingWithoutShare,
        }
    }

    /// Nodes that report to serve a listener, and take new connections.
    pub fn serving(&self, listener: Uuid) -> impl Iterator<Item = &PlacedNode> {
        let serves = move |node: &&PlacedNode| self.serves(listener, node, false);
        let reserve = move |node: &&PlacedNode| self.reserve(listener, node);
        let least = self.nodes.iter().filter(serves).map(|node| reserve(&node)).min();
        self.nodes.iter().filter(serves).filter(move |node| Some(reserve(node)) == least)
    }

    /// Trouble of a listener on the nodes, for its owner.
    pub fn trouble_of(&self, listener: Uuid) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        let Proxied { results, unable, lack, troubles, .. } = self.proxied.get(&listener)?;
        if let Some(lack) = lack {
            return Some(lack.clone());
        }
        let nodes = || self.nodes.iter().filter(|node| !node.draining && !unable.contains(&node.id));
        let error =
            |node: &PlacedNode| Some(format!("node {}: {}", node.id, results.get(&node.id)?.as_ref().err()?));
        let errors = nodes().filter_map(error);
        let own = nodes().filter_map(|node| Some(format!("node {}: {}", node.id, node.trouble.as_ref()?)));
        let (dead, alive): (Vec<_>, Vec<_>) = nodes().partition(|node| node.liveness == Liveness::Dead);
        let partial =
            alive.iter().filter_map(|node| Some(format!("node {}: {}", node.id, troubles.get(&node.id)?)));
        let dead = dead.iter().map(|node| format!("node {} is dead", node.id));
        let all: Vec<String> = own.chain(errors).chain(dead).chain(partial).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
