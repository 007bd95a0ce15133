//! Listeners whose log is read at this moment, and the records of their connections on the way to the plugin.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::dataplane::ConnectionRecord;

/// Most connections a second that are sent, over all listeners that are read, which have equal parts of it.
const MOST_A_SECOND: usize = 1000;

/// Listeners that are read, and what is to be sent of them.
#[derive(Debug, Default)]
pub struct Tail {
    /// False: nobody reads. Workers look at nothing else then.
    is_on: AtomicBool,
    state: Mutex<TailState>,
}

/// Records to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailBatch {
    /// In the order in which the connections ended.
    pub records: Vec<ConnectionRecord>,
    /// Numbers of connections that had to be left out, by listener.
    pub omitted: BTreeMap<Uuid, u64>,
}

#[derive(Debug, Default)]
struct TailState {
    /// Listeners that are read, with what was taken of each in this second.
    taken: HashMap<Uuid, usize>,
    second: Option<Instant>,
    batch: TailBatch,
}

impl TailState {
    /// True if a connection of a listener is to be taken at this moment.
    fn admit(&mut self, listener: Uuid, now: Instant) -> bool {
        if self.second.is_none_or(|began| now.saturating_duration_since(began) >= Duration::from_secs(1)) {
            self.second = Some(now);
            self.taken.values_mut().for_each(|taken| *taken = 0);
        }
        let part = MOST_A_SECOND / self.taken.len().max(1);
        // Those that wait have to fit into a message, also while none is sent.
        let has_room = self.batch.records.len() < MOST_A_SECOND;
        let Some(taken) = self.taken.get_mut(&listener) else { return false };
        if *taken >= part.max(1) || !has_room {
            *self.batch.omitted.entry(listener).or_default() += 1;
            return false;
        }
        *taken += 1;
        true
    }
}

impl Tail {
    /// Sets the listeners that are read. What waits of others is dropped.
    pub fn set(&self, listeners: impl IntoIterator<Item = Uuid>) {
        let mut state = self.lock();
        let before = std::mem::take(&mut state.taken);
        state.taken =
            listeners.into_iter().map(|id| (id, before.get(&id).copied().unwrap_or_default())).collect();
        let TailState { taken, batch, .. } = &mut *state;
        batch.records.retain(|record| taken.contains_key(&record.labels.listener));
        batch.omitted.retain(|listener, _| taken.contains_key(listener));
        self.is_on.store(!taken.is_empty(), Relaxed);
    }

    /// True while somebody reads.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// True if a connection of a listener, which ends at this moment, is to be passed to [`Self::push`].
    pub(super) fn wants(&self, listener: Uuid, now: impl FnOnce() -> Instant) -> bool {
        self.is_on() && self.lock().admit(listener, now())
    }

    /// Takes a connection.
    pub(super) fn push(&self, record: ConnectionRecord) {
        self.lock().batch.records.push(record);
    }

    /// What has come since the last time.
    #[must_use]
    pub fn take(&self) -> TailBatch {
        std::mem::take(&mut self.lock().batch)
    }

    fn lock(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TailBatch {
    /// True if there is nothing to be said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.omitted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::line::tests::record;

    fn of(listener: u128) -> ConnectionRecord {
        let mut record = record("p");
        std::sync::Arc::make_mut(&mut record.labels).listener = Uuid::from_u128(listener);
        record
    }

    /// Offers connections of a listener. Returns how many were taken.
    fn offer(tail: &Tail, listener: u128, count: usize, now: Instant) -> usize {
        let wanted = (0..count).filter(|_| tail.wants(Uuid::from_u128(listener), || now));
        wanted.map(|_| tail.push(of(listener))).count()
    }

    #[test]
    fn what_nobody_reads_is_not_taken() {
        let (tail, now) = (Tail::default(), Instant::now());
        assert_eq!(offer(&tail, 1, 10, now), 0);
        tail.set([Uuid::from_u128(2)]);
        assert_eq!((offer(&tail, 1, 10, now), offer(&tail, 2, 10, now)), (0, 10));
        tail.set([]);
        assert!(!tail.is_on() && tail.take().is_empty());
    }

    #[test]
    fn a_flood_of_one_listener_leaves_room_for_another() {
        let (tail, now) = (Tail::default(), Instant::now());
        tail.set([1, 2].map(Uuid::from_u128));
        assert_eq!(offer(&tail, 1, 5_000, now), MOST_A_SECOND / 2);
        assert_eq!(offer(&tail, 2, 10, now), 10);
        let batch = tail.take();
        assert_eq!(batch.records.len(), MOST_A_SECOND / 2 + 10);
        assert_eq!(batch.omitted, BTreeMap::from([(Uuid::from_u128(1), 4_500)]));
        assert_eq!(offer(&tail, 1, 1, now), 0);
        assert_eq!(offer(&tail, 1, 1, now + Duration::from_secs(1)), 1);
    }

    #[test]
    fn what_is_not_fetched_is_bounded() {
        let (tail, now) = (Tail::default(), Instant::now());
        tail.set([Uuid::from_u128(1)]);
        for second in 0..5 {
            offer(&tail, 1, 2_000, now + Duration::from_secs(second));
        }
        assert_eq!(tail.take().records.len(), MOST_A_SECOND);
    }
}
