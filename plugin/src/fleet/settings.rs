//! Settings of the fleet.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::state::Rules;

/// Settings of the fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FleetSettings {
    /// Proxy nodes that serve each tenant network, where there are as many.
    pub nodes_per_network: usize,
    /// Time that a node is dead before its networks move to others.
    pub move_after_s: u64,
    /// Drain deadline: how long established connections through a node may go on after a network has moved away from
    /// it.
    pub drain_s: u64,
    /// Addresses of each family that a node has on each tenant network. It connects to backends from each of them,
    /// and has local ports of its own for each: more than one lets it have more connections to one backend. A network that has no
    /// more than eight addresses left gives it fewer.
    pub source_addresses: usize,
    /// MTU in bytes of the nodes' interfaces on tenant networks whose logical switch has no
    /// `external_ids:neutron:mtu`; the default is that of Geneve over 1500.
    pub mtu: u32,
}

impl Default for FleetSettings {
    fn default() -> Self {
        Self { nodes_per_network: 2, move_after_s: 60, drain_s: 300, source_addresses: 1, mtu: 1442 }
    }
}

impl FleetSettings {
    /// Part of the settings that decides on placement.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            nodes_per_network: self.nodes_per_network,
            move_after: Duration::from_secs(self.move_after_s),
            drain: Duration::from_secs(self.drain_s),
            source_addresses: self.source_addresses,
        }
    }
}
