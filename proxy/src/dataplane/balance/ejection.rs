//! Passive health of one backend: connections in a row that fail eject it from the node's choice, for longer each time.
//! Failures of long ago are in no row. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::dataplane::spec::PassiveHealthSpec;

/// Effect of a failed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum FailureEffect {
    /// It is counted, or says nothing: the backend is left out already, takes no connections, or is one of a configuration
    /// that another has replaced.
    Counted,
    /// The backend is left out.
    Ejected {
        /// Number of the ejection in a row.
        number: u32,
        /// Time for which it is left out.
        duration: Duration,
    },
    /// The backend is due to be left out, and is not: as many of its pool are as may be.
    Withheld,
}

/// Connections of a backend, as far as they decide on ejections.
#[derive(Debug, Default)]
pub(super) struct EjectionRecord {
    /// Connections in a row that have failed, by their time: fewer than eject.
    failures: VecDeque<Instant>,
    /// The latest ejection, until the backend has served for as long as that took.
    latest: Option<LatestEjection>,
}

#[derive(Debug)]
struct LatestEjection {
    /// Number in a row.
    number: u32,
    until: Instant,
    duration: Duration,
    /// Time of the first connection that the backend has accepted after it.
    served_since: Option<Instant>,
}

impl EjectionRecord {
    /// Counts a failed connection, with those before it that are no older than a first ejection takes: where nothing tells
    /// of successes, as with one-way protocols over UDP, a row would have no end. `may_eject`: asked if the backend is
    /// due to be left out.
    pub(super) fn fail(
        &mut self,
        rules: &PassiveHealthSpec,
        may_eject: impl FnOnce() -> bool,
        now: Instant,
    ) -> FailureEffect {
        if self.ejected_until().is_some_and(|until| now < until) {
            return FailureEffect::Counted;
        }
        let is_old = |failed: &Instant| now.saturating_duration_since(*failed) > rules.ejection;
        while self.failures.front().is_some_and(is_old) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() < usize::try_from(rules.consecutive_failures).unwrap_or(usize::MAX) {
            return FailureEffect::Counted;
        }
        self.failures = VecDeque::new();
        if !may_eject() {
            return FailureEffect::Withheld;
        }
        let number = self.latest.as_ref().map_or(0, |latest| latest.number).saturating_add(1);
        let duration = rules.ejection.saturating_mul(number).min(rules.max_ejection);
        let until = now.checked_add(duration).unwrap_or(now);
        self.latest = Some(LatestEjection { number, until, duration, served_since: None });
        FailureEffect::Ejected { number, duration }
    }

    /// Counts a connection that the backend has accepted. True if it is the first one after an ejection. Ejections are
    /// in a row until the backend has served for as long as the latest one took.
    pub(super) fn succeed(&mut self, now: Instant) -> bool {
        self.failures = VecDeque::new();
        let Some(latest) = self.latest.as_mut().filter(|latest| latest.until <= now) else { return false };
        let Some(since) = latest.served_since else {
            latest.served_since = Some(now);
            return true;
        };
        if now.saturating_duration_since(since) >= latest.duration {
            self.latest = None;
        }
        false
    }

    /// End of the latest ejection.
    pub(super) fn ejected_until(&self) -> Option<Instant> {
        self.latest.as_ref().map(|latest| latest.until)
    }

    /// Ends an ejection before its time.
    pub(super) fn readmit(&mut self, now: Instant) {
        if let Some(latest) = &mut self.latest {
            latest.until = latest.until.min(now);
        }
    }

    /// True if an accepted connection would change something.
    pub(super) fn is_watched(&self) -> bool {
        !self.failures.is_empty() || self.latest.is_some()
    }
}

/// Most backends of so many that may be left out at a time. The only one never is.
pub(super) fn most_ejected(backends: usize, percent: u8) -> usize {
    if backends < 2 { 0 } else { backends.saturating_mul(percent.min(100).into()) / 100 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RULES: PassiveHealthSpec = PassiveHealthSpec {
        consecutive_failures: 3,
        ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(25),
        max_ejected_percent: 50,
    };

    fn fail(record: &mut EjectionRecord, now: Instant) -> Option<u64> {
        match record.fail(&RULES, || true, now) {
            FailureEffect::Ejected { duration, .. } => Some(duration.as_secs()),
            FailureEffect::Counted | FailureEffect::Withheld => None,
        }
    }

    fn eject(record: &mut EjectionRecord, now: Instant) -> Option<u64> {
        assert_eq!([fail(record, now), fail(record, now)], [None; 2]);
        fail(record, now)
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_breaks_the_row() {
        let (mut record, now) = (EjectionRecord::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!([fail(&mut record, now), fail(&mut record, now)], [None; 2]);
            assert!(record.is_watched() && !record.succeed(now) && !record.is_watched());
        }
        assert_eq!(eject(&mut record, now), Some(10));
        assert_eq!(record.ejected_until(), Some(now + 10 * SECOND));
        for _ in 0..10 {
            assert_eq!(fail(&mut record, now + 9 * SECOND), None, "late ones change nothing");
        }
        assert_eq!(record.ejected_until(), Some(now + 10 * SECOND));
    }

    #[test]
    fn failures_of_long_ago_are_forgotten() {
        let (mut record, mut now) = (EjectionRecord::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(fail(&mut record, now), None, "no three within 10 s");
            now += 5 * SECOND + Duration::from_millis(1);
            assert!(record.failures.len() < 3 && record.is_watched());
        }
        now += RULES.ejection;
        assert_eq!(fail(&mut record, now), None);
        assert_eq!(fail(&mut record, now + 5 * SECOND), None);
        assert_eq!(fail(&mut record, now + 10 * SECOND), Some(10), "as old as they may be");
        assert_eq!(record.failures.capacity(), 0, "nothing is kept of a row that is over");
    }

    #[test]
    fn each_ejection_in_a_row_takes_longer_until_the_backend_has_served_as_long() {
        let (mut record, mut now) = (EjectionRecord::default(), Instant::now());
        for seconds in [10, 20, 25, 25] {
            assert_eq!(eject(&mut record, now), Some(seconds));
            assert!(!record.succeed(now), "where nobody else is left it is tried, and stays out");
            now += Duration::from_secs(seconds);
            assert!(record.succeed(now) && !record.succeed(now + SECOND), "it is back once");
            now += 24 * SECOND;
        }
        assert_eq!(eject(&mut record, now), Some(25), "24 s are not 25 s");
        now += 25 * SECOND;
        assert_eq!([fail(&mut record, now), fail(&mut record, now)], [None; 2]);
        assert!(record.succeed(now + SECOND));
        assert!(!record.succeed(now + 26 * SECOND) && !record.is_watched());
        assert_eq!(eject(&mut record, now + 27 * SECOND), Some(10), "the row is over");
    }

    #[test]
    fn one_that_may_not_be_left_out_is_due_again_after_as_many_failures() {
        let (mut record, now) = (EjectionRecord::default(), Instant::now());
        let effects: Vec<_> = (0..6).map(|_| record.fail(&RULES, || false, now)).collect();
        let (counted, withheld) = (FailureEffect::Counted, FailureEffect::Withheld);
        assert_eq!(effects, [counted, counted, withheld, counted, counted, withheld]);
        assert_eq!(record.ejected_until(), None);
        assert_eq!(eject(&mut record, now), Some(10));
        record.readmit(now + SECOND);
        assert_eq!(record.ejected_until(), Some(now + SECOND));
        assert_eq!(eject(&mut record, now + SECOND), Some(20));
    }

    #[test]
    fn a_share_of_the_pool_is_rounded_down_and_the_only_one_stays() {
        let most = |backends, percent| most_ejected(backends, percent);
        assert_eq!([most(0, 100), most(1, 100), most(2, 100), most(2, 50), most(2, 49)], [0, 0, 2, 1, 0]);
        assert_eq!([most(3, 50), most(10, 10), most(10_000, 1), most(9, 100)], [1, 1, 100, 9]);
    }

    proptest! {
        #[test]
        fn an_ejection_is_never_longer_than_it_may_be_nor_shorter_than_the_first(
            steps in prop::collection::vec((0_u8..5, prop_oneof![0_u64..6_000, 0_u64..40_000]), 1..200),
        ) {
            let (mut record, mut now, mut failures) = (EjectionRecord::default(), Instant::now(), Vec::new());
            for (action, millis) in steps {
                let fails = action > 0;
                now += Duration::from_millis(millis);
                let is_out = record.ejected_until().is_some_and(|until| now < until);
                if !fails {
                    record.succeed(now);
                    failures.clear();
                    continue;
                }
                if !is_out {
                    failures.retain(|failed| now - *failed <= RULES.ejection);
                    failures.push(now);
                }
                match record.fail(&RULES, || true, now) {
                    FailureEffect::Ejected { duration, number } => {
                        prop_assert!(failures.len() == 3 && !is_out);
                        prop_assert!((RULES.ejection..=RULES.max_ejection).contains(&duration));
                        prop_assert_eq!(duration, (RULES.ejection * number).min(RULES.max_ejection));
                        failures.clear();
                    }
                    effect => prop_assert!(effect == FailureEffect::Counted && failures.len() < 3),
                }
            }
        }
    }
}
