//! Account of one connection: one value, which reports once, when it is dropped.

use std::{
    cell::Cell,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use super::{
    backend::Assignment,
    counters::{AtomicCounters, HeaderRefusal, increment},
    pending::{add, flush},
};
use crate::dataplane::record::EndReason;

/// Account of a connection, which is active until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionAccount {
    counters: Arc<AtomicCounters>,
    /// The backend that has accepted it.
    backend: Option<Assignment>,
    bytes_in: Cell<usize>,
    bytes_out: Cell<usize>,
}

impl ConnectionAccount {
    /// Opens the account of an accepted connection. Returns the number of the listener's other connections, too.
    pub(in crate::dataplane) fn open(counters: &Arc<AtomicCounters>) -> (Self, u32) {
        let others = counters.accept();
        let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
        (Self { counters: Arc::clone(counters), backend: None, bytes_in, bytes_out }, others)
    }

    /// Counts that the listener has reached its connection limit.
    pub(in crate::dataplane) fn count_limit(&self) {
        increment(&self.counters.refused_by_limit);
    }

    /// Counts that the network has used up its share.
    pub(in crate::dataplane) fn count_share(&self) {
        increment(&self.counters.refused_by_share);
    }

    /// Counts that the connection comes from this node itself.
    pub(in crate::dataplane) fn count_loop(&self) {
        increment(&self.counters.refused_loops);
    }

    /// Counts that the listener does not admit the client's address.
    pub(in crate::dataplane) fn count_cidr(&self) {
        increment(&self.counters.refused_by_cidr);
    }

    /// Counts it as its backend's, which has accepted it, for as long as it lives.
    pub(in crate::dataplane) fn assign(&mut self, assignment: Assignment) {
        assignment.accept();
        self.backend = Some(assignment);
    }

    /// Counts that a trusted proxy has not begun with a valid header.
    pub(in crate::dataplane) fn count_header(&self, refusal: HeaderRefusal) {
        self.counters.refuse_header(refusal);
    }

    /// Adds bytes from the client (`bytes_in`) and to it.
    pub(in crate::dataplane) fn add_bytes(&self, bytes_in: usize, bytes_out: usize) {
        let backend = self.backend.as_ref().map(Assignment::load);
        add(&self.bytes_in, bytes_in, [Some(&self.counters.bytes_in), backend.map(|it| &it.bytes_in)]);
        add(&self.bytes_out, bytes_out, [Some(&self.counters.bytes_out), backend.map(|it| &it.bytes_out)]);
    }

    /// Counts that no backend has accepted it.
    pub(in crate::dataplane) fn count_no_backend(&self) {
        increment(&self.counters.no_backend);
    }

    /// Counts the same for want of something of the node.
    pub(in crate::dataplane) fn count_exhausted(&self) {
        self.count_no_backend();
        increment(&self.counters.exhausted);
    }

    /// Counts that the client reset the connection.
    pub(in crate::dataplane) fn count_client_reset(&self) {
        self.count_end(EndReason::ClientReset, &self.counters.reset_by_client);
    }

    /// Counts that the backend reset the connection.
    pub(in crate::dataplane) fn count_backend_reset(&self) {
        self.count_end(EndReason::BackendReset, &self.counters.reset_by_backend);
    }

    /// Counts that the connection was cut since its backend is gone.
    pub(in crate::dataplane) fn count_backend_gone(&self) {
        self.count_end(EndReason::BackendGone, &self.counters.backend_gone);
    }

    /// Counts that an idle timeout ended the connection.
    pub(in crate::dataplane) fn count_timeout(&self) {
        self.count_end(EndReason::TimedOut, &self.counters.timed_out);
    }

    /// Counts that the idle timeout of half-closed connections ended it.
    pub(in crate::dataplane) fn count_half_closed(&self) {
        self.count_end(EndReason::HalfClosed, &self.counters.half_closed);
    }

    /// Counts an end of the listener's, and of the backend's that had accepted it.
    fn count_end(&self, reason: EndReason, counter: &AtomicU64) {
        increment(counter);
        if let Some(backend) = &self.backend {
            backend.load().count_end(reason);
        }
    }

    /// Counts how long it has lasted, if a backend had accepted it.
    pub(in crate::dataplane) fn count_duration(&self, duration: impl FnOnce() -> Duration) {
        let Some(backend) = &self.backend else { return };
        let duration = duration();
        self.counters.add_duration(duration);
        backend.load().add_duration(duration);
    }
}

impl Drop for ConnectionAccount {
    fn drop(&mut self) {
        let (counters, backend) = (&self.counters, self.backend.as_ref().map(Assignment::load));
        flush(&self.bytes_in, [Some(&counters.bytes_in), backend.map(|it| &it.bytes_in)]);
        flush(&self.bytes_out, [Some(&counters.bytes_out), backend.map(|it| &it.bytes_out)]);
        counters.close();
    }
}
