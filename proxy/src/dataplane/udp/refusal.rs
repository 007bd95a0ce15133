//! Clients that get no session, and backends that fail: counted, and told in log lines with throttles.

use std::{io, net::SocketAddr, rc::Rc, time::Instant};

use uuid::Uuid;

use super::upstream::UpstreamError;
use crate::{
    dataplane::{
        account::{SessionAccount, increment},
        listen::{
            self, ClientRefusal, LimitRefusal, RefusalReason, WorkerListener, log_refusal, record_limit,
        },
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
                log_refusal(listener, client, RefusalReason::ConnectionLimit);
                EndReason::ConnectionLimit
            }
            Self::Client(ClientRefusal::Share) => {
                connection.count_share();
                log_refusal(listener, client, RefusalReason::Share);
                EndReason::Share
            }
            Self::Client(ClientRefusal::Cidr) => {
                connection.count_cidr();
                log_refusal(listener, client, RefusalReason::Cidr);
                EndReason::AllowedCidrs
            }
            Self::Client(ClientRefusal::Loop) => {
                connection.count_loop();
                log_refusal(listener, client, RefusalReason::Loop);
                EndReason::Loop
            }
            Self::ClientLimit(refusal) => {
                record_limit(listener, client, *refusal);
                (*refusal).into()
            }
            Self::Hops => {
                connection.count_loop();
                log_refusal(listener, client, RefusalReason::Hops);
                EndReason::Loop
            }
            Self::Connect(UpstreamError::NoBackend | UpstreamError::Unreachable) => {
                connection.count_no_backend();
                log_refusal(listener, client, RefusalReason::NoBackend);
                EndReason::NoBackend
            }
            Self::Connect(UpstreamError::Full) => {
                increment(&listener.shared.counters.refused_by_backend_limit);
                log_refusal(listener, client, RefusalReason::BackendsFull);
                EndReason::BackendsFull
            }
            Self::Connect(UpstreamError::Exhausted(error)) => {
                connection.count_exhausted();
                log_refusal(listener, client, RefusalReason::Exhausted(error));
                EndReason::NodeExhausted
            }
            Self::Connect(UpstreamError::Paused) => {
                connection.count_exhausted();
                log_refusal(listener, client, RefusalReason::Exhausted(&"retrying in a moment"));
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
    let pool = listener.pools.pool_with(backend).map(Rc::as_ref);
    listen::record_failure(listener, pool, backend, address, error);
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

/// Tells that datagrams are dropped because of the bandwidth limit.
pub(super) fn log_bandwidth(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.bandwidth.admit(Instant::now()) else { return };
    let limit = listener.shared.limits.bandwidth;
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, limit, suppressed,
        "datagrams dropped: the listener has reached its bandwidth limit"
    );
}
