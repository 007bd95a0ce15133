//! How proxy nodes are used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::state::Rules;

/// How proxy nodes are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Nodes that serve each tenant network, where there are as many. Default 2.
    pub nodes_per_network: usize,
    /// Seconds that a node is dead before its networks move to others. Default 60.
    pub move_after_s: u64,
    /// Seconds that connections through a node may go on after a network has moved away from it. Default 300.
    pub drain_s: u64,
    /// MTU of the nodes' interfaces on tenant networks, in bytes, where the logical switch does not say its own
    /// (`external_ids:neutron:mtu`). Default 1442: Geneve over 1500.
    pub mtu: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes_per_network: 2, move_after_s: 60, drain_s: 300, mtu: 1442 }
    }
}

impl Settings {
    /// What of it decides where networks are.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            nodes_per_network: self.nodes_per_network,
            move_after: Duration::from_secs(self.move_after_s),
            drain: Duration::from_secs(self.drain_s),
        }
    }
}
