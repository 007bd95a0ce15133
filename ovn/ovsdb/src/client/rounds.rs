//! Which server is tried next, and after what pause. Pure: no clock, no chance.

use std::time::Duration;

/// Longest pause while the cluster has no leader: an election takes moments, and the question costs next to nothing.
const ELECTION: Duration = Duration::from_millis(250);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// It was of use for so long that the next failure is a first one.
    pub(super) served: bool,
    /// The server is sound, and may be of use when its cluster has agreed on a leader.
    pub(super) is_passing: bool,
}

/// The order in which servers are tried: all of them one after the other, then a pause that doubles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounds {
    servers: usize,
    least: Duration,
    most: Duration,
    current: usize,
    /// Servers that failed in this round.
    tried: usize,
    /// Rounds in which all failed, one after the other.
    failures: u32,
    is_passing: bool,
}

impl Rounds {
    /// Begins with the first of so many servers.
    pub(super) fn new(servers: usize, least: Duration, most: Duration) -> Self {
        Self { servers, least, most, current: 0, tried: 0, failures: 0, is_passing: false }
    }

    /// The server to try.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// Goes on to the next server; says how long to wait before it, without jitter. Zero: it is tried at once.
    pub(super) fn next(&mut self, ended: Ended) -> Duration {
        if ended.served {
            (self.tried, self.failures, self.is_passing) = (0, 0, false);
        }
        self.current = (self.current + 1) % self.servers.max(1);
        self.tried += 1;
        self.is_passing |= ended.is_passing;
        if self.tried < self.servers {
            return Duration::ZERO;
        }
        let most = if self.is_passing { self.most.min(ELECTION) } else { self.most };
        let doubled = self.least.saturating_mul(1 << self.failures.min(16));
        (self.tried, self.is_passing) = (0, false);
        self.failures = self.failures.saturating_add(1);
        doubled.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Ended = Ended { served: false, is_passing: false };
    const PASSING: Ended = Ended { served: false, is_passing: true };
    const SERVED: Ended = Ended { served: true, is_passing: false };

    fn rounds(servers: usize) -> Rounds {
        Rounds::new(servers, Duration::from_millis(100), Duration::from_secs(5))
    }

    fn pauses(rounds: &mut Rounds, ends: &[Ended]) -> Vec<u64> {
        ends.iter().map(|ended| u64::try_from(rounds.next(*ended).as_millis()).unwrap()).collect()
    }

    #[test]
    fn all_servers_are_tried_before_a_pause_and_pauses_double() {
        let mut three = rounds(3);
        assert_eq!(pauses(&mut three, &[FAILED; 7]), [0, 0, 100, 0, 0, 200, 0]);
        assert_eq!(three.current(), 1);
        assert_eq!(pauses(&mut rounds(1), &[FAILED; 8]), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_server_that_served_begins_anew() {
        let mut three = rounds(3);
        assert_eq!(
            pauses(&mut three, &[FAILED, FAILED, FAILED, SERVED, FAILED, FAILED]),
            [0, 0, 100, 0, 0, 100]
        );
        assert_eq!(pauses(&mut rounds(1), &[FAILED, FAILED, SERVED, FAILED]), [100, 200, 100, 200]);
    }

    #[test]
    fn a_cluster_without_a_leader_is_asked_often() {
        let ends = [FAILED, PASSING, FAILED].repeat(5);
        let asked = pauses(&mut rounds(3), &ends);
        assert_eq!(
            asked.iter().filter(|pause| **pause > 0).copied().collect::<Vec<_>>(),
            [100, 200, 250, 250, 250]
        );
    }
}
