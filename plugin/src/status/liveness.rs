//! Liveness of a node by its last contact. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Silence after which a node is dead. Agents send a heartbeat every 500 ms; a dead node must have left OVN's
/// rows within 3 s.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);
/// Grace period after a plugin's start, in which known nodes may reconnect before they count as dead.
pub(crate) const RECONNECT_GRACE: Duration = Duration::from_secs(5);

/// Last contact with a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeContact {
    /// True while its stream is open.
    pub connected: bool,
    /// Last message received; `None`: none since the plugin started.
    pub last: Option<Instant>,
    /// Start of the plugin.
    pub started: Instant,
}

/// Liveness of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Connected.
    Alive,
    /// Disconnected for a moment: it keeps what it has and is allocated nothing new.
    Silent,
    /// Disconnected for too long: it serves nothing.
    Dead,
}

impl NodeContact {
    /// Liveness at `now`.
    pub fn liveness(&self, now: Instant) -> Liveness {
        match self.deadline() {
            None => Liveness::Alive,
            Some(deadline) if now < deadline => Liveness::Silent,
            Some(_) => Liveness::Dead,
        }
    }

    /// Instant at which the node is dead unless a message comes; `None` while it is connected.
    pub fn deadline(&self) -> Option<Instant> {
        let silent_since = self.last.map_or(self.started + RECONNECT_GRACE, |last| last + DEAD_AFTER);
        (!self.connected).then_some(silent_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_dead_after_two_seconds_of_silence() {
        let now = Instant::now();
        let contact = NodeContact { connected: true, last: Some(now), started: now };
        assert_eq!(contact.liveness(now + Duration::from_secs(60)), Liveness::Alive);
        let left = NodeContact { connected: false, ..contact };
        assert_eq!(left.liveness(now + Duration::from_millis(1999)), Liveness::Silent);
        assert_eq!(left.liveness(now + DEAD_AFTER), Liveness::Dead);
    }

    #[test]
    fn a_plugin_that_has_just_started_waits_for_the_nodes_that_it_knows() {
        let now = Instant::now();
        let known = NodeContact { connected: false, last: None, started: now };
        assert_eq!(known.liveness(now + Duration::from_secs(4)), Liveness::Silent);
        assert_eq!(known.liveness(now + RECONNECT_GRACE), Liveness::Dead);
    }
}
