//! What the fleet knows of one tree: all that the reconciler and the statuses need of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::health::Health;
use super::liveness::Liveness;

/// What the fleet knows of one tree. Empty for a tree that asks nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct View {
    /// The nodes that serve its network, the first choice first; those that it moves away from last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<PlacedNode>,
    /// Listeners that proxies carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub proxied: BTreeMap<Uuid, Proxied>,
    /// Backends that a check is in force for; all others are [`Health::Unchecked`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub health: BTreeMap<Uuid, Health>,
    /// When time alone changes something.
    #[serde(skip)]
    pub look_again: Option<Instant>,
    /// The nodes that hold its VIPs, where these are on nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holders: BTreeMap<IpAddr, String>,
    /// Why the nodes cannot be given what they need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A node that serves the tree's network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedNode {
    /// Its id.
    pub id: String,
    /// Name of its logical switch port on the network.
    pub port_name: String,
    /// Its addresses there.
    pub hosts: Vec<IpAddr>,
    /// Whether it lives.
    pub liveness: Liveness,
    /// Whether the network has moved to others: new connections go to it only where nobody else serves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Why it is not on the network, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl PlacedNode {
    /// Whether verdicts can be expected of it.
    pub fn can_check(&self) -> bool {
        self.liveness != Liveness::Dead && self.trouble.is_none()
    }
}

/// A listener that proxies carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Proxied {
    /// The port that they listen on; `None`: not given yet.
    pub port: Option<u16>,
    /// What the nodes say: the generation that they serve, or why they do not.
    pub results: BTreeMap<String, Result<u64, String>>,
}

impl View {
    /// The health of a backend.
    pub fn health(&self, backend: Uuid) -> &Health {
        self.health.get(&backend).unwrap_or(&Health::Unchecked)
    }

    /// Whether new connections for a listener may go to a node. `is_in_row`: whether they do now, which decides while the
    /// node has not said anything since the plugin started.
    pub fn serves(&self, listener: Uuid, node: &PlacedNode, is_in_row: bool) -> bool {
        let result = self.proxied.get(&listener).and_then(|proxied| proxied.results.get(&node.id));
        match (node.liveness, result) {
            (Liveness::Dead, _) | (_, Some(Err(_))) => false,
            (_, Some(Ok(_))) => true,
            (_, None) => is_in_row,
        }
    }

    /// The newest generation of a listener that a living node serves; 0: none does.
    pub fn served_generation(&self, listener: Uuid) -> u64 {
        let Some(proxied) = self.proxied.get(&listener) else { return 0 };
        let alive = self.nodes.iter().filter(|node| node.liveness != Liveness::Dead);
        let served = alive.filter_map(|node| proxied.results.get(&node.id)?.as_ref().ok());
        served.copied().max().unwrap_or(0)
    }

    /// The nodes that serve a listener, by their own word, and take new connections.
    pub fn serving(&self, listener: Uuid) -> impl Iterator<Item = &PlacedNode> {
        let serves = move |node: &&PlacedNode| self.serves(listener, node, false);
        let is_alone = !self.nodes.iter().filter(serves).any(|node| !node.draining);
        self.nodes.iter().filter(serves).filter(move |node| is_alone || !node.draining)
    }

    /// What stands in the way of a listener on the nodes, for its owner.
    pub fn trouble_of(&self, listener: Uuid) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(trouble.clone());
        }
        let results = self.proxied.get(&listener).map(|proxied| &proxied.results)?;
        let nodes = || self.nodes.iter().filter(|node| !node.draining);
        let error =
            |node: &PlacedNode| Some(format!("node {}: {}", node.id, results.get(&node.id)?.as_ref().err()?));
        let errors = nodes().filter_map(error);
        let own = nodes().filter_map(|node| Some(format!("node {}: {}", node.id, node.trouble.as_ref()?)));
        let dead = nodes().filter(|node| node.liveness == Liveness::Dead);
        let dead = dead.map(|node| format!("node {} is dead", node.id));
        let all: Vec<String> = own.chain(errors).chain(dead).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}
