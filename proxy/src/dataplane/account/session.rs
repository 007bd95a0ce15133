//! Account of one session of UDP: that of a connection, with datagrams.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{backend::Assignment, connection::ConnectionAccount, counters::AtomicCounters};

/// Datagrams after which the listener's counters are updated although the session goes on.
const FLUSH_DATAGRAMS: u32 = 1024;

/// Account of a session, which is active until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct SessionAccount {
    connection: ConnectionAccount,
    counters: Arc<AtomicCounters>,
    datagrams_in: Cell<u32>,
    datagrams_out: Cell<u32>,
}

impl SessionAccount {
    /// Opens the account of a client. Returns the number of the listener's other sessions, too.
    pub(in crate::dataplane) fn open(counters: &Arc<AtomicCounters>) -> (Self, u32) {
        let (connection, others) = ConnectionAccount::open(counters);
        let (datagrams_in, datagrams_out) = (Cell::new(0), Cell::new(0));
        (Self { connection, counters: Arc::clone(counters), datagrams_in, datagrams_out }, others)
    }

    /// Its account as a connection.
    pub(in crate::dataplane) fn connection(&self) -> &ConnectionAccount {
        &self.connection
    }

    /// Adds datagrams from the client, of so many bytes in all.
    pub(in crate::dataplane) fn add_in(&self, datagrams: usize, bytes: usize) {
        self.connection.add_bytes(bytes, 0);
        add(&self.datagrams_in, u32::try_from(datagrams).unwrap_or(u32::MAX), &self.counters.datagrams_in);
    }

    /// Adds a datagram of so many bytes to the client.
    pub(in crate::dataplane) fn add_out(&self, bytes: usize) {
        self.connection.add_bytes(0, bytes);
        add(&self.datagrams_out, 1, &self.counters.datagrams_out);
    }

    /// Counts how long it has lasted; of its last backend, too.
    pub(in crate::dataplane) fn count_duration(&self, duration: Duration, backend: Option<&Assignment>) {
        self.counters.add_duration(duration);
        backend.into_iter().for_each(|backend| backend.load().add_duration(duration));
    }

    /// Counts datagrams that could not be sent.
    pub(in crate::dataplane) fn count_dropped(&self, datagrams: usize) {
        if datagrams > 0 {
            self.counters.datagrams_dropped.fetch_add(datagrams as u64, Relaxed);
        }
    }
}

fn add(pending: &Cell<u32>, datagrams: u32, counter: &AtomicU64) {
    let sum = pending.get().saturating_add(datagrams);
    if sum >= FLUSH_DATAGRAMS {
        counter.fetch_add(sum.into(), Relaxed);
        pending.set(0);
    } else {
        pending.set(sum);
    }
}

impl Drop for SessionAccount {
    fn drop(&mut self) {
        self.counters.datagrams_in.fetch_add(self.datagrams_in.get().into(), Relaxed);
        self.counters.datagrams_out.fetch_add(self.datagrams_out.get().into(), Relaxed);
    }
}
