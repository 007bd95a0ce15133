//! Connections of a backend, over all workers.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    counters::increment,
    pending::{add, flush},
};

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
pub(in crate::dataplane) struct Assignment {
    load: Arc<BackendLoad>,
    /// Bytes that are not among the backend's yet.
    bytes_in: Cell<usize>,
    bytes_out: Cell<usize>,
}

impl Assignment {
    /// Counts a connection that is being opened.
    pub(in crate::dataplane) fn new(load: &Arc<BackendLoad>) -> Self {
        load.active.fetch_add(1, Relaxed);
        Self { load: Arc::clone(load), bytes_in: Cell::new(0), bytes_out: Cell::new(0) }
    }

    /// Counts that the backend has accepted it.
    pub(in crate::dataplane) fn accept(&self) {
        increment(&self.load.accepted);
    }

    /// Counts that the backend has failed it.
    pub(in crate::dataplane) fn count_failure(&self) {
        self.load.count_failure();
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_assignment_are_the_backends_when_it_has_ended_or_they_are_many() {
        let load = Arc::<BackendLoad>::default();
        let assignment = Assignment::new(&load);
        assignment.add_bytes(3, 2 << 20);
        assignment.add_bytes(4, 5);
        let counters = load.read();
        assert_eq!((counters.active, counters.bytes_in, counters.bytes_out), (1, 0, 2 << 20));
        drop(assignment);
        let counters = load.read();
        assert_eq!((counters.active, counters.bytes_in, counters.bytes_out), (0, 7, (2 << 20) + 5));
    }
}
