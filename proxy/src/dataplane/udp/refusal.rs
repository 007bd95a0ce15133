//! Clients that get no session, and backends that fail: counted, and told in log lines with throttles.

use std::{fmt, io, net::SocketAddr, time::Instant};

use uuid::Uuid;

use super::upstream::UpstreamError;
use crate::{
    dataplane::{
        account::{SessionAccount, increment},
        listen::{self, ClientRefusal, LimitRefusal, WorkerListener, record_limit},
        record::EndReason,
    },
    shortage::NodeResource,
};

/// Reason why a client gets no session.
#[derive(Debug)]
pub(super) enum SessionRefusal {
    /// The listener has reached its limit.
    Limit,
    /// It comes from a node, through as many load balancers as a datagram may pass.
    Hops,
    /// As for a connection.
    Client(ClientRefusal),
    /// By the limits of its client, or the rate of all.
    ClientLimit(LimitRefusal),
    /// There is no backend for it.
    Connect(UpstreamError),
}

impl SessionRefusal {
    /// Counts and tells it. Returns the reason that its record has.
    pub(super) fn record(
        &self,
        listener: &WorkerListener,
        client: SocketAddr,
        account: &SessionAccount,
    ) -> EndReason {
        let connection = account.connection();
        match self {
            Self::Limit => {
                connection.count_limit();
                log_limit(listener);
                EndReason::ConnectionLimit
            }
            Self::Client(ClientRefusal::Share) => {
                connection.count_share();
                log_share(listener);
                EndReason::Share
            }
            Self::Client(ClientRefusal::Cidr) => {
                connection.count_cidr();
                log_cidr(listener, client);
                EndReason::AllowedCidrs
            }
            Self::Client(ClientRefusal::Loop) => {
                connection.count_loop();
                log_loop(listener, client);
                EndReason::Loop
            }
            Self::ClientLimit(refusal) => {
                record_limit(listener, client, *refusal);
                (*refusal).into()
            }
            Self::Hops => {
                connection.count_loop();
                log_hops(listener, client);
                EndReason::Loop
            }
            Self::Connect(UpstreamError::NoBackend | UpstreamError::Unreachable) => {
                connection.count_no_backend();
                log_no_backend(listener);
                EndReason::NoBackend
            }
            Self::Connect(UpstreamError::Full) => {
                increment(&listener.shared.counters.refused_by_backend_limit);
                log_full(listener);
                EndReason::BackendsFull
            }
            Self::Connect(UpstreamError::Exhausted(error)) => {
                connection.count_exhausted();
                log_exhausted(listener, error);
                EndReason::NodeExhausted
            }
            Self::Connect(UpstreamError::Paused) => {
                connection.count_exhausted();
                log_exhausted(listener, &"it is tried again in a moment");
                EndReason::NodeExhausted
            }
        }
    }
}

/// Records that a backend has failed a session.
pub(super) fn record_failure(
    listener: &WorkerListener,
    backend: Uuid,
    address: SocketAddr,
    error: &io::Error,
) {
    increment(&listener.shared.counters.connect_failures);
    listen::record_failure(listener, backend, address, error);
    let Some(suppressed) = listener.throttles.connect.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %backend, %address, %error, suppressed,
        "backend does not take datagrams; moving the session to the next one"
    );
}

/// Records that datagrams of clients cannot be received for a while.
pub(super) fn record_receiving(listener: &WorkerListener, error: &io::Error) {
    if let Some(resource) = NodeResource::of_error(error) {
        listener.shared.shortages.record(resource);
    }
    let Some(suppressed) = listener.throttles.exhausted.admit(Instant::now()) else { return };
    tracing::error!(
        listener = %listener.shared.id, name = listener.shared.name, %error, suppressed,
        "receiving datagrams is paused"
    );
}

fn log_limit(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.limit.admit(Instant::now()) else { return };
    let limit = listener.shared.limits.connections;
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, limit, suppressed,
        "datagram dropped: the listener has reached its connection limit"
    );
}

fn log_share(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.share.admit(Instant::now()) else { return };
    tracing::warn!(
        listener = %listener.shared.id, name = listener.shared.name, suppressed,
        "datagram dropped: its network has used up its share of this node's connections"
    );
}

fn log_cidr(listener: &WorkerListener, client: SocketAddr) {
    let Some(suppressed) = listener.throttles.cidr.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %client, suppressed,
        "datagram dropped: its client's address is not among those that the listener allows"
    );
}

fn log_loop(listener: &WorkerListener, client: SocketAddr) {
    let Some(suppressed) = listener.throttles.looped.admit(Instant::now()) else { return };
    tracing::warn!(
        listener = %listener.shared.id, name = listener.shared.name, %client, suppressed,
        "datagram dropped: it comes from this node itself, since a backend leads back to the listener"
    );
}

fn log_hops(listener: &WorkerListener, client: SocketAddr) {
    let Some(suppressed) = listener.throttles.looped.admit(Instant::now()) else { return };
    tracing::warn!(
        listener = %listener.shared.id, name = listener.shared.name, %client, suppressed,
        "datagram dropped: it has no hop left, since load balancers lead to each other in a circle"
    );
}

/// Tells that datagrams are dropped because of the bandwidth limit.
pub(super) fn log_bandwidth(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.bandwidth.admit(Instant::now()) else { return };
    let limit = listener.shared.limits.bandwidth;
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, limit, suppressed,
        "datagrams dropped: the listener has reached its bandwidth limit"
    );
}

fn log_full(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.full.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, suppressed,
        "datagram dropped: all backends are at their connection limits"
    );
}

fn log_no_backend(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.no_backend.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, suppressed,
        "datagram dropped: the listener has no backend for it"
    );
}

fn log_exhausted(listener: &WorkerListener, error: &dyn fmt::Display) {
    let Some(suppressed) = listener.throttles.exhausted.admit(Instant::now()) else { return };
    tracing::error!(
        listener = %listener.shared.id, name = listener.shared.name, %error, suppressed,
        "datagram dropped: this node cannot make another socket towards its backends, for want of something of its own"
    );
}
