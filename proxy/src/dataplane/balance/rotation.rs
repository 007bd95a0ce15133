//! Which backends are up, and how many connections each has: shared by all workers, switched from outside at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use uuid::Uuid;

/// What changes about a backend from one connection to the next. It outlives a change of its pool.
#[derive(Debug)]
pub(super) struct BackendState {
    up: AtomicBool,
    active: AtomicU32,
}

impl BackendState {
    fn new(up: bool) -> Arc<Self> {
        Arc::new(Self { up: AtomicBool::new(up), active: AtomicU32::new(0) })
    }

    /// Whether it is in rotation.
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// How many connections it has, those that are being made among them.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}

/// A connection that counts as a backend's until it is dropped.
#[derive(Debug)]
pub(super) struct Assignment(Arc<BackendState>);

impl Assignment {
    pub(super) fn new(backend: &Arc<BackendState>) -> Self {
        backend.active.fetch_add(1, Relaxed);
        Self(Arc::clone(backend))
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The backends by id. Clones are the same rotation.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    backends: Arc<Mutex<HashMap<Uuid, Arc<BackendState>>>>,
}

impl Rotation {
    /// Takes a backend into rotation or out of it, for every connection that is decided from now on; open ones stay. What is said
    /// of a backend that is not configured yet counts if the next configuration has it.
    pub fn set_health(&self, backend: Uuid, up: bool) {
        self.lock().entry(backend).or_insert_with(|| BackendState::new(up)).up.store(up, Relaxed);
    }

    /// Whether a backend is in rotation, as far as its health goes; None if it is not known.
    #[must_use]
    pub fn health(&self, backend: Uuid) -> Option<bool> {
        self.lock().get(&backend).map(|state| state.is_up())
    }

    /// The state of a backend, made if it is new.
    pub(super) fn state(&self, backend: Uuid, starts_up: bool) -> Arc<BackendState> {
        Arc::clone(self.lock().entry(backend).or_insert_with(|| BackendState::new(starts_up)))
    }

    /// Forgets all other backends.
    pub(super) fn keep_only(&self, known: &HashSet<Uuid>) {
        self.lock().retain(|id, _| known.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<BackendState>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
