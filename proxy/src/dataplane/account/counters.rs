//! Counters of a listener, over all workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counters of a listener since it was added. Only `active` falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections that clients made, also those that were turned away.
    pub accepted: u64,
    /// Connections that have ended, for whatever reason.
    pub closed: u64,
    /// Connections at this moment.
    pub active: u32,
    /// Connections turned away because of the connection limit.
    pub refused_by_limit: u64,
    /// Connections turned away because their network had used up its share of the node.
    pub refused_by_share: u64,
    /// Connections turned away because they came from this node's own address: the configuration leads back to it.
    pub refused_loops: u64,
    /// Connections reset because no backend has accepted them.
    pub no_backend: u64,
    /// Attempts to reach a backend that failed. One connection can count several.
    pub connect_failures: u64,
    /// Connections reset after an idle timeout.
    pub timed_out: u64,
    /// Connections that ended by a reset of the client or of the backend.
    pub reset: u64,
    /// Bytes from clients to backends.
    pub bytes_in: u64,
    /// Bytes from backends to clients.
    pub bytes_out: u64,
}

impl ListenerCounters {
    /// Connections that were not served.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.refused_by_limit + self.refused_by_share + self.refused_loops + self.no_backend
    }
}

/// The counters as workers update them.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct AtomicCounters {
    pub(in crate::dataplane) accepted: AtomicU64,
    pub(in crate::dataplane) closed: AtomicU64,
    pub(in crate::dataplane) active: AtomicU32,
    pub(in crate::dataplane) refused_by_limit: AtomicU64,
    pub(in crate::dataplane) refused_by_share: AtomicU64,
    pub(in crate::dataplane) refused_loops: AtomicU64,
    pub(in crate::dataplane) no_backend: AtomicU64,
    pub(in crate::dataplane) connect_failures: AtomicU64,
    pub(in crate::dataplane) timed_out: AtomicU64,
    pub(in crate::dataplane) reset: AtomicU64,
    pub(in crate::dataplane) bytes_in: AtomicU64,
    pub(in crate::dataplane) bytes_out: AtomicU64,
}

impl AtomicCounters {
    /// Current values. While connections come and go, `accepted` may run ahead of `closed + active` by those
    /// in between.
    pub(in crate::dataplane) fn read(&self) -> ListenerCounters {
        ListenerCounters {
            closed: self.closed.load(Relaxed),
            active: self.active.load(Relaxed),
            accepted: self.accepted.load(Relaxed),
            refused_by_limit: self.refused_by_limit.load(Relaxed),
            refused_by_share: self.refused_by_share.load(Relaxed),
            refused_loops: self.refused_loops.load(Relaxed),
            no_backend: self.no_backend.load(Relaxed),
            connect_failures: self.connect_failures.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            reset: self.reset.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

/// Adds one.
pub(in crate::dataplane) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
