//! Trace of single connections, and sessions of UDP, for operators: a span and a line at its end, at debug level. Nothing of it is
//! computed, and no memory taken, while the log's filter does not ask for it.

use std::{cell::Cell, net::SocketAddr, time::Instant};

use tracing::{Level, Span, field};
use uuid::Uuid;

use crate::dataplane::listen::WorkerListener;

/// Target of the span and its line, for the log's filter.
const TARGET: &str = "fiberlb_proxy::connection";

/// End of a connection, as its line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum TraceOutcome {
    /// Cut by the node: its listener is gone and the drain deadline is over (a session's: at once), or the process
    /// ends.
    Cut,
    /// Cut by the node: its backend is gone, and the drain timeout of its pool is over.
    BackendGone,
    /// Both sides have closed it.
    Closed,
    /// One side has reset it, the client maybe before a backend was reached.
    Reset,
    /// Reset after an idle timeout; the end of a session that nobody uses.
    TimedOut,
    /// Refused: the listener has reached its limit.
    ConnectionLimit,
    /// Refused: its network has used up its share of the node's connections.
    Share,
    /// Refused: it comes from this node's own address.
    Loop,
    /// Refused: the listener does not admit its address.
    Cidr,
    /// Refused: a trusted proxy has not begun with a valid header of PROXY protocol.
    Header,
    /// Refused: no backend has accepted it.
    NoBackend,
    /// Refused: the node is short of sockets or memory.
    Exhausted,
}

impl TraceOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::BackendGone => "backend gone",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::TimedOut => "timed out",
            Self::ConnectionLimit => "connection limit",
            Self::Share => "network's share",
            Self::Loop => "loop",
            Self::Cidr => "allowed CIDRs",
            Self::Header => "PROXY header",
            Self::NoBackend => "no backend",
            Self::Exhausted => "node exhausted",
        }
    }
}

/// Trace of one connection. Its line is written when it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionTrace {
    span: Span,
    started: Instant,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    outcome: Cell<TraceOutcome>,
}

impl ConnectionTrace {
    /// Trace of an accepted client; None while connections are not traced.
    pub(in crate::dataplane) fn start(listener: &WorkerListener, client: SocketAddr) -> Option<Box<Self>> {
        if !tracing::span_enabled!(target: TARGET, Level::DEBUG) {
            return None;
        }
        let span = tracing::debug_span!(
            target: TARGET,
            "connection",
            listener = %listener.shared.id,
            pool = listener.pool.as_ref().map(|pool| field::display(pool.id())),
            backend = field::Empty,
            %client,
            stated_client = field::Empty,
            unique_id = field::Empty,
        );
        let outcome = Cell::new(TraceOutcome::Cut);
        let (bytes_in, bytes_out) = (Cell::new(0), Cell::new(0));
        Some(Box::new(Self { span, started: Instant::now(), bytes_in, bytes_out, outcome }))
    }

    /// The span, in which the connection is served.
    pub(in crate::dataplane) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records the backend that has accepted the connection.
    pub(in crate::dataplane) fn set_backend(&self, backend: Uuid) {
        self.span.record("backend", field::display(backend));
    }

    /// Records the client that a trusted proxy has stated; `client` is the proxy then.
    pub(in crate::dataplane) fn set_stated_client(&self, client: SocketAddr) {
        self.span.record("stated_client", field::display(client));
    }

    /// Records the connection's id in PROXY protocol.
    pub(super) fn set_unique_id(&self, id: &[u8]) {
        self.span.record("unique_id", field::display(id.escape_ascii()));
    }

    /// Adds bytes from the client (`bytes_in`) and to it.
    pub(in crate::dataplane) fn add_bytes(&self, bytes_in: usize, bytes_out: usize) {
        self.bytes_in.set(self.bytes_in.get().saturating_add(bytes_in as u64));
        self.bytes_out.set(self.bytes_out.get().saturating_add(bytes_out as u64));
    }

    /// Records how it ended.
    pub(in crate::dataplane) fn set_outcome(&self, outcome: TraceOutcome) {
        self.outcome.set(outcome);
    }
}

impl Drop for ConnectionTrace {
    fn drop(&mut self) {
        tracing::debug!(
            target: TARGET,
            parent: &self.span,
            outcome = self.outcome.get().as_str(),
            bytes_in = self.bytes_in.get(),
            bytes_out = self.bytes_out.get(),
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connection ended"
        );
    }
}
