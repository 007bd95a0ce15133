//! Work queue. Holds keys, never payloads; the earliest due time wins. Reads no clock.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fiberlb_daemon::backoff::Backoff;
use tokio::time::Instant;
use uuid::Uuid;

/// Subject of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum WorkKey {
    /// A load balancer, by its id. Its network is planned with it.
    LoadBalancer(Uuid),
    /// Rows that the load balancers on a logical switch share, by the switch's UUID.
    Network(Uuid),
}

/// Keys that wait for a run, with the number of consecutive failures of each.
#[derive(Debug)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, WorkKey)>,
    times: HashMap<WorkKey, Instant>,
    failures: HashMap<WorkKey, u32>,
    backoff: Backoff,
}

impl Queue {
    /// An empty queue.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { due: BTreeSet::new(), times: HashMap::new(), failures: HashMap::new(), backoff }
    }

    /// Schedules a run at `at`, unless an earlier one is scheduled already.
    pub(super) fn add(&mut self, key: WorkKey, at: Instant) {
        if let Some(earlier) = self.times.get(&key) {
            if *earlier <= at {
                return;
            }
            self.due.remove(&(*earlier, key));
        }
        self.times.insert(key, at);
        self.due.insert((at, key));
    }

    /// Due time of the next run.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes up to `most` keys that are due at `now`, the longest due first.
    pub(super) fn take(&mut self, now: Instant, most: usize) -> Vec<WorkKey> {
        let mut taken = Vec::new();
        while taken.len() < most && self.next().is_some_and(|at| at <= now) {
            if let Some((_, key)) = self.due.pop_first() {
                self.times.remove(&key);
                taken.push(key);
            }
        }
        taken
    }

    /// Resets the backoff after a success.
    pub(super) fn succeeded(&mut self, key: WorkKey) {
        self.failures.remove(&key);
    }

    /// Schedules a retry after a failure; returns the backoff.
    pub(super) fn failed(&mut self, key: WorkKey, now: Instant) -> Duration {
        let failures = self.failures.entry(key).or_insert(0);
        *failures = failures.saturating_add(1);
        let wait = self.backoff.after(*failures);
        self.add(key, now + wait);
        wait
    }

    /// Number of queued keys.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: u128) -> WorkKey {
        WorkKey::LoadBalancer(Uuid::from_u128(number))
    }

    fn queue() -> Queue {
        Queue::new(Backoff::new(SECOND, 5 * SECOND))
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
