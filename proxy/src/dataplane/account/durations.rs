//! Durations of connections, in a few buckets: what a listener or a backend costs is fixed.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets but for the last one, which has none, in microseconds.
const BOUNDS_US: [u64; 7] = [10_000, 100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000];

/// Number of buckets.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// Durations of the connections that have ended and had reached a backend, from the acceptance of the client; of sessions of
/// UDP, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Durations {
    /// Upper bounds of the buckets in seconds, each with the connections in it that are in none before.
    #[must_use]
    pub fn buckets(&self) -> [(f64, u64); BUCKETS] {
        let mut bounds = BOUNDS_US.iter().map(|bound| Duration::from_micros(*bound).as_secs_f64());
        self.counts.map(|count| (bounds.next().unwrap_or(f64::INFINITY), count))
    }

    /// Connections in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Connections by bucket.
    #[must_use]
    pub fn counts(&self) -> [u64; BUCKETS] {
        self.counts
    }

    /// Their durations together, in microseconds.
    #[must_use]
    pub fn micros(&self) -> u64 {
        self.sum_us
    }

    /// Their durations together, in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        Duration::from_micros(self.sum_us).as_secs_f64()
    }
}

/// The durations as workers update them.
#[derive(Debug, Default)]
pub(super) struct AtomicDurations {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl AtomicDurations {
    /// Adds a connection.
    pub(super) fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts.get(bucket).map(|count| count.fetch_add(1, Relaxed));
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Current values.
    pub(super) fn read(&self) -> Durations {
        let counts = self.counts.each_ref().map(|count| count.load(Relaxed));
        Durations { counts, sum_us: self.sum_us.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bound_is_of_the_bucket_below_it() {
        let durations = AtomicDurations::default();
        for us in [0, 10_000, 10_001, 3_600_000_000, 3_600_000_001] {
            durations.add(Duration::from_micros(us));
        }
        let read = durations.read();
        let counts = read.buckets().map(|(_, count)| count);
        assert_eq!((counts, read.count()), ([2, 1, 0, 0, 0, 0, 1, 1], 5));
        assert_eq!(read.buckets()[0].0.to_string(), "0.01");
        assert_eq!(read.seconds().to_string(), "7200.020002");
    }

    proptest! {
        #[test]
        fn each_connection_is_in_the_first_bucket_that_is_not_below_it(us in any::<u64>()) {
            let durations = AtomicDurations::default();
            durations.add(Duration::from_micros(us));
            let read = durations.read();
            let place = read.buckets().iter().position(|(_, count)| *count == 1).unwrap();
            prop_assert_eq!(read.count(), 1);
            prop_assert!(BOUNDS_US.get(place).is_none_or(|bound| us <= *bound));
            prop_assert!(place == 0 || us > BOUNDS_US[place - 1]);
        }
    }
}
