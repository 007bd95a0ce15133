//! Rates of connections: a token bucket with room for the connections of one second. Pure.

/// One connection, in the unit of buckets: a rate of n a second lets n of them go in each nanosecond, so that nothing is
/// ever rounded.
const CONNECTION: u64 = 1_000_000_000;

/// A bucket, empty at first. The rate is not part of it, so that it may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RateBucket {
    /// Connections that have come in and have not drained yet.
    level: u64,
    /// Time of `level`, in nanoseconds of some clock.
    at: u64,
}

impl RateBucket {
    /// True if one more connection fits at a time.
    pub(super) fn has_room(&self, rate: u32, now: u64) -> bool {
        self.level_at(rate, now).saturating_add(CONNECTION) <= CONNECTION * u64::from(rate)
    }

    /// Counts a connection, for which there is room.
    pub(super) fn add(&mut self, rate: u32, now: u64) {
        let level = self.level_at(rate, now).saturating_add(CONNECTION);
        *self = Self { level, at: self.at.max(now) };
    }

    /// True if all that has come in is gone again.
    pub(super) fn is_empty(&self, rate: u32, now: u64) -> bool {
        self.level_at(rate, now) == 0
    }

    /// True if nothing has ever come in.
    pub(super) fn is_unused(&self) -> bool {
        self.level == 0
    }

    /// Level at a time; threads may read the clock in one order, and come here in another one.
    fn level_at(&self, rate: u32, now: u64) -> u64 {
        let gone = u128::from(now.saturating_sub(self.at)) * u128::from(rate);
        self.level.saturating_sub(u64::try_from(gone).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn take(bucket: &mut RateBucket, rate: u32, now: u64) -> bool {
        let has_room = bucket.has_room(rate, now);
        if has_room {
            bucket.add(rate, now);
        }
        has_room
    }

    #[test]
    fn a_quiet_second_lets_a_seconds_connections_in_at_once() {
        let mut bucket = RateBucket::default();
        let mut admitted = |now| (0..100).filter(|_| take(&mut bucket, 7, now)).count();
        assert_eq!(admitted(0), 7);
        assert_eq!(admitted(SECOND / 7), 0, "a seventh of a second is not whole nanoseconds");
        assert_eq!(admitted(SECOND / 7 + 1), 1);
        assert_eq!(admitted(2 * SECOND), 7);
        assert_eq!(admitted(SECOND), 0, "of a thread that has read the clock before");
        assert!(!bucket.is_empty(7, 3 * SECOND - 1) && bucket.is_empty(7, 3 * SECOND));
    }

    proptest! {
        /// Whatever comes whenever: in no span of time more than its length allows, and a second's.
        #[test]
        fn no_span_of_time_has_more_than_the_rate_and_a_burst(
            rate in 1_u32..50,
            schedule in prop::collection::vec((0_u64..SECOND / 4, 1_usize..20), 1..60),
        ) {
            let (mut bucket, mut now) = (RateBucket::default(), 0);
            let mut admitted: Vec<u64> = Vec::new();
            for (pause, asked) in schedule {
                now += pause;
                admitted.extend((0..asked).filter(|_| take(&mut bucket, rate, now)).map(|_| now));
            }
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let number = (last - first + 1) as u64;
                    let allowed = u64::from(rate) * (to - from) + CONNECTION * u64::from(rate);
                    prop_assert!(number * CONNECTION <= allowed, "{number} in {} ns", to - from);
                }
            }
        }

        /// A client that asks at all times gets all that the rate allows, to the last connection.
        #[test]
        fn a_rate_does_not_drift(
            rate in 2_u32..200,
            pauses in prop::collection::vec(1_u64..SECOND / 300, 1..2_000),
        ) {
            let (mut bucket, mut admitted) = (RateBucket::default(), 0_u64);
            let mut now = 0;
            for pause in std::iter::once(0).chain(pauses) {
                now += pause;
                while take(&mut bucket, rate, now) {
                    admitted += 1;
                }
            }
            prop_assert_eq!(admitted, u64::from(rate) * (SECOND + now) / CONNECTION);
        }

        #[test]
        fn no_numbers_break_it(calls in prop::collection::vec((any::<u32>(), any::<u64>()), 0..50)) {
            let mut bucket = RateBucket::default();
            for (rate, now) in calls {
                let taken = take(&mut bucket, rate, now);
                prop_assert!(rate > 0 || !taken);
            }
        }
    }
}
