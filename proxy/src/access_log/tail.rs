//! Listeners whose log is read at this moment, and the records of their connections on the way to the plugin.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use uuid::Uuid;

use super::rate::SecondRate;
use crate::dataplane::ConnectionRecord;

/// Most connections a second that are sent, over all listeners that are read, which have equal parts of it; also the most
/// that wait to be sent, which is as many as a message may have.
const MOST_A_SECOND: u32 = 1000;

/// Listeners that are read, and what is to be sent of them.
#[derive(Debug, Default)]
pub struct Tail {
    /// False: nobody reads a listener of this node.
    is_on: AtomicBool,
    /// Connections a second that each listener which is read may send.
    part: AtomicU32,
    listeners: Mutex<TailedListeners>,
    records: Mutex<Vec<ConnectionRecord>>,
}

/// Records to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailBatch {
    /// In the order in which the connections ended, at most 1,000.
    pub records: Vec<ConnectionRecord>,
    /// Numbers of connections that had to be left out, by listener.
    pub omitted: BTreeMap<Uuid, u64>,
}

#[derive(Debug, Default)]
struct TailedListeners {
    read: HashSet<Uuid>,
    /// Listeners of this node, and those removed by the latest configuration.
    all: HashMap<Uuid, Weak<TailedListener>>,
}

/// A listener of this node. Where it is not read, its connections look at nothing else.
#[derive(Debug)]
pub(super) struct TailedListener {
    listener: Uuid,
    is_read: AtomicBool,
    rate: SecondRate,
    omitted: AtomicU64,
}

impl TailedListener {
    /// True while somebody reads it.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Relaxed)
    }
}

impl TailedListeners {
    fn living(&self) -> impl Iterator<Item = Arc<TailedListener>> {
        self.all.values().filter_map(Weak::upgrade)
    }
}

impl Tail {
    /// A listener of this node, for as long as it is kept: the same one for all of its configurations.
    pub(super) fn listener(&self, listener: Uuid) -> Arc<TailedListener> {
        let mut listeners = self.lock();
        if let Some(tailed) = listeners.all.get(&listener).and_then(Weak::upgrade) {
            return tailed;
        }
        let is_read = AtomicBool::new(listeners.read.contains(&listener));
        let (rate, omitted) = (SecondRate::default(), AtomicU64::new(0));
        let tailed = Arc::new(TailedListener { listener, is_read, rate, omitted });
        listeners.all.insert(listener, Arc::downgrade(&tailed));
        tailed
    }

    /// Drops removed listeners, once the others of a configuration are there.
    pub(super) fn settle(&self) {
        let mut listeners = self.lock();
        listeners.all.retain(|_, kept| kept.strong_count() > 0);
        self.divide(&listeners);
    }

    /// Sets the listeners that are read, which need not be of this node. What waits of others is dropped.
    pub fn set(&self, read: impl IntoIterator<Item = Uuid>) {
        let mut listeners = self.lock();
        listeners.read = read.into_iter().collect();
        for tailed in listeners.living() {
            tailed.is_read.store(listeners.read.contains(&tailed.listener), Relaxed);
            if !tailed.is_read() {
                tailed.omitted.store(0, Relaxed);
            }
        }
        self.divide(&listeners);
        self.records().retain(|record| listeners.read.contains(&record.labels.listener));
    }

    /// Divides what may be sent among the listeners that are read and are here.
    fn divide(&self, listeners: &TailedListeners) {
        let here = listeners.read.iter().filter(|id| listeners.all.contains_key(id)).count();
        let here = u32::try_from(here).unwrap_or(u32::MAX);
        self.part.store((MOST_A_SECOND / here.max(1)).max(1), Relaxed);
        self.is_on.store(here > 0, Relaxed);
    }

    /// True while somebody reads a listener of this node.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Takes a connection of a listener that is read, unless there have been too many in this second.
    pub(super) fn push(&self, of: &TailedListener, second: u64, record: impl FnOnce() -> ConnectionRecord) {
        if of.rate.admit(self.part.load(Relaxed), second) {
            let record = record();
            let mut records = self.records();
            if records.len() < MOST_A_SECOND as usize && of.is_read() {
                return records.push(record);
            }
        }
        of.omitted.fetch_add(1, Relaxed);
    }

    /// Takes the records since the last call.
    #[must_use]
    pub fn take(&self) -> TailBatch {
        let mut omitted: BTreeMap<Uuid, u64> = BTreeMap::new();
        for tailed in self.lock().living().filter(|it| it.is_read()) {
            let count = tailed.omitted.swap(0, Relaxed);
            if count > 0 {
                *omitted.entry(tailed.listener).or_default() += count;
            }
        }
        TailBatch { records: std::mem::take(&mut *self.records()), omitted }
    }

    fn lock(&self) -> MutexGuard<'_, TailedListeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn records(&self) -> MutexGuard<'_, Vec<ConnectionRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
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

    const ALL: usize = MOST_A_SECOND as usize;

    fn of(listener: u128) -> ConnectionRecord {
        let mut record = record("p");
        Arc::make_mut(&mut record.labels).listener = Uuid::from_u128(listener);
        record
    }

    /// A tail with two listeners.
    fn tail() -> (Tail, [Arc<TailedListener>; 2]) {
        let tail = Tail::default();
        let listeners = [1, 2].map(|id| tail.listener(Uuid::from_u128(id)));
        tail.settle();
        (tail, listeners)
    }

    /// Connections of a listener that end, as the data plane passes them on.
    fn end(tail: &Tail, listener: &TailedListener, count: usize, second: u64) {
        for _ in 0..count {
            if listener.is_read() {
                tail.push(listener, second, || of(listener.listener.as_u128()));
            }
        }
    }

    #[test]
    fn what_nobody_reads_is_not_taken() {
        let (tail, [one, two]) = tail();
        end(&tail, &one, 10, 0);
        assert!(!tail.is_on() && tail.take().is_empty());
        tail.set([Uuid::from_u128(2)]);
        end(&tail, &one, 10, 0);
        end(&tail, &two, 10, 0);
        assert_eq!(tail.take().records.len(), 10);
        let anew = tail.listener(Uuid::from_u128(2));
        assert!(Arc::ptr_eq(&two, &anew), "a change of its configuration makes no gap, and no other rate");
        end(&tail, &two, 1, 1);
        tail.set([]);
        assert!(!tail.is_on() && tail.take().is_empty());
    }

    #[test]
    fn a_flood_of_one_listener_leaves_room_for_another_and_those_elsewhere_take_none() {
        let (tail, [one, two]) = tail();
        tail.set((1..500).map(Uuid::from_u128));
        end(&tail, &one, 5_000, 7);
        end(&tail, &two, 10, 7);
        let batch = tail.take();
        assert_eq!(batch.records.len(), ALL / 2 + 10);
        assert_eq!(batch.omitted, BTreeMap::from([(Uuid::from_u128(1), 4_500)]));
        end(&tail, &one, 1, 7);
        assert_eq!((tail.take().records.len(), one.omitted.load(Relaxed)), (0, 0));
        end(&tail, &one, 1, 8);
        assert_eq!(tail.take().records.len(), 1);
        drop(two);
        tail.settle();
        end(&tail, &one, 5_000, 9);
        assert_eq!(tail.take().records.len(), ALL, "nobody else is here");
        drop(one);
        tail.settle();
        assert!(!tail.is_on() && tail.lock().all.is_empty());
    }

    /// Also from several workers at once, and over the border of a second.
    #[test]
    fn what_is_not_fetched_is_bounded() {
        let (tail, [one, _]) = tail();
        tail.set([Uuid::from_u128(1)]);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (tail, one) = (&tail, &one);
                scope.spawn(move || (0..5).for_each(|second| end(tail, one, 700 + worker, second)));
            }
        });
        let batch = tail.take();
        assert_eq!(batch.records.len(), ALL);
        let all: u64 = (0..4).map(|worker| 5 * (700 + worker)).sum();
        assert_eq!(batch.omitted[&Uuid::from_u128(1)] + batch.records.len() as u64, all);
    }
}
