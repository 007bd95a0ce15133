//! Bandwidth of a listener on this node: a bucket of bytes for each direction, shared by all of its connections on all
//! workers.
//!
//! Who reads takes a grant first, a small part of what a second allows, and gives back what it did not need. While the
//! bucket is full a grant is for later: each has a time of its own, in the order of asking, so that many that wait are woken
//! one by one and get the same.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::dataplane::{
    account::{AtomicCounters, increment},
    spec::Limits,
};

/// Nanoseconds of a second: a byte, in the unit of buckets. A rate of n a second lets n of them go in each nanosecond, so that
/// nothing is ever rounded.
const BYTE: u128 = 1_000_000_000;

/// Most bytes of one grant: as many as a wake-up moves at a time.
const MAX_GRANT: u64 = 256 * 1024;

/// Least bytes of one grant, and of what passes at once.
const MIN_GRANT: u64 = 256;
const MIN_BURST: u64 = 512;

/// Direction of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Way {
    /// From clients to backends.
    Up,
    /// From backends to clients.
    Down,
}

/// Bandwidth of a listener. Connections keep it, and follow its changes.
#[derive(Debug)]
pub(in crate::dataplane) struct Bandwidth {
    /// Bytes a second; 0: there is no limit any more.
    rate: AtomicU64,
    started: Instant,
    up: Mutex<ByteBucket>,
    down: Mutex<ByteBucket>,
    counters: Arc<AtomicCounters>,
}

impl Bandwidth {
    /// The bandwidth for these limits: the older one, with another rate, or a new one. None: there is no limit, nor for
    /// connections that have the older one.
    pub(in crate::dataplane) fn of(
        limits: &Limits,
        older: Option<&Arc<Self>>,
        counters: &Arc<AtomicCounters>,
    ) -> Option<Arc<Self>> {
        if let Some(older) = older {
            older.rate.store(limits.bandwidth.unwrap_or(0), Relaxed);
        }
        let rate = limits.bandwidth?;
        Some(older.map_or_else(|| Arc::new(Self::new(rate, counters)), Arc::clone))
    }

    fn new(rate: u64, counters: &Arc<AtomicCounters>) -> Self {
        Self {
            rate: AtomicU64::new(rate),
            started: Instant::now(),
            up: Mutex::default(),
            down: Mutex::default(),
            counters: Arc::clone(counters),
        }
    }

    /// Most bytes of one grant.
    pub(in crate::dataplane) fn grant(&self) -> usize {
        let grant = match self.rate.load(Relaxed) {
            0 => MAX_GRANT,
            rate => grant_of(rate),
        };
        usize::try_from(grant).unwrap_or(usize::MAX)
    }

    /// Takes bytes, at most a grant, if they may pass at once.
    pub(in crate::dataplane) fn take(&self, way: Way, bytes: usize, now: Instant) -> bool {
        match self.rate.load(Relaxed) {
            0 => true,
            rate => self.bucket(way).take(bytes as u64, rate, self.clock(now)),
        }
    }

    /// Takes bytes, at most a grant. Returns when they may pass.
    pub(in crate::dataplane) fn reserve(&self, way: Way, bytes: usize, now: Instant) -> Instant {
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return now;
        }
        increment(&self.counters.bandwidth_waits);
        let wait = self.bucket(way).reserve(bytes as u64, rate, self.clock(now));
        now.checked_add(Duration::from_nanos(wait)).unwrap_or(now)
    }

    /// Gives back bytes that were taken and have not passed.
    pub(in crate::dataplane) fn give_back(&self, way: Way, bytes: usize) {
        if self.rate.load(Relaxed) > 0 {
            self.bucket(way).give_back(bytes as u64);
        }
    }

    /// Admits a datagram; false: it is to be dropped. It is counted then.
    pub(in crate::dataplane) fn admit(&self, way: Way, bytes: usize, now: Instant) -> bool {
        let rate = self.rate.load(Relaxed);
        let is_admitted = rate == 0 || self.bucket(way).admit(bytes as u64, rate, self.clock(now));
        if !is_admitted {
            increment(&self.counters.datagrams_over_bandwidth);
        }
        is_admitted
    }

    fn bucket(&self, way: Way) -> MutexGuard<'_, ByteBucket> {
        let bucket = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Most bytes of one grant at a rate: the 256th part of a second's.
fn grant_of(rate: u64) -> u64 {
    (rate / 256).clamp(MIN_GRANT, MAX_GRANT)
}

/// Most bytes that pass at once, after a pause, at a rate: a 16th of a second's. More would show in a measurement of some
/// seconds, and less would be lost where a thread is late.
fn burst_of(rate: u64) -> u128 {
    BYTE * u128::from((rate / 16).max(MIN_BURST))
}

/// A bucket, empty at first. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct ByteBucket {
    /// What was taken, and has not gone again yet.
    level: u128,
    /// When that was so, in nanoseconds.
    at: u64,
}

impl ByteBucket {
    fn advance(&mut self, rate: u64, now: u64) {
        let gone = u128::from(now.saturating_sub(self.at)) * u128::from(rate);
        *self = Self { level: self.level.saturating_sub(gone), at: self.at.max(now) };
    }

    fn take(&mut self, bytes: u64, rate: u64, now: u64) -> bool {
        self.advance(rate, now);
        let level = self.level.saturating_add(BYTE * u128::from(bytes));
        let is_within = level <= burst_of(rate);
        if is_within {
            self.level = level;
        }
        is_within
    }

    /// Nanoseconds until the bytes may pass.
    fn reserve(&mut self, bytes: u64, rate: u64, now: u64) -> u64 {
        self.advance(rate, now);
        self.level = self.level.saturating_add(BYTE * u128::from(bytes));
        let above = self.level.saturating_sub(burst_of(rate));
        u64::try_from(above.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
    }

    fn give_back(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(BYTE * u128::from(bytes));
    }

    /// A datagram passes as a whole, or not: one that is larger than the burst passes when the bucket is not full, and others
    /// wait the longer for it.
    fn admit(&mut self, bytes: u64, rate: u64, now: u64) -> bool {
        self.advance(rate, now);
        let is_admitted = self.level < burst_of(rate);
        if is_admitted {
            self.level = self.level.saturating_add(BYTE * u128::from(bytes));
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Bytes that pass within a time, for so many who always have more, each waiting for its grant.
    fn passed(rate: u64, readers: usize, time: u64) -> Vec<u64> {
        let mut bucket = ByteBucket::default();
        let mut passed = vec![0; readers];
        let mut due = vec![0_u64; readers];
        let mut granted = vec![0_u64; readers];
        loop {
            let reader = (0..readers).min_by_key(|reader| due[*reader]).unwrap();
            let now = due[reader];
            if now >= time {
                return passed;
            }
            passed[reader] += granted[reader];
            granted[reader] = grant_of(rate);
            // A millisecond is as exactly as a timer wakes.
            let wait = bucket.reserve(granted[reader], rate, now);
            due[reader] = (now + wait).next_multiple_of(1_000_000);
        }
    }

    #[test]
    fn one_and_many_get_the_same_sum_and_many_the_same_each() {
        for rate in [64 * 1024, 1_000_000, 50_000_000, 3_000_000_000] {
            for readers in [1, 50] {
                let passed = passed(rate, readers, 4 * SECOND);
                let sum: u64 = passed.iter().sum();
                let wanted = 4 * rate;
                assert!(sum > wanted * 97 / 100 && sum < wanted * 103 / 100, "{sum} of {wanted}: {passed:?}");
                let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
                let burst = u64::try_from(burst_of(rate) / BYTE).unwrap();
                // The first one has the burst, and a timer can only tell grants apart that last longer than it is exact.
                let is_fair = most - least <= burst + grant_of(rate);
                assert!(is_fair || rate / grant_of(rate) > 1_000, "{passed:?}");
            }
        }
    }

    #[test]
    fn a_datagram_that_is_larger_than_the_burst_passes_and_the_rate_is_kept() {
        let (mut bucket, rate, size) = (ByteBucket::default(), 1024, 1400);
        let admitted =
            (0..100_000).filter(|step| bucket.admit(size, rate, step * SECOND / 100)).count() as u64;
        let wanted = 1_000 * rate / size;
        assert!(admitted.abs_diff(wanted) <= 2, "{admitted} of {wanted}");
    }

    #[test]
    fn a_changed_rate_holds_for_those_that_have_it() {
        let counters = Arc::default();
        let limits = |bandwidth| Limits { bandwidth, ..Limits::default() };
        let now = Instant::now();
        assert!(Bandwidth::of(&limits(None), None, &counters).is_none());
        let bandwidth = Bandwidth::of(&limits(Some(1024)), None, &counters).unwrap();
        assert_eq!(bandwidth.grant(), 256);
        assert!(bandwidth.take(Way::Up, 256, now) && bandwidth.take(Way::Up, 256, now));
        assert!(!bandwidth.take(Way::Up, 256, now) && bandwidth.take(Way::Down, 256, now));
        assert!(bandwidth.reserve(Way::Up, 256, now) > now);
        let faster = Bandwidth::of(&limits(Some(1_000_000)), Some(&bandwidth), &counters).unwrap();
        assert!(Arc::ptr_eq(&bandwidth, &faster) && bandwidth.take(Way::Up, 256, now));
        assert!(Bandwidth::of(&limits(None), Some(&bandwidth), &counters).is_none());
        assert!((0..1_000_000).all(|_| bandwidth.take(Way::Up, 1_000_000, now)), "the limit is gone");
    }

    proptest! {
        /// Whoever asks for whatever, whenever: no more passes than the rate and the burst allow.
        #[test]
        fn no_schedule_passes_more_than_the_rate_and_a_burst(
            rate in 1_024_u64..10_000_000,
            schedule in prop::collection::vec((0_u64..SECOND / 10, 1_u64..400_000, 0_u8..4), 1..100),
        ) {
            let (mut bucket, mut now) = (ByteBucket::default(), 0);
            let mut passes: Vec<(u64, u64)> = Vec::new();
            for (pause, bytes, kind) in schedule {
                now += pause;
                let bytes = bytes.min(grant_of(rate));
                match kind {
                    0 if bucket.take(bytes, rate, now) => passes.push((now, bytes)),
                    1 => passes.push((now + bucket.reserve(bytes, rate, now), bytes)),
                    2 => {
                        // Taken, and not needed.
                        bucket.reserve(bytes, rate, now);
                        bucket.give_back(bytes);
                    }
                    _ => {}
                }
            }
            passes.sort_unstable();
            let (mut sum, first) = (0_u128, passes.first().map_or(0, |(at, _)| *at));
            for (at, bytes) in passes {
                sum += BYTE * u128::from(bytes);
                prop_assert!(sum <= burst_of(rate) + u128::from(at - first) * u128::from(rate) + u128::from(rate));
            }
        }

        #[test]
        fn no_numbers_break_it(calls in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..50)) {
            let mut bucket = ByteBucket::default();
            for (bytes, rate, now) in calls {
                bucket.take(bytes, rate, now);
                bucket.reserve(bytes, rate, now);
                bucket.admit(bytes, rate, now);
                bucket.give_back(bytes);
            }
        }
    }
}
