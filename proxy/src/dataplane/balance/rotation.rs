//! Rotation of the backends and their connections: shared by all workers, and switched from outside at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::passive::{BackendEjection, Ejection};
use crate::dataplane::account::{AtomicInstant, BackendCounters, BackendLoad};

/// State of a backend that changes from one connection to the next. It outlives a change of its pool.
#[derive(Debug)]
pub(in crate::dataplane) struct BackendState {
    is_up: AtomicBool,
    /// The pool that has had it.
    pool: OnceLock<Uuid>,
    /// True if it takes connections by its configuration.
    takes_connections: AtomicBool,
    began: AtomicInstant,
    pub(super) ejection: BackendEjection,
    pub(super) load: Arc<BackendLoad>,
}

impl BackendState {
    fn new(is_up: bool, load: Option<Arc<BackendLoad>>) -> Arc<Self> {
        let (is_up, takes_connections) = (AtomicBool::new(is_up), AtomicBool::new(true));
        let (began, ejection) = (AtomicInstant::none(), BackendEjection::new());
        let (pool, load) = (OnceLock::new(), load.unwrap_or_default());
        Arc::new(Self { is_up, pool, takes_connections, began, ejection, load })
    }

    /// Records that it begins to take connections, beside others that do.
    pub(super) fn begin(&self, now: Instant) {
        self.began.set(Some(now));
    }

    /// Instant since which it takes connections, also as one that was left out before. None: as long as its pool is
    /// there.
    pub(super) fn began(&self, now: Instant) -> Option<Instant> {
        self.began.get().max(self.ejection.until().filter(|until| *until <= now))
    }

    /// True if [`Self::succeed`] would change something.
    pub(in crate::dataplane) fn is_watched(&self) -> bool {
        self.ejection.is_watched()
    }

    /// Counts a connection that it has accepted, for passive health checks. True if it is the first one after the backend
    /// was left out.
    pub(in crate::dataplane) fn succeed(&self, now: Instant) -> bool {
        self.ejection.succeed(now)
    }

    /// Sets whether it takes connections by its configuration.
    pub(super) fn set_takes_connections(&self, takes_connections: bool) {
        self.takes_connections.store(takes_connections, Relaxed);
    }

    /// Current counters.
    fn counters(&self, now: Instant) -> BackendCounters {
        let takes_connections = self.takes_connections.load(Relaxed) && self.is_up();
        let Some(pool) = self.pool.get() else { return self.load.counters() };
        self.load.read(*pool, takes_connections, now)
    }

    /// True if it is in rotation.
    pub(in crate::dataplane) fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }
}

/// The backends by id. Clones are the same rotation.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    backends: Arc<Mutex<Backends>>,
    flips: watch::Sender<()>,
}

/// States of backends.
#[derive(Debug, Default)]
struct Backends {
    known: HashMap<Uuid, Arc<BackendState>>,
    /// Connections of backends that are in no pool any more, with the pool that had them: should one return, its limit counts
    /// them.
    departed: HashMap<Uuid, (Uuid, Arc<BackendLoad>)>,
}

impl Backends {
    fn state(&mut self, backend: Uuid, starts_up: bool) -> Arc<BackendState> {
        let Self { known, departed } = self;
        let new = || BackendState::new(starts_up, departed.remove(&backend).map(|(_, load)| load));
        Arc::clone(known.entry(backend).or_insert_with(new))
    }
}

impl Rotation {
    /// Takes a backend into rotation or out of it, for every connection that is decided from now on; open
    /// ones stay, for as long as the drain timeout of their pool lets them. The health of a backend that is not configured yet counts if the next configuration has it.
    /// One that comes back is not left out by its passive health check: while it was down it took nobody's share.
    pub fn set_health(&self, backend: Uuid, up: bool) {
        let known = self.lock().state(backend, up);
        if known.is_up.swap(up, Relaxed) != up {
            if up {
                let now = Instant::now();
                known.begin(now);
                known.ejection.readmit(now);
            }
            if known.pool.get().is_some() {
                self.flips.send_replace(());
            }
            known.load.wake();
        }
    }

    /// Tells that the health of some backend of a pool has changed, once for several changes.
    pub(in crate::dataplane) fn flips(&self) -> watch::Receiver<()> {
        self.flips.subscribe()
    }

    /// True if a backend is in rotation, as far as its health goes; None if it is not known.
    #[must_use]
    pub fn health(&self, backend: Uuid) -> Option<bool> {
        self.lock().known.get(&backend).map(|state| state.is_up())
    }

    /// The state of a backend of a pool, made if it is new.
    pub(super) fn state(&self, pool: Uuid, backend: Uuid, starts_up: bool) -> Arc<BackendState> {
        let state = self.lock().state(backend, starts_up);
        state.pool.get_or_init(|| pool);
        state
    }

    /// Counters of the backends that have had connections.
    #[must_use]
    pub fn counters(&self) -> HashMap<Uuid, BackendCounters> {
        let backends = self.lock();
        let now = Instant::now();
        let known = backends.known.iter().map(|(id, state)| (*id, state.counters(now)));
        let departed = backends.departed.iter().map(|(id, (pool, load))| (*id, load.read(*pool, false, now)));
        known.chain(departed).filter(|(_, counters)| *counters != BackendCounters::default()).collect()
    }

    /// Backends that passive health checks leave out.
    #[must_use]
    pub fn ejections(&self, now: Instant) -> HashMap<Uuid, Ejection> {
        let backends = self.lock();
        let ejected = backends.known.iter().map(|(id, state)| (*id, state.ejection.current(now)));
        ejected.filter_map(|(id, ejection)| Some((id, ejection?))).collect()
    }

    /// Drops all other backends, but the connections that they still have.
    pub(in crate::dataplane) fn retain(&self, known: &HashSet<Uuid>) {
        let mut backends = self.lock();
        let gone = backends.known.extract_if(|id, _| !known.contains(id)).collect::<Vec<_>>();
        let departed = |(id, state): (Uuid, Arc<BackendState>)| {
            Some((id, (*state.pool.get()?, Arc::clone(&state.load))))
        };
        backends.departed.extend(gone.into_iter().filter_map(departed));
        backends.departed.retain(|_, (_, load)| load.active() > 0);
    }

    fn lock(&self) -> MutexGuard<'_, Backends> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::account::{Assignment, BackendDrain};

    #[test]
    fn connections_of_a_backend_that_leaves_and_returns_stay_counted_and_all_else_begins_anew() {
        let (rotation, id) = (Rotation::default(), Uuid::from_u128(1));
        let [none, all] = [HashSet::new(), HashSet::from([id])];
        let pool = Uuid::from_u128(9);
        let state = rotation.state(pool, id, true);
        let open = Assignment::reserve(&state.load).unwrap();
        rotation.retain(&none);
        assert_eq!((rotation.health(id), rotation.counters()[&id].active), (None, 1));
        assert_eq!(
            rotation.counters()[&id].drain,
            Some(BackendDrain { pool, connections: 1, deadline: None })
        );
        let back = rotation.state(pool, id, false);
        assert_eq!((back.is_up(), back.load.active()), (false, 1));
        rotation.retain(&all);
        rotation.retain(&none);
        drop(open);
        rotation.retain(&none);
        assert!(rotation.counters().is_empty() && rotation.lock().departed.is_empty());
        assert_eq!(rotation.state(pool, id, true).load.active(), 0);
    }

    #[test]
    fn a_backend_drains_while_it_has_connections_and_takes_none() {
        let (rotation, id, pool) = (Rotation::default(), Uuid::from_u128(1), Uuid::from_u128(9));
        let state = rotation.state(pool, id, true);
        let is_draining = || rotation.counters().get(&id).is_some_and(|it| it.drain.is_some());
        rotation.set_health(id, false);
        assert!(!is_draining(), "it has no connections");
        let open = Assignment::reserve(&state.load).unwrap();
        assert!(is_draining());
        rotation.set_health(id, true);
        assert!(!is_draining());
        state.set_takes_connections(false);
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        state.load.set_drain_deadline(Some(deadline));
        let told = rotation.counters()[&id].drain.unwrap().deadline.unwrap();
        assert!(deadline - told < std::time::Duration::from_millis(2));
        drop(open);
        assert!(!is_draining());
    }

    #[test]
    fn only_changes_of_backends_of_pools_are_told() {
        let rotation = Rotation::default();
        let mut flips = rotation.flips();
        let mut is_told = |backend, up| {
            rotation.set_health(Uuid::from_u128(backend), up);
            let is_told = flips.has_changed().unwrap();
            flips.mark_unchanged();
            is_told
        };
        assert_eq!([is_told(1, true), is_told(1, false), is_told(1, false)], [false; 3]);
        rotation.state(Uuid::from_u128(9), Uuid::from_u128(1), true);
        assert_eq!([is_told(1, false), is_told(1, true), is_told(1, true)], [false, true, false]);
    }
}
