//! Connections of a backend, over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// Number of connections that are assigned to a backend, those that are being opened included.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct BackendLoad(AtomicU32);

impl BackendLoad {
    /// Number of connections.
    pub(in crate::dataplane) fn active(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Assignment of a connection to a backend: counts as the backend's until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Assignment(Arc<BackendLoad>);

impl Assignment {
    /// Counts a connection.
    pub(in crate::dataplane) fn new(load: &Arc<BackendLoad>) -> Self {
        load.0.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
