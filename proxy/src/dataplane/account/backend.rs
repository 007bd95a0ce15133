//! Connections of a backend, over all workers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::counters::increment;

/// Counters of a backend since it was configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Connections that it has accepted.
    pub accepted: u64,
    /// Connections at this moment, those that are being opened included.
    pub active: u32,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Bytes to the backend.
    pub bytes_in: u64,
    /// Bytes from the backend.
    pub bytes_out: u64,
}

/// Connections that are assigned to a backend, as workers count them.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct BackendLoad {
    active: AtomicU32,
    accepted: AtomicU64,
    failed: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

impl BackendLoad {
    /// Number of connections, those that are being opened included.
    pub(in crate::dataplane) fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Counts an attempt to connect that failed.
    pub(in crate::dataplane) fn count_failure(&self) {
        increment(&self.failed);
    }

    /// Current values.
    pub(in crate::dataplane) fn read(&self) -> BackendCounters {
        BackendCounters {
            accepted: self.accepted.load(Relaxed),
            active: self.active(),
            failed: self.failed.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// Assignment of a connection to a backend: counts as the backend's until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Assignment(Arc<BackendLoad>);

impl Assignment {
    /// Counts a connection that is being opened.
    pub(in crate::dataplane) fn new(load: &Arc<BackendLoad>) -> Self {
        load.active.fetch_add(1, Relaxed);
        Self(Arc::clone(load))
    }

    /// Counts that the backend has accepted it.
    pub(in crate::dataplane) fn accept(&self) {
        increment(&self.0.accepted);
    }

    /// Counts that the backend has failed it.
    pub(in crate::dataplane) fn count_failure(&self) {
        self.0.count_failure();
    }

    /// Adds bytes to the backend (`bytes_in`) and from it.
    pub(in crate::dataplane) fn add_bytes(&self, bytes_in: usize, bytes_out: usize) {
        self.0.bytes_in.fetch_add(bytes_in as u64, Relaxed);
        self.0.bytes_out.fetch_add(bytes_out as u64, Relaxed);
    }

    pub(super) fn load(&self) -> &BackendLoad {
        &self.0
    }
}

impl Drop for Assignment {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}
