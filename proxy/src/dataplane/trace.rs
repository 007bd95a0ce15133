//! Trace of single connections, and sessions of UDP, for operators and tenants: what is kept of one while it lasts, a record
//! for the access log at its end, and a span and a line at debug level, which cost nothing while the log's filter does
//! not ask for them.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use tracing::{Level, Span, field};
use uuid::Uuid;

use crate::dataplane::{
    listen::{LimitRefusal, ListenerLog, WorkerListener},
    record::{ConnectionRecord, EndReason, ReachedBackend},
};

/// Target of the span and its line, for the log's filter.
const TARGET: &str = "fiberlb_proxy::connection";

impl From<LimitRefusal> for EndReason {
    fn from(refusal: LimitRefusal) -> Self {
        match refusal {
            LimitRefusal::ClientConnections => Self::ClientLimit,
            LimitRefusal::ClientRate => Self::ClientRate,
            LimitRefusal::Rate => Self::ConnectionRate,
        }
    }
}

/// Trace of one connection. Its record and its line are written when it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionTrace {
    log: Arc<ListenerLog>,
    peer: SocketAddr,
    /// Client that the peer has stated.
    stated: RefCell<Option<Box<SocketAddr>>>,
    started: Instant,
    pool: Cell<Option<Uuid>>,
    backend: Cell<Option<ReachedBackend>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    reason: Cell<EndReason>,
    /// None while the log's filter does not ask for it.
    span: Option<Box<Span>>,
}

impl ConnectionTrace {
    /// Trace of an accepted client.
    pub(in crate::dataplane) fn start(listener: &WorkerListener, peer: SocketAddr) -> Self {
        Self {
            log: Arc::clone(&listener.shared.log),
            peer,
            stated: RefCell::new(None),
            started: Instant::now(),
            pool: Cell::new(None),
            backend: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            reason: Cell::new(EndReason::Cut),
            span: span(listener, peer),
        }
    }

    /// The peer.
    pub(in crate::dataplane) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Time at which the client was accepted.
    pub(in crate::dataplane) fn started(&self) -> Instant {
        self.started
    }

    /// The span, in which the connection is served; None while the log's filter does not ask for it.
    pub(in crate::dataplane) fn span(&self) -> Option<Span> {
        self.span.as_deref().cloned()
    }

    /// Records the pool that was selected for it.
    pub(in crate::dataplane) fn set_pool(&self, pool: Uuid) {
        self.pool.set(Some(pool));
        self.record("pool", || pool);
    }

    /// Records the backend that has accepted it.
    pub(in crate::dataplane) fn set_backend(&self, backend: ReachedBackend) {
        self.backend.set(Some(backend));
        self.record("backend", || backend.id);
    }

    /// Records the client that a trusted proxy has stated; the peer is the proxy then.
    pub(in crate::dataplane) fn set_stated_client(&self, client: SocketAddr) {
        self.stated.replace(Some(Box::new(client)));
        self.record("stated_client", || client);
    }

    /// Records the connection's id in PROXY protocol.
    pub(super) fn set_unique_id(&self, id: &[u8]) {
        self.record("unique_id", || id.escape_ascii());
    }

    fn record<T: std::fmt::Display>(&self, name: &'static str, value: impl FnOnce() -> T) {
        if let Some(span) = &self.span {
            span.record(name, field::display(value()));
        }
    }

    /// Adds bytes from the client (`bytes_in`) and to it.
    pub(in crate::dataplane) fn add_bytes(&self, bytes_in: usize, bytes_out: usize) {
        self.bytes_in.set(self.bytes_in.get().saturating_add(bytes_in as u64));
        self.bytes_out.set(self.bytes_out.get().saturating_add(bytes_out as u64));
    }

    /// Records why it ended, or is refused.
    pub(in crate::dataplane) fn set_reason(&self, reason: EndReason) {
        self.reason.set(reason);
    }

    fn to_record(&self) -> ConnectionRecord {
        let duration = self.started.elapsed();
        let stated = self.stated.borrow().as_deref().copied();
        ConnectionRecord {
            labels: Arc::clone(&self.log.labels),
            started: SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH),
            duration,
            client: stated.unwrap_or(self.peer),
            proxy: stated.map(|_| self.peer),
            pool: self.pool.get(),
            backend: self.backend.get(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
            reason: self.reason.get(),
        }
    }
}

fn span(listener: &WorkerListener, client: SocketAddr) -> Option<Box<Span>> {
    if !tracing::span_enabled!(target: TARGET, Level::DEBUG) {
        return None;
    }
    Some(Box::new(tracing::debug_span!(
        target: TARGET,
        "connection",
        listener = %listener.shared.id,
        pool = field::Empty,
        backend = field::Empty,
        %client,
        stated_client = field::Empty,
        unique_id = field::Empty,
    )))
}

impl Drop for ConnectionTrace {
    fn drop(&mut self) {
        self.log.sink.ended(&|| self.to_record());
        let Some(span) = &self.span else { return };
        tracing::debug!(
            target: TARGET,
            parent: &**span,
            outcome = self.reason.get().as_str(),
            bytes_in = self.bytes_in.get(),
            bytes_out = self.bytes_out.get(),
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connection ended"
        );
    }
}
