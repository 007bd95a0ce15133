//! The accounting of one connection: one value, which reports once, when it is dropped.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    counters::{Counters, count},
    relay::{End, Moved},
    service::Service,
};

/// After so many bytes they are told even though the connection goes on, so that the counters of a long transfer move.
const TELL_AFTER: usize = 1024 * 1024;

/// What is counted of a connection. It is active until this is dropped.
#[derive(Debug)]
pub(super) struct Account {
    service: Arc<Service>,
    up: Cell<usize>,
    down: Cell<usize>,
}

impl Account {
    /// Opens the account of an accepted connection; None, and counted as refused, if the listener has as many as it may.
    pub(super) fn open(service: &Arc<Service>) -> Option<Self> {
        let counters = &service.counters;
        count(&counters.accepted);
        let account = Self { service: Arc::clone(service), up: Cell::new(0), down: Cell::new(0) };
        let before = counters.active.fetch_add(1, Relaxed);
        if service.limits.connections.is_some_and(|limit| before >= limit) {
            count(&counters.refused_by_limit);
            return None;
        }
        Some(account)
    }

    /// Bytes that went either way.
    pub(super) fn moved(&self, moved: Moved) {
        add(&self.up, moved.up, &self.counters().bytes_in);
        add(&self.down, moved.down, &self.counters().bytes_out);
    }

    /// No backend was left.
    pub(super) fn no_backend(&self) {
        count(&self.counters().no_backend);
    }

    /// The relay has ended.
    pub(super) fn ended(&self, end: End) {
        match end {
            End::Closed => {}
            End::Reset => count(&self.counters().reset),
            End::TimedOut => count(&self.counters().timed_out),
        }
    }

    fn counters(&self) -> &Counters {
        &self.service.counters
    }
}

fn add(pending: &Cell<usize>, bytes: usize, counter: &AtomicU64) {
    let sum = pending.get().saturating_add(bytes);
    if sum >= TELL_AFTER {
        counter.fetch_add(sum as u64, Relaxed);
        pending.set(0);
    } else {
        pending.set(sum);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let counters = self.counters();
        counters.bytes_in.fetch_add(self.up.get() as u64, Relaxed);
        counters.bytes_out.fetch_add(self.down.get() as u64, Relaxed);
        count(&counters.closed);
        counters.active.fetch_sub(1, Relaxed);
    }
}
