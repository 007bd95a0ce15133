//! Counters of a listener, over all workers.

use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::durations::{AtomicDurations, Durations};
use crate::{dataplane::record::EndReason, proxy_protocol::HeaderError};

/// Reason why a connection of a trusted proxy is refused: it does not begin with a header of PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderRefusal {
    /// It begins with something else.
    Missing,
    /// The header breaks the protocol.
    Malformed,
    /// The header is longer than the node takes.
    TooLong,
    /// Its checksum is wrong.
    Checksum,
    /// It was not there in time.
    Timeout,
    /// The proxy has closed the connection before.
    Closed,
}

impl HeaderRefusal {
    /// All of them, in the order of [`ListenerCounters::refused_headers`].
    pub const ALL: [Self; 6] =
        [Self::Missing, Self::Malformed, Self::TooLong, Self::Checksum, Self::Timeout, Self::Closed];

    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Checksum => "checksum",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }
}

impl From<HeaderError> for HeaderRefusal {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Missing => Self::Missing,
            HeaderError::Malformed(_) => Self::Malformed,
            HeaderError::TooLong => Self::TooLong,
            HeaderError::Checksum => Self::Checksum,
        }
    }
}

/// Counters of a listener since it was added. `active`, which is `accepted - closed`, `limit` and `waiting` are those of the
/// moment; all others only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerCounters {
    /// Connections that clients made, also those that were turned away.
    pub accepted: u64,
    /// Connections that have ended, for whatever reason.
    pub closed: u64,
    /// Connections at this moment.
    pub active: u32,
    /// Connection limit in force; None: there is none.
    pub limit: Option<u32>,
    /// Connections turned away because of the connection limit.
    pub refused_by_limit: u64,
    /// Connections turned away because their client had as many as one client may have.
    pub refused_by_client_limit: u64,
    /// Connections turned away because their client connected too often.
    pub refused_by_client_rate: u64,
    /// Connections turned away because all clients together connected too often.
    pub refused_by_rate: u64,
    /// Connections that were admitted without being counted as their client's: the table of clients was full.
    pub clients_uncounted: u64,
    /// Connections turned away because their network had used up its share of the node.
    pub refused_by_share: u64,
    /// Connections turned away because they came from this node's own address: the configuration leads back to it.
    /// Sessions of UDP also because the datagram has no hop left.
    pub refused_loops: u64,
    /// Connections turned away because their client's address was not among those that the listener allows.
    pub refused_by_cidr: u64,
    /// Connections of trusted proxies turned away for want of a valid header, as of [`HeaderRefusal::ALL`].
    pub refused_headers: [u64; HeaderRefusal::ALL.len()],
    /// Connections turned away because all backends were at their limits, and the queue, if there is one, full.
    pub refused_by_backend_limit: u64,
    /// Connections reset because no backend had a place for them for as long as they may wait.
    pub queue_timeouts: u64,
    /// Connections that had to wait for a place at a backend.
    pub queued: u64,
    /// Connections that wait for one at this moment.
    pub waiting: u32,
    /// Connections reset because no backend has accepted them.
    pub no_backend: u64,
    /// Connections among these for which the node was short of sockets or memory.
    pub exhausted: u64,
    /// Attempts to reach a backend that failed. One connection can count several.
    pub connect_failures: u64,
    /// Connections reset after an idle timeout.
    pub timed_out: u64,
    /// Connections reset after the idle timeout of those of which one side has closed its half.
    pub half_closed: u64,
    /// Connections that ended by a reset of the client.
    pub reset_by_client: u64,
    /// Connections that ended by a reset of the backend.
    pub reset_by_backend: u64,
    /// Connections reset because their backend was gone, and the drain timeout of its pool over.
    pub backend_gone: u64,
    /// Times that its connections had a backend left out of the node's choice, by the passive health check of its pool.
    pub ejections: u64,
    /// Times that a backend was due to be left out, and was not, since as many of its pool were as may be.
    pub ejections_withheld: u64,
    /// Bytes from clients to backends.
    pub bytes_in: u64,
    /// Bytes from backends to clients.
    pub bytes_out: u64,
    /// Datagrams from clients to backends.
    pub datagrams_in: u64,
    /// Datagrams from backends to clients.
    pub datagrams_out: u64,
    /// Datagrams of admitted clients, or to them, that the node could not send.
    pub datagrams_dropped: u64,
    /// Datagrams of admitted clients, or to them, that were dropped because of the bandwidth limit.
    pub datagrams_over_bandwidth: u64,
    /// Times that a connection had to wait because of the bandwidth limit.
    pub bandwidth_waits: u64,
    /// Durations of its connections.
    pub durations: Durations,
    /// State of its drain; None: it is there.
    pub drain: Option<ListenerDrain>,
}

/// Drain of a listener that is gone, and has connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerDrain {
    /// Its load balancer.
    pub load_balancer: Uuid,
    /// Instant at which those that are left are reset.
    pub deadline: Instant,
}

impl ListenerCounters {
    /// Connections that were not served, though their clients are allowed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        let headers: u64 = self.refused_headers.iter().sum();
        let of_clients = self.refused_by_client_limit + self.refused_by_client_rate + self.refused_by_rate;
        let of_backends = self.refused_by_backend_limit + self.queue_timeouts;
        let limits = self.refused_by_limit + of_clients + of_backends;
        limits + self.refused_by_share + self.refused_loops + self.no_backend + headers
    }

    /// Connections by the reason why they were not served, or ended otherwise than by both sides closing them; those that the
    /// node itself cut, and sessions of UDP that were idle, are not counted.
    #[must_use]
    pub fn by_reason(&self) -> [(EndReason, u64); 17] {
        [
            (EndReason::AllowedCidrs, self.refused_by_cidr),
            (EndReason::BackendGone, self.backend_gone),
            (EndReason::BackendReset, self.reset_by_backend),
            (EndReason::BackendsFull, self.refused_by_backend_limit),
            (EndReason::ClientLimit, self.refused_by_client_limit),
            (EndReason::ClientRate, self.refused_by_client_rate),
            (EndReason::ClientReset, self.reset_by_client),
            (EndReason::ConnectionLimit, self.refused_by_limit),
            (EndReason::ConnectionRate, self.refused_by_rate),
            (EndReason::HalfClosed, self.half_closed),
            (EndReason::Loop, self.refused_loops),
            (EndReason::NoBackend, self.no_backend.saturating_sub(self.exhausted)),
            (EndReason::NodeExhausted, self.exhausted),
            (EndReason::QueueTimeout, self.queue_timeouts),
            (EndReason::ProxyHeader, self.refused_headers.iter().sum()),
            (EndReason::Share, self.refused_by_share),
            (EndReason::TimedOut, self.timed_out),
        ]
    }
}

/// The counters as workers update them.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct AtomicCounters {
    pub(in crate::dataplane) accepted: AtomicU64,
    pub(in crate::dataplane) closed: AtomicU64,
    /// Connections that count towards the limit.
    admitted: AtomicU32,
    pub(in crate::dataplane) refused_by_limit: AtomicU64,
    pub(in crate::dataplane) refused_by_client_limit: AtomicU64,
    pub(in crate::dataplane) refused_by_client_rate: AtomicU64,
    pub(in crate::dataplane) refused_by_rate: AtomicU64,
    pub(in crate::dataplane) clients_uncounted: AtomicU64,
    pub(in crate::dataplane) refused_by_share: AtomicU64,
    pub(in crate::dataplane) refused_loops: AtomicU64,
    pub(in crate::dataplane) refused_by_cidr: AtomicU64,
    refused_headers: [AtomicU64; HeaderRefusal::ALL.len()],
    pub(in crate::dataplane) refused_by_backend_limit: AtomicU64,
    pub(in crate::dataplane) queue_timeouts: AtomicU64,
    queued: AtomicU64,
    waiting: AtomicU32,
    pub(in crate::dataplane) no_backend: AtomicU64,
    pub(in crate::dataplane) exhausted: AtomicU64,
    pub(in crate::dataplane) connect_failures: AtomicU64,
    pub(in crate::dataplane) timed_out: AtomicU64,
    pub(in crate::dataplane) half_closed: AtomicU64,
    pub(in crate::dataplane) reset_by_client: AtomicU64,
    pub(in crate::dataplane) reset_by_backend: AtomicU64,
    pub(in crate::dataplane) backend_gone: AtomicU64,
    pub(in crate::dataplane) ejections: AtomicU64,
    pub(in crate::dataplane) ejections_withheld: AtomicU64,
    pub(in crate::dataplane) bytes_in: AtomicU64,
    pub(in crate::dataplane) bytes_out: AtomicU64,
    pub(in crate::dataplane) datagrams_in: AtomicU64,
    pub(in crate::dataplane) datagrams_out: AtomicU64,
    pub(in crate::dataplane) datagrams_dropped: AtomicU64,
    pub(in crate::dataplane) datagrams_over_bandwidth: AtomicU64,
    pub(in crate::dataplane) bandwidth_waits: AtomicU64,
    durations: AtomicDurations,
}

impl AtomicCounters {
    /// Counts an accepted connection. Returns the number of the others at this moment.
    pub(super) fn accept(&self) -> u32 {
        self.accepted.fetch_add(1, Release);
        self.admitted.fetch_add(1, Relaxed)
    }

    /// Counts that a connection has ended, after all else that it has counted.
    pub(super) fn close(&self) {
        self.admitted.fetch_sub(1, Relaxed);
        self.closed.fetch_add(1, Release);
    }

    /// Counts a connection that waits for a place at a backend, until the guard is dropped.
    pub(in crate::dataplane) fn wait(&self) -> WaitingConnection<'_> {
        increment(&self.queued);
        self.waiting.fetch_add(1, Relaxed);
        WaitingConnection(self)
    }

    /// Counts the duration of a connection that had reached a backend.
    pub(super) fn add_duration(&self, duration: Duration) {
        self.durations.add(duration);
    }

    /// Counts a refused header.
    pub(super) fn refuse_header(&self, refusal: HeaderRefusal) {
        let counters = HeaderRefusal::ALL.iter().zip(&self.refused_headers);
        counters.filter(|(counted, _)| **counted == refusal).for_each(|(_, counter)| increment(counter));
    }

    /// Current values. Those of the connections that it shows as closed are whole.
    pub(in crate::dataplane) fn read(&self) -> ListenerCounters {
        // A connection is accepted before it is closed: read the other way round, some would be closed only.
        let closed = self.closed.load(Acquire);
        let accepted = self.accepted.load(Acquire);
        ListenerCounters {
            accepted,
            closed,
            active: open(accepted, closed),
            limit: None,
            refused_by_limit: self.refused_by_limit.load(Relaxed),
            refused_by_client_limit: self.refused_by_client_limit.load(Relaxed),
            refused_by_client_rate: self.refused_by_client_rate.load(Relaxed),
            refused_by_rate: self.refused_by_rate.load(Relaxed),
            clients_uncounted: self.clients_uncounted.load(Relaxed),
            refused_by_share: self.refused_by_share.load(Relaxed),
            refused_loops: self.refused_loops.load(Relaxed),
            refused_by_cidr: self.refused_by_cidr.load(Relaxed),
            refused_headers: self.refused_headers.each_ref().map(|counter| counter.load(Relaxed)),
            exhausted: self.exhausted.load(Relaxed),
            refused_by_backend_limit: self.refused_by_backend_limit.load(Relaxed),
            queue_timeouts: self.queue_timeouts.load(Relaxed),
            queued: self.queued.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            no_backend: self.no_backend.load(Relaxed),
            connect_failures: self.connect_failures.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            half_closed: self.half_closed.load(Relaxed),
            reset_by_client: self.reset_by_client.load(Relaxed),
            reset_by_backend: self.reset_by_backend.load(Relaxed),
            backend_gone: self.backend_gone.load(Relaxed),
            ejections: self.ejections.load(Relaxed),
            ejections_withheld: self.ejections_withheld.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            datagrams_in: self.datagrams_in.load(Relaxed),
            datagrams_out: self.datagrams_out.load(Relaxed),
            datagrams_dropped: self.datagrams_dropped.load(Relaxed),
            datagrams_over_bandwidth: self.datagrams_over_bandwidth.load(Relaxed),
            bandwidth_waits: self.bandwidth_waits.load(Relaxed),
            durations: self.durations.read(),
            drain: None,
        }
    }
}

/// A connection that waits, as it is counted.
#[derive(Debug)]
pub(in crate::dataplane) struct WaitingConnection<'a>(&'a AtomicCounters);

impl Drop for WaitingConnection<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// Connections that are open.
fn open(accepted: u64, closed: u64) -> u32 {
    u32::try_from(accepted.saturating_sub(closed)).unwrap_or(u32::MAX)
}

/// Adds one.
pub(in crate::dataplane) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;
    use crate::dataplane::account::ConnectionAccount;

    /// Connections that come and go on each of two threads.
    const CONNECTIONS: u64 = 20_000;

    #[test]
    fn counters_read_at_any_moment_are_those_of_one_moment() {
        let counters = Arc::new(AtomicCounters::default());
        let worker = |counters: Arc<AtomicCounters>| {
            thread::spawn(move || {
                for _ in 0..CONNECTIONS {
                    ConnectionAccount::open(&counters).0.add_bytes(3, 5);
                }
            })
        };
        let workers = [worker(Arc::clone(&counters)), worker(Arc::clone(&counters))];
        let mut before = ListenerCounters::default();
        while before.closed < 2 * CONNECTIONS {
            let now = counters.read();
            assert_eq!(now.accepted, now.closed + u64::from(now.active));
            assert!(now.accepted >= before.accepted && now.closed >= before.closed);
            assert!(now.bytes_in >= 3 * now.closed && now.bytes_out >= 5 * now.closed);
            before = now;
        }
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!((before.active, before.bytes_in), (0, 6 * CONNECTIONS));
    }
}
