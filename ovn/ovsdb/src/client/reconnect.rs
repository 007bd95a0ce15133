//! Order of the servers and pauses between attempts. Pure: no clock, no randomness.

use std::time::Duration;

/// Longest pause while the cluster has no leader: an election takes moments, and an attempt costs little.
const ELECTION_PAUSE: Duration = Duration::from_millis(250);

/// End of a connection, or of an attempt to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttemptOutcome {
    /// True if the connection was used long enough for the backoff to start over.
    pub(super) was_stable: bool,
    /// True if the server is sound, and may be usable once its cluster has elected a leader.
    pub(super) is_transient: bool,
}

/// Round-robin over the servers, with a pause after each round that doubles from round to round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reconnect {
    servers: usize,
    backoff_min: Duration,
    backoff_max: Duration,
    current: usize,
    /// Servers that failed in this round.
    failed: usize,
    /// Consecutive rounds in which all servers failed.
    failed_rounds: u32,
    /// True if a failure of this round was transient.
    is_transient: bool,
}

impl Reconnect {
    /// Starts with the first of `servers`.
    pub(super) fn new(servers: usize, backoff_min: Duration, backoff_max: Duration) -> Self {
        Self {
            servers,
            backoff_min,
            backoff_max,
            current: 0,
            failed: 0,
            failed_rounds: 0,
            is_transient: false,
        }
    }

    /// Index of the server to try.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Moves on to the next server; returns the pause before it, without jitter. Zero within a round.
    pub(super) fn advance(&mut self, outcome: AttemptOutcome) -> Duration {
        if outcome.was_stable {
            (self.failed, self.failed_rounds, self.is_transient) = (0, 0, false);
        }
        self.current = (self.current + 1) % self.servers.max(1);
        self.failed += 1;
        self.is_transient |= outcome.is_transient;
        if self.failed < self.servers {
            return Duration::ZERO;
        }
        let longest = if self.is_transient { self.backoff_max.min(ELECTION_PAUSE) } else { self.backoff_max };
        let doubled = self.backoff_min.saturating_mul(1 << self.failed_rounds.min(16));
        (self.failed, self.is_transient) = (0, false);
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        doubled.min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: AttemptOutcome = AttemptOutcome { was_stable: false, is_transient: false };
    const TRANSIENT: AttemptOutcome = AttemptOutcome { was_stable: false, is_transient: true };
    const STABLE: AttemptOutcome = AttemptOutcome { was_stable: true, is_transient: false };

    fn reconnect(servers: usize) -> Reconnect {
        Reconnect::new(servers, Duration::from_millis(100), Duration::from_secs(5))
    }

    fn pauses(reconnect: &mut Reconnect, outcomes: &[AttemptOutcome]) -> Vec<u64> {
        outcomes.iter().map(|it| u64::try_from(reconnect.advance(*it).as_millis()).unwrap()).collect()
    }

    #[test]
    fn all_servers_are_tried_before_a_pause_and_pauses_double() {
        let mut three = reconnect(3);
        assert_eq!(pauses(&mut three, &[FAILED; 7]), [0, 0, 100, 0, 0, 200, 0]);
        assert_eq!(three.current(), 1);
        assert_eq!(pauses(&mut reconnect(1), &[FAILED; 8]), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn backoff_starts_over_after_a_stable_connection() {
        let mut three = reconnect(3);
        assert_eq!(
            pauses(&mut three, &[FAILED, FAILED, FAILED, STABLE, FAILED, FAILED]),
            [0, 0, 100, 0, 0, 100]
        );
        assert_eq!(pauses(&mut reconnect(1), &[FAILED, FAILED, STABLE, FAILED]), [100, 200, 100, 200]);
    }

    #[test]
    fn a_cluster_without_a_leader_is_asked_often() {
        let outcomes = [FAILED, TRANSIENT, FAILED].repeat(5);
        let asked = pauses(&mut reconnect(3), &outcomes);
        assert_eq!(
            asked.iter().filter(|pause| **pause > 0).copied().collect::<Vec<_>>(),
            [100, 200, 250, 250, 250]
        );
    }
}
