//! What is due. Holds keys, never payloads; the earliest time wins. Reads no clock.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// What a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// A load balancer, by its id. Its network is looked at with it.
    LoadBalancer(Uuid),
    /// What the load balancers on a logical switch share, by the switch's UUID.
    Network(Uuid),
}

/// Keys that wait for a run, and how often each has failed in a row.
#[derive(Debug)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, Key)>,
    times: HashMap<Key, Instant>,
    failures: HashMap<Key, u32>,
    backoff: Backoff,
}

/// How long to wait after a failure: doubled each time, between two bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// After the first failure.
    pub(super) least: Duration,
    /// However many there were.
    pub(super) most: Duration,
}

impl Backoff {
    fn after(self, failures: u32) -> Duration {
        let doubled = self.least.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.most)
    }
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { due: BTreeSet::new(), times: HashMap::new(), failures: HashMap::new(), backoff }
    }

    /// Asks for a run at `at`, unless an earlier one is asked for already.
    pub(super) fn add(&mut self, key: Key, at: Instant) {
        if let Some(earlier) = self.times.get(&key) {
            if *earlier <= at {
                return;
            }
            self.due.remove(&(*earlier, key));
        }
        self.times.insert(key, at);
        self.due.insert((at, key));
    }

    /// When the next run is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes up to `most` of those that are due at `now`, the longest due first.
    pub(super) fn take(&mut self, now: Instant, most: usize) -> Vec<Key> {
        let mut taken = Vec::new();
        while taken.len() < most && self.next().is_some_and(|at| at <= now) {
            if let Some((_, key)) = self.due.pop_first() {
                self.times.remove(&key);
                taken.push(key);
            }
        }
        taken
    }

    /// Notes a success: the next failure waits the shortest time again.
    pub(super) fn succeeded(&mut self, key: Key) {
        self.failures.remove(&key);
    }

    /// Notes a failure and asks for the next run; answers how long that is away.
    pub(super) fn failed(&mut self, key: Key, now: Instant) -> Duration {
        let failures = self.failures.entry(key).or_insert(0);
        *failures = failures.saturating_add(1);
        let wait = self.backoff.after(*failures);
        self.add(key, now + wait);
        wait
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: u128) -> Key {
        Key::LoadBalancer(Uuid::from_u128(number))
    }

    fn queue() -> Queue {
        Queue::new(Backoff { least: SECOND, most: 5 * SECOND })
    }

    #[test]
    fn one_id_waits_once_and_the_earliest_time_wins() {
        let (mut queue, now, id) = (queue(), Instant::now(), key(1));
        queue.add(id, now + SECOND);
        queue.add(id, now);
        queue.add(id, now + 2 * SECOND);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.take(now, 10), [id]);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_is_not_due_stays() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(key(1), now + SECOND);
        queue.add(key(2), now);
        queue.add(key(3), now);
        assert_eq!(queue.take(now, 1).len(), 1);
        assert_eq!(queue.take(now, 10).len(), 1);
        assert_eq!(queue.next(), Some(now + SECOND));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_bound_until_a_success() {
        let (mut queue, now, id) = (queue(), Instant::now(), key(1));
        let waits: Vec<u64> = (0..5).map(|_| queue.failed(id, now).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        queue.succeeded(id);
        assert_eq!(queue.failed(id, now), SECOND);
    }
}
