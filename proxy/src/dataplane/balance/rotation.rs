//! Rotation of the backends and their connections: shared by all workers, and switched from outside at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use tokio::sync::watch;
use uuid::Uuid;

use super::{
    instant::AtomicInstant,
    passive::{BackendEjection, Ejection},
};
use crate::dataplane::account::{BackendCounters, BackendLoad};

/// State of a backend that changes from one connection to the next. It outlives a change of its pool.
#[derive(Debug)]
pub(in crate::dataplane) struct BackendState {
    is_up: AtomicBool,
    began: AtomicInstant,
    pub(super) ejection: BackendEjection,
    pub(super) load: Arc<BackendLoad>,
}

impl BackendState {
    fn new(is_up: bool) -> Arc<Self> {
        let (is_up, began) = (AtomicBool::new(is_up), AtomicInstant::none());
        Arc::new(Self { is_up, began, ejection: BackendEjection::new(), load: Arc::default() })
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

    /// True if it is in rotation.
    pub(in crate::dataplane) fn is_up(&self) -> bool {
        self.is_up.load(Relaxed)
    }
}

/// The backends by id. Clones are the same rotation.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    backends: Arc<Mutex<HashMap<Uuid, Arc<BackendState>>>>,
    flips: watch::Sender<()>,
}

impl Rotation {
    /// Takes a backend into rotation or out of it, for every connection that is decided from now on; open
    /// ones stay, for as long as the drain timeout of their pool lets them. The health of a backend that is not configured yet counts if the next configuration has it.
    /// One that comes back is not left out by its passive health check: while it was down it took nobody's share.
    pub fn set_health(&self, backend: Uuid, up: bool) {
        let known = Arc::clone(self.lock().entry(backend).or_insert_with(|| BackendState::new(up)));
        if known.is_up.swap(up, Relaxed) != up {
            if up {
                let now = Instant::now();
                known.begin(now);
                known.ejection.readmit(now);
            }
            self.flips.send_replace(());
            known.load.wake();
        }
    }

    /// Tells that the health of some backend has changed, once for several changes.
    pub(in crate::dataplane) fn flips(&self) -> watch::Receiver<()> {
        self.flips.subscribe()
    }

    /// True if a backend is in rotation, as far as its health goes; None if it is not known.
    #[must_use]
    pub fn health(&self, backend: Uuid) -> Option<bool> {
        self.lock().get(&backend).map(|state| state.is_up())
    }

    /// The state of a backend, made if it is new.
    pub(super) fn state(&self, backend: Uuid, starts_up: bool) -> Arc<BackendState> {
        Arc::clone(self.lock().entry(backend).or_insert_with(|| BackendState::new(starts_up)))
    }

    /// Counters of the backends that have had connections.
    #[must_use]
    pub fn counters(&self) -> HashMap<Uuid, BackendCounters> {
        let read = self.lock().iter().map(|(id, state)| (*id, state.load.read())).collect::<Vec<_>>();
        read.into_iter().filter(|(_, counters)| *counters != BackendCounters::default()).collect()
    }

    /// Backends that passive health checks leave out.
    #[must_use]
    pub fn ejections(&self, now: Instant) -> HashMap<Uuid, Ejection> {
        let backends = self.lock();
        let ejected = backends.iter().map(|(id, state)| (*id, state.ejection.current(now)));
        ejected.filter_map(|(id, ejection)| Some((id, ejection?))).collect()
    }

    /// Forgets all other backends.
    pub(in crate::dataplane) fn retain(&self, known: &HashSet<Uuid>) {
        self.lock().retain(|id, _| known.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<BackendState>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
