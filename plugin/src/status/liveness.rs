//! Whether a node lives, by what was heard of it. Pure.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Silence after which a node is dead. The agents say something every half second; a dead node must have left OVN's rows
/// within three seconds.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(2);
/// How long a plugin that has just started waits for the nodes that it knows from before.
pub(crate) const WELCOME: Duration = Duration::from_secs(5);

/// What was heard of a node.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Whether its stream is open.
    pub connected: bool,
    /// When anything came from it last; `None`: never since the plugin started.
    pub last: Option<Instant>,
    /// When the plugin started.
    pub started: Instant,
}

/// What a node counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Connected.
    Alive,
    /// Away for a moment: nothing is taken from it, nothing new is given to it.
    Silent,
    /// Away: it serves nothing.
    Dead,
}

impl Heard {
    /// What it comes to at `now`.
    pub fn liveness(&self, now: Instant) -> Liveness {
        match self.deadline() {
            None => Liveness::Alive,
            Some(deadline) if now < deadline => Liveness::Silent,
            Some(_) => Liveness::Dead,
        }
    }

    /// When it is dead if nothing comes until then.
    pub fn deadline(&self) -> Option<Instant> {
        let silent_since = self.last.map_or(self.started + WELCOME, |last| last + DEAD_AFTER);
        (!self.connected).then_some(silent_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_dead_after_two_seconds_of_silence() {
        let now = Instant::now();
        let heard = Heard { connected: true, last: Some(now), started: now };
        assert_eq!(heard.liveness(now + Duration::from_secs(60)), Liveness::Alive);
        let left = Heard { connected: false, ..heard };
        assert_eq!(left.liveness(now + Duration::from_millis(1999)), Liveness::Silent);
        assert_eq!(left.liveness(now + DEAD_AFTER), Liveness::Dead);
    }

    #[test]
    fn a_plugin_that_has_just_started_waits_for_the_nodes_that_it_knows() {
        let now = Instant::now();
        let known = Heard { connected: false, last: None, started: now };
        assert_eq!(known.liveness(now + Duration::from_secs(4)), Liveness::Silent);
        assert_eq!(known.liveness(now + WELCOME), Liveness::Dead);
    }
}
