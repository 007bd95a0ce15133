//! Queue of the clients that wait for a place at the backends of a pool, on all workers: first come, first served.
//!
//! Only the first one looks for a place. It is woken when a place may be free, and wakes the next one when it leaves,
//! for whatever reason: a free place wakes one client, and many free places wake as many, one after the other.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

/// Queue of a pool.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct PoolQueue {
    limit: AtomicUsize,
    /// Number of clients, for a look without the lock.
    length: AtomicUsize,
    waiting: Mutex<Waiting>,
}

/// Clients by the order in which they came.
#[derive(Debug, Default)]
struct Waiting {
    clients: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Waiting {
    fn is_first(&self, number: u64) -> bool {
        self.clients.first_key_value().is_some_and(|(first, _)| *first == number)
    }

    fn wake_first(&self) {
        if let Some((_, first)) = self.clients.first_key_value() {
            first.notify_one();
        }
    }
}

impl PoolQueue {
    /// A queue for so many clients.
    pub(in crate::dataplane) fn new(limit: u32) -> Arc<Self> {
        let queue = Self::default();
        queue.set_limit(limit);
        Arc::new(queue)
    }

    /// Lets so many clients wait from now on. Those that do stay.
    pub(in crate::dataplane) fn set_limit(&self, limit: u32) {
        self.limit.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
    }

    /// True if nobody waits.
    pub(in crate::dataplane) fn is_empty(&self) -> bool {
        self.length.load(Relaxed) == 0
    }

    /// Wakes the first client: there may be a place, or none ever.
    pub(in crate::dataplane) fn wake(&self) {
        self.lock().wake_first();
    }

    /// Enqueues a client. None: the queue is full.
    pub(in crate::dataplane) fn enter(self: &Arc<Self>) -> Option<QueueTicket> {
        let mut waiting = self.lock();
        if waiting.clients.len() >= self.limit.load(Relaxed) {
            return None;
        }
        let (number, woken) = (waiting.next, Arc::<Notify>::default());
        waiting.next += 1;
        waiting.clients.insert(number, Arc::clone(&woken));
        self.length.store(waiting.clients.len(), Relaxed);
        drop(waiting);
        Some(QueueTicket { queue: Arc::clone(self), number, woken })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's turn in a queue, which it leaves when this is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct QueueTicket {
    queue: Arc<PoolQueue>,
    number: u64,
    woken: Arc<Notify>,
}

impl QueueTicket {
    /// True if it is its turn. What is looked for afterwards is as it was when it was woken, or newer.
    pub(in crate::dataplane) fn is_first(&self) -> bool {
        self.queue.lock().is_first(self.number)
    }

    /// Waits until it is worth a look: also if that was so since the last time.
    pub(in crate::dataplane) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        let was_first = waiting.is_first(self.number);
        waiting.clients.remove(&self.number);
        self.queue.length.store(waiting.clients.len(), Relaxed);
        if was_first {
            waiting.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_woken(ticket: &QueueTicket) -> bool {
        ticket.woken().now_or_never().is_some()
    }

    #[test]
    fn a_place_wakes_the_first_and_nobody_else() {
        let queue = PoolQueue::new(3);
        let [first, second, third] = [(); 3].map(|()| queue.enter().unwrap());
        assert!(queue.enter().is_none());
        queue.wake();
        assert!(first.is_first() && is_woken(&first));
        assert!(!is_woken(&second) && !is_woken(&third) && !second.is_first());
        drop(second);
        let fourth = queue.enter().unwrap();
        drop(first);
        assert!(third.is_first() && is_woken(&third) && !is_woken(&fourth));
        drop(third);
        assert!(fourth.is_first() && is_woken(&fourth));
        drop(fourth);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_shorter_queue_keeps_those_who_wait() {
        let queue = PoolQueue::new(2);
        let tickets = [(); 2].map(|()| queue.enter().unwrap());
        queue.set_limit(1);
        assert!(queue.enter().is_none() && tickets[0].is_first());
        let [first, _second] = tickets;
        drop(first);
        assert!(queue.enter().is_none());
        queue.set_limit(2);
        assert!(queue.enter().is_some());
    }
}
