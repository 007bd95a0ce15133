//! Settings of the fleet.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::state::Rules;

/// Settings of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetSettings {
    /// Nodes that serve each tenant network, where there are as many. Default 2.
    pub nodes_per_network: usize,
    /// Seconds that a node is dead before its networks move to others. Default 60.
    pub move_after_s: u64,
    /// Drain deadline: seconds for which connections through a node may go on after a network has moved away
    /// from it. Default 300.
    pub drain_s: u64,
    /// MTU of the nodes' interfaces on tenant networks, in bytes, unless the logical switch has its own
    /// (`external_ids:neutron:mtu`). Default 1442: Geneve over 1500.
    pub mtu: u32,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self { nodes_per_network: 2, move_after_s: 60, drain_s: 300, mtu: 1442 }
    }
}

impl FleetSettings {
    /// Part of the settings that decides on placement.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            nodes_per_network: self.nodes_per_network,
            move_after: Duration::from_secs(self.move_after_s),
            drain: Duration::from_secs(self.drain_s),
        }
    }
}
