//! Bandwidth of a listener on this node: a bucket of bytes for each direction, shared by all of its connections on all
//! workers.
//!
//! A reader takes a grant first, a small part of what a second allows, and returns the unused rest. While the
//! bucket is full a grant is for later: each has a turn of its own, in the order of asking, so that many that wait are woken
//! one by one and get the same. A turn is a number of bytes that have to pass before: when it comes follows from the rate.

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
    /// The bandwidth for these limits: the one that is `kept` for the listener, with another rate, or a new one. None: there
    /// is no limit, nor for connections that have the one that is kept.
    pub(in crate::dataplane) fn of(
        limits: &Limits,
        kept: &mut Option<Arc<Self>>,
        counters: &Arc<AtomicCounters>,
    ) -> Option<Arc<Self>> {
        if let Some(kept) = kept {
            kept.set_rate(limits.bandwidth.unwrap_or(0), Instant::now());
        }
        let rate = limits.bandwidth?;
        Some(Arc::clone(kept.get_or_insert_with(|| Arc::new(Self::new(rate, counters)))))
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

    fn set_rate(&self, rate: u64, now: Instant) {
        let (before, now) = (self.rate.load(Relaxed), self.clock(now));
        if rate == before {
            return;
        }
        for way in [Way::Up, Way::Down] {
            let mut bucket = self.bucket(way);
            bucket.advance(before, now);
            if before == 0 {
                // What had passed before there was no limit is long gone.
                bucket.level = 0;
            }
        }
        self.rate.store(rate, Relaxed);
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

    /// Takes bytes, at most a grant. Returns the turn at which they may pass; None: at once.
    pub(in crate::dataplane) fn reserve(&self, way: Way, bytes: usize, now: Instant) -> Option<ByteTurn> {
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return None;
        }
        let turn = self.bucket(way).reserve(bytes as u64, rate, self.clock(now))?;
        increment(&self.counters.bandwidth_waits);
        Some(turn)
    }

    /// Time until a turn at the rate in force; None: it has come.
    pub(in crate::dataplane) fn wait(&self, way: Way, turn: ByteTurn, now: Instant) -> Option<Duration> {
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return None;
        }
        let wait = self.bucket(way).wait(turn, rate, self.clock(now));
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    /// Returns bytes of a grant that have not passed.
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

/// Turn of bytes that wait: the value of [`ByteBucket::allowed`] from which on they may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct ByteTurn(u128);

/// A bucket, empty at first. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct ByteBucket {
    /// Bytes that were taken and have not drained yet.
    level: u128,
    /// Time of `level`, in nanoseconds.
    at: u64,
    /// Bytes that the rates since the beginning have allowed until then.
    allowed: u128,
}

impl ByteBucket {
    fn advance(&mut self, rate: u64, now: u64) {
        let gone = u128::from(now.saturating_sub(self.at)) * u128::from(rate);
        let (level, allowed) = (self.level.saturating_sub(gone), self.allowed.saturating_add(gone));
        *self = Self { level, at: self.at.max(now), allowed };
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

    /// Takes bytes. None: they may pass at once.
    fn reserve(&mut self, bytes: u64, rate: u64, now: u64) -> Option<ByteTurn> {
        self.advance(rate, now);
        self.level = self.level.saturating_add(BYTE * u128::from(bytes));
        let above = self.level.saturating_sub(burst_of(rate));
        (above > 0).then(|| ByteTurn(self.allowed.saturating_add(above)))
    }

    /// Nanoseconds until a turn.
    fn wait(&mut self, turn: ByteTurn, rate: u64, now: u64) -> u64 {
        self.advance(rate, now);
        let missing = turn.0.saturating_sub(self.allowed);
        u64::try_from(missing.div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX)
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
            let turn = bucket.reserve(granted[reader], rate, now);
            let wait = turn.map_or(0, |turn| bucket.wait(turn, rate, now));
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
        let (counters, mut kept) = (Arc::<AtomicCounters>::default(), None);
        let mut of =
            |bandwidth| Bandwidth::of(&Limits { bandwidth, ..Limits::default() }, &mut kept, &counters);
        let now = Instant::now() + Duration::from_secs(3_600);
        assert!(of(None).is_none());
        let bandwidth = of(Some(1024)).unwrap();
        assert_eq!(bandwidth.grant(), 256);
        let take = || bandwidth.take(Way::Up, 256, now);
        assert!(take() && take() && !take() && bandwidth.take(Way::Down, 256, now));
        assert!(of(Some(1_000_000)).is_some_and(|faster| Arc::ptr_eq(&bandwidth, &faster)) && take());
        assert!(of(None).is_none());
        assert!((0..1_000_000).all(|_| bandwidth.take(Way::Up, 1_000_000, now)), "the limit is gone");
        assert!(of(Some(1024)).is_some_and(|again| Arc::ptr_eq(&bandwidth, &again)));
        assert!(take() && take() && !take(), "it is there again, and begins anew");
    }

    #[test]
    fn who_waits_follows_the_rate_and_only_waiting_counts() {
        let counters = Arc::<AtomicCounters>::default();
        let bandwidth = Bandwidth::new(1024, &counters);
        let now = bandwidth.started;
        assert_eq!((bandwidth.reserve(Way::Up, 512, now), counters.read().bandwidth_waits), (None, 0));
        let turns: Vec<_> = (0..240).map(|_| bandwidth.reserve(Way::Up, 256, now).unwrap()).collect();
        assert_eq!(counters.read().bandwidth_waits, 240);
        let wait =
            |at: usize, after| bandwidth.wait(Way::Up, turns[at - 1], now + Duration::from_secs(after));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            [wait(40, 0), wait(240, 0), wait(40, 9), wait(40, 10)],
            [seconds(10), seconds(60), seconds(1), None]
        );
        bandwidth.set_rate(2048, now + Duration::from_secs(10));
        assert_eq!([wait(240, 10), wait(240, 30), wait(240, 35)], [seconds(25), seconds(5), None]);
        bandwidth.set_rate(0, now + Duration::from_secs(10));
        assert_eq!(wait(240, 10), None, "the limit is gone");
    }

    proptest! {
        /// Whoever asks for whatever, whenever: in no span of time more passes than the rate and a burst allow.
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
                    1 => {
                        let turn = bucket.reserve(bytes, rate, now);
                        let wait = turn.map_or(0, |turn| bucket.wait(turn, rate, now));
                        passes.push((now + wait, bytes));
                    }
                    2 => {
                        // Taken, and not needed.
                        bucket.reserve(bytes, rate, now);
                        bucket.give_back(bytes);
                    }
                    _ => {}
                }
            }
            passes.sort_unstable();
            for (index, (from, _)) in passes.iter().enumerate() {
                let mut sum = 0_u128;
                for (at, bytes) in &passes[index..] {
                    sum += BYTE * u128::from(*bytes);
                    // A turn is rounded to the next nanosecond.
                    let allowed = burst_of(rate) + u128::from(at - from + 1) * u128::from(rate);
                    prop_assert!(sum <= allowed, "{sum} of {allowed} from {from} to {at}");
                }
            }
        }

        #[test]
        fn no_numbers_break_it(calls in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..50)) {
            let mut bucket = ByteBucket::default();
            for (bytes, rate, now) in calls {
                bucket.take(bytes, rate, now);
                if let Some(turn) = bucket.reserve(bytes, rate, now) {
                    bucket.wait(turn, rate, now);
                }
                bucket.admit(bytes, rate, now);
                bucket.give_back(bytes);
            }
        }
    }
}
