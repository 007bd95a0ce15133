//! Counters of a listener, over all workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What a listener has counted since it came. Only `active` falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections that clients made, also those that were turned away.
    pub accepted: u64,
    /// Connections that have ended, for whatever reason.
    pub closed: u64,
    /// Connections that are there now.
    pub active: u32,
    /// Turned away because of the connection limit.
    pub refused_by_limit: u64,
    /// Reset because no backend was left to try.
    pub no_backend: u64,
    /// Attempts to reach a backend that failed. One connection can count several.
    pub connect_failures: u64,
    /// Cut because nothing moved for the data timeout.
    pub timed_out: u64,
    /// Ended by a reset of the client or of the backend.
    pub reset: u64,
    /// Bytes from clients to backends.
    pub bytes_in: u64,
    /// Bytes from backends to clients.
    pub bytes_out: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) active: AtomicU32,
    pub(super) refused_by_limit: AtomicU64,
    pub(super) no_backend: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) reset: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

impl Counters {
    /// What they say now. While connections come and go, `accepted` may run ahead of `closed + active` by those in between.
    pub(super) fn read(&self) -> ListenerCounters {
        ListenerCounters {
            closed: self.closed.load(Relaxed),
            active: self.active.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused_by_limit: self.refused_by_limit.load(Relaxed),
            no_backend: self.no_backend.load(Relaxed),
            connect_failures: self.connect_failures.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            reset: self.reset.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
