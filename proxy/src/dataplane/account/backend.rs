//! Connections of a backend, over all workers.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    counters::increment,
    durations::{AtomicDurations, Durations},
    instant::AtomicInstant,
    pending::{add, flush},
};
use crate::dataplane::{
    queue::PoolQueue,
    record::{ConnectFailure, EndReason},
};

/// Time after a deadline in which all connections that it is of have been reset.
const RESETTING: Duration = Duration::from_secs(5);

/// Limit of a backend that has none.
const NO_LIMIT: u32 = u32::MAX;

/// Reasons of ends that are counted for the backend that had accepted the connection, too; in the order of their counters.
const ENDS: [EndReason; 5] = [
    EndReason::BackendGone,
    EndReason::BackendReset,
    EndReason::ClientReset,
    EndReason::HalfClosed,
    EndReason::TimedOut,
];

/// Counters of a backend since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Connections that it has accepted.
    pub accepted: u64,
    /// Connections at this moment, those that are being opened included.
    pub active: u32,
    /// Attempts to connect that failed, as of [`ConnectFailure::ALL`].
    pub failures: [u64; ConnectFailure::ALL.len()],
    /// Connections that it had accepted, and that ended for a reason as of [`ENDS`].
    ends: [u64; ENDS.len()],
    /// Bytes to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend.
    pub bytes_out: u64,
    /// Durations of the connections that it had accepted.
    pub durations: Durations,
    /// State of its drain; None: it takes connections of all whom it has some of.
    pub drain: Option<BackendDrain>,
}

/// Drain of a backend that takes no connections, or none of some listener, and has some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendDrain {
    /// Its pool.
    pub pool: Uuid,
    /// Connections that are left.
    pub connections: u32,
    /// Instant at which those that are left are reset; None: they go on for as long as they last.
    pub deadline: Option<Instant>,
}

impl BackendCounters {
    /// Attempts to connect that failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Attempts to connect that failed, and connections that ended otherwise than by both sides closing them, by the words of
    /// their reasons.
    pub fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let failures = ConnectFailure::ALL.iter().map(|failure| failure.as_str()).zip(self.failures);
        failures.chain(ENDS.iter().map(|end| end.as_str()).zip(self.ends))
    }
}

/// Connections that are assigned to a backend, as workers count them.
#[derive(Debug)]
pub(in crate::dataplane) struct BackendLoad {
    active: AtomicU32,
    /// Connections among them whose listener sends it no others.
    parting: AtomicU32,
    limit: AtomicU32,
    /// True if `queue` is there.
    is_queued_for: AtomicBool,
    /// True if the first of the clients that wait has asked to be woken.
    is_awaited: AtomicBool,
    /// Clients that may wait for a place.
    queue: Mutex<Option<Arc<PoolQueue>>>,
    accepted: AtomicU64,
    failures: [AtomicU64; ConnectFailure::ALL.len()],
    ends: [AtomicU64; ENDS.len()],
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    durations: AtomicDurations,
    /// As of the workers' latest look at it: of no meaning while it takes connections, or has none.
    drain_deadline: AtomicInstant,
}

impl Default for BackendLoad {
    fn default() -> Self {
        Self {
            active: AtomicU32::new(0),
            parting: AtomicU32::new(0),
            limit: AtomicU32::new(NO_LIMIT),
            is_queued_for: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            queue: Mutex::default(),
            accepted: AtomicU64::new(0),
            failures: Default::default(),
            ends: Default::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            durations: AtomicDurations::default(),
            drain_deadline: AtomicInstant::none(),
        }
    }
}

impl BackendLoad {
    /// Bounds the connections from now on; none of those that are there is touched. `queue`: clients that wait for a place.
    pub(in crate::dataplane) fn set_limit(&self, limit: Option<u32>, queue: Option<&Arc<PoolQueue>>) {
        self.limit.store(limit.unwrap_or(NO_LIMIT), Relaxed);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = queue.map(Arc::clone);
        self.is_queued_for.store(queue.is_some(), Relaxed);
    }

    /// True if there is a place for one more connection at this moment.
    pub(in crate::dataplane) fn has_place(&self) -> bool {
        self.active() < self.limit.load(Relaxed)
    }

    /// Asks for a wake-up as soon as there may be a place. A fence is to follow, and then a look for one.
    pub(in crate::dataplane) fn await_place(&self) {
        self.is_awaited.store(true, Relaxed);
    }

    /// Wakes the first of the clients that wait for a place, if it has requested that. Costs no lock else.
    pub(in crate::dataplane) fn wake(&self) {
        if !self.is_queued_for.load(Relaxed) {
            return;
        }
        // The place is free before the look at who awaits it, as who awaits it asks before it looks for one: at least one
        // of the two sees the other.
        fence(SeqCst);
        if self.is_awaited.load(Relaxed)
            && self.is_awaited.swap(false, Relaxed)
            && let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner)
        {
            queue.wake();
        }
    }

    /// Number of connections, those that are being opened included.
    pub(in crate::dataplane) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts an attempt to connect that failed.
    pub(in crate::dataplane) fn count_failure(&self, error: &io::Error) {
        let failure = ConnectFailure::of(error);
        let counters = ConnectFailure::ALL.iter().zip(&self.failures);
        counters.filter(|(counted, _)| **counted == failure).for_each(|(_, counter)| increment(counter));
    }

    /// Counts the end of a connection that it had accepted, if its reason is one of [`ENDS`].
    pub(super) fn count_end(&self, reason: EndReason) {
        let counters = ENDS.iter().zip(&self.ends);
        counters.filter(|(counted, _)| **counted == reason).for_each(|(_, counter)| increment(counter));
    }

    /// Counts the duration of a connection that it had accepted.
    pub(super) fn add_duration(&self, duration: Duration) {
        self.durations.add(duration);
    }

    /// Sets when the connections that it still has are reset; None: never.
    pub(in crate::dataplane) fn set_drain_deadline(&self, deadline: Option<Instant>) {
        self.drain_deadline.set(deadline);
    }

    /// Current values, as of a backend of `pool`.
    pub(in crate::dataplane) fn read(
        &self,
        pool: Uuid,
        takes_connections: bool,
        now: Instant,
    ) -> BackendCounters {
        let counters = self.counters();
        let parting = self.parting.load(Relaxed).min(counters.active);
        let connections = if takes_connections { parting } else { counters.active };
        // One that is past was that of others.
        let deadline = || self.drain_deadline.get().filter(|deadline| *deadline + RESETTING > now);
        let drain = || BackendDrain { pool, connections, deadline: deadline() };
        BackendCounters { drain: (connections > 0).then(drain), ..counters }
    }

    /// Current values, without its drain.
    pub(in crate::dataplane) fn counters(&self) -> BackendCounters {
        BackendCounters {
            accepted: self.accepted.load(Relaxed),
            active: self.active(),
            failures: self.failures.each_ref().map(|counter| counter.load(Relaxed)),
            ends: self.ends.each_ref().map(|counter| counter.load(Relaxed)),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            durations: self.durations.read(),
            drain: None,
        }
    }
}

/// A connection of a backend to which its listener sends no others, until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Parting(Arc<BackendLoad>);

impl Parting {
    /// Counts it.
    pub(in crate::dataplane) fn new(load: &Arc<BackendLoad>) -> Self {
        load.parting.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.0.parting.fetch_sub(1, Relaxed);
    }
}

/// Assignment of a connection to a backend: counts as the backend's until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Assignment {
    load: Arc<BackendLoad>,
    /// Bytes that are not among the backend's yet.
    bytes_in: Cell<usize>,
    bytes_out: Cell<usize>,
}

impl Assignment {
    /// Takes a place for a connection that is being opened. None: there is none, whoever else has asked at the same moment.
    pub(in crate::dataplane) fn reserve(load: &Arc<BackendLoad>) -> Option<Self> {
        let limit = load.limit.load(Relaxed);
        if limit == NO_LIMIT {
            load.active.fetch_add(1, Relaxed);
        } else {
            let one_more = |active| (active < limit).then_some(active + 1);
            load.active.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        }
        Some(Self { load: Arc::clone(load), bytes_in: Cell::new(0), bytes_out: Cell::new(0) })
    }

    /// Counts that the backend has accepted it.
    pub(in crate::dataplane) fn accept(&self) {
        increment(&self.load.accepted);
    }

    /// Counts that the backend has failed it.
    pub(in crate::dataplane) fn count_failure(&self, error: &io::Error) {
        self.load.count_failure(error);
    }

    /// Adds bytes to the backend (`bytes_in`) and from it, which the counters show when it ends, or after some MiB.
    pub(in crate::dataplane) fn add_bytes(&self, bytes_in: usize, bytes_out: usize) {
        add(&self.bytes_in, bytes_in, [Some(&self.load.bytes_in)]);
        add(&self.bytes_out, bytes_out, [Some(&self.load.bytes_out)]);
    }

    pub(super) fn load(&self) -> &BackendLoad {
        &self.load
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        flush(&self.bytes_in, [Some(&self.load.bytes_in)]);
        flush(&self.bytes_out, [Some(&self.load.bytes_out)]);
        self.load.active.fetch_sub(1, Relaxed);
        self.load.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_ask_at_once_never_get_more_than_the_limit() {
        const LIMIT: u32 = 3;
        let load = Arc::<BackendLoad>::default();
        load.set_limit(Some(LIMIT), None);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let load = &load;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..50_000 {
                        if random.bool() {
                            held.extend(Assignment::reserve(load));
                        } else {
                            held.pop();
                        }
                        assert!(load.active() <= LIMIT);
                    }
                });
            }
        });
        assert_eq!(load.active(), 0);
        let all: Vec<_> = std::iter::from_fn(|| Assignment::reserve(&load)).collect();
        assert_eq!(all.len(), LIMIT as usize);
        load.set_limit(Some(0), None);
        assert!(!load.has_place());
        drop(all);
        assert!(!load.has_place() && Assignment::reserve(&load).is_none(), "a part of nought");
        load.set_limit(None, None);
        assert!(load.has_place());
    }

    /// Each client looks once after it has asked to be woken, and then waits for nothing but that.
    #[test]
    fn no_place_that_is_left_while_somebody_waits_is_missed() {
        const CLIENTS: u64 = 4;
        let (load, queue) = (Arc::<BackendLoad>::default(), PoolQueue::new(100));
        load.set_limit(Some(1), Some(&queue));
        let patience = std::time::Duration::from_secs(60);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    for _ in 0..20_000 {
                        let ticket = queue.enter().unwrap();
                        let assignment = loop {
                            if ticket.is_first() {
                                load.await_place();
                                fence(SeqCst);
                                if let Some(assignment) = Assignment::reserve(&load) {
                                    break assignment;
                                }
                            }
                            let woken = async { tokio::time::timeout(patience, ticket.woken()).await };
                            runtime.block_on(woken).expect("nobody wakes it");
                        };
                        drop(ticket);
                        drop(assignment);
                    }
                });
            }
        });
        assert!(queue.is_empty() && load.active() == 0);
    }

    #[test]
    fn failures_and_ends_are_counted_by_reason() {
        let load = BackendLoad::default();
        load.count_failure(&io::ErrorKind::TimedOut.into());
        load.count_end(EndReason::ClientReset);
        load.count_end(EndReason::ClientReset);
        load.count_end(EndReason::NoBackend);
        let counters = load.counters();
        let counted: Vec<_> = counters.by_reason().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("connect_timed_out", 1), ("client_reset", 2)]);
        assert_eq!(counters.failed(), 1);
    }

    #[test]
    fn bytes_of_an_assignment_are_the_backends_when_it_has_ended_or_they_are_many() {
        let load = Arc::<BackendLoad>::default();
        let assignment = Assignment::reserve(&load).unwrap();
        assignment.add_bytes(3, 2 << 20);
        assignment.add_bytes(4, 5);
        let counters = load.counters();
        assert_eq!((counters.active, counters.bytes_in, counters.bytes_out), (1, 0, 2 << 20));
        drop(assignment);
        let counters = load.counters();
        assert_eq!((counters.active, counters.bytes_in, counters.bytes_out), (0, 7, (2 << 20) + 5));
    }
}
