//! Order and pauses of attempts to reach a plugin. Pure.

use std::time::Duration;

use fiberlb_daemon::backoff::Backoff;

/// Backoff after rounds of failures. It stays short: a new leader among the plugins waits for its nodes for no more than a few
/// seconds.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(1500));

/// Counts failures in a row.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Attempts in a round: one for each plugin.
    in_round: usize,
    failures: usize,
    rounds: u32,
}

impl Attempts {
    /// Attempts to reach one of `plugins`.
    pub(super) fn new(plugins: usize) -> Self {
        Self { in_round: plugins.max(1), failures: 0, rounds: 0 }
    }

    /// Records that a stream has ended, or was not opened. None: try the next plugin at once. Some: pause
    /// first, after this number of rounds in which every plugin failed.
    pub(super) fn ended(&mut self, served: bool) -> Option<u32> {
        if served {
            (self.failures, self.rounds) = (0, 0);
            return None;
        }
        self.failures += 1;
        if self.failures < self.in_round {
            return None;
        }
        self.failures = 0;
        self.rounds = self.rounds.saturating_add(1);
        Some(self.rounds)
    }
}

/// Backoff after `rounds` of failures in a row, with jitter by a random number from 0 to 1: nodes that lost
/// one plugin must not all return at the same moment.
pub(super) fn backoff(rounds: u32, random: f64) -> Duration {
    BACKOFF.after_with_jitter(rounds, random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_pause_only_after_a_whole_round() {
        let mut attempts = Attempts::new(3);
        let ends: Vec<_> = [false; 7].into_iter().map(|served| attempts.ended(served)).collect();
        assert_eq!(ends, [None, None, Some(1), None, None, Some(2), None]);
        assert_eq!(attempts.ended(true), None);
        let ends: Vec<_> = [false; 3].into_iter().map(|served| attempts.ended(served)).collect();
        assert_eq!(ends, [None, None, Some(1)], "a stream that was good begins all anew");
        assert_eq!(Attempts::new(1).ended(false), Some(1));
    }

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let wait = |rounds, random| backoff(rounds, random).as_millis();
        assert_eq!([wait(1, 0.0), wait(1, 1.0), wait(3, 1.0), wait(u32::MAX, 1.0)], [50, 100, 400, 1500]);
    }
}
