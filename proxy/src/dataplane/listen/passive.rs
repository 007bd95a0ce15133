//! Connections as passive health checks see them: what they lead to is counted, and told in log lines with throttles.

use std::{io, net::SocketAddr, time::Instant};

use uuid::Uuid;

use super::listener::WorkerListener;
use crate::dataplane::{
    account::increment,
    balance::{BackendState, FailureEffect, WorkerPool},
};

/// Records that a backend of `pool` has failed a connection, unless that says nothing about it. What the node itself is
/// short of never comes here.
pub(in crate::dataplane) fn record_failure(
    listener: &WorkerListener,
    pool: Option<&WorkerPool>,
    backend: Uuid,
    address: SocketAddr,
    error: &io::Error,
) {
    let shared = &listener.shared;
    let Some(pool) = pool else { return };
    if !tells_of_backend(error.kind(), shared.ports.is_range(), shared.shortages.are_neighbours_full()) {
        return;
    }
    let now = Instant::now();
    match pool.record_failure(backend, error, now) {
        FailureEffect::Counted => {}
        FailureEffect::Ejected { number, duration } => {
            increment(&shared.counters.ejections);
            let Some(suppressed) = listener.throttles.ejected.admit(now) else { return };
            tracing::warn!(
                listener = %shared.id, name = shared.name, %backend, %address, %error, in_a_row = number,
                seconds = duration.as_secs_f64(), suppressed,
                "backend left out for some time: connections to it fail one after the other"
            );
        }
        FailureEffect::Withheld => {
            increment(&shared.counters.ejections_withheld);
            let Some(suppressed) = listener.throttles.withheld.admit(now) else { return };
            tracing::warn!(
                listener = %shared.id, name = shared.name, %backend, %address, %error, suppressed,
                "backend not left out, though connections to it fail one after the other: as many of its pool are out as \
                 may be"
            );
        }
    }
}

/// True if a failure tells of the backend. It does not if the node, or a router, has no route, which fails at once and for
/// all behind it; and nothing but the backend's own word does while the node's neighbour tables overflow. A refusal at one port of
/// a range tells of that port: nobody listens there now, as between two transfers of passive FTP.
fn tells_of_backend(error: io::ErrorKind, is_range: bool, are_neighbours_full: bool) -> bool {
    match error {
        io::ErrorKind::ConnectionRefused => !is_range,
        io::ErrorKind::ConnectionReset => true,
        io::ErrorKind::NetworkUnreachable => false,
        _ => !are_neighbours_full,
    }
}

/// Records that a backend has accepted a connection, or answered a session.
pub(in crate::dataplane) fn record_success(listener: &WorkerListener, backend: Uuid, state: &BackendState) {
    if !state.is_watched() {
        return;
    }
    let now = Instant::now();
    if !state.succeed(now) {
        return;
    }
    let Some(suppressed) = listener.throttles.back.admit(now) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %backend, suppressed,
        "backend accepts connections again after it was left out"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_lacks_tells_of_no_backend() {
        use io::ErrorKind as Kind;
        for (error, tells) in [
            (Kind::ConnectionReset, [true, true]),
            (Kind::ConnectionRefused, [true, true]),
            (Kind::ConnectionReset, [true, true]),
            (Kind::TimedOut, [true, false]),
            (Kind::HostUnreachable, [true, false]),
            (Kind::NetworkUnreachable, [false, false]),
        ] {
            assert_eq!([false, true].map(|full| tells_of_backend(error, false, full)), tells, "{error}");
            let of_range = [false, true].map(|full| tells_of_backend(error, true, full));
            assert_eq!(
                of_range,
                if error == Kind::ConnectionRefused { [false; 2] } else { tells },
                "{error}"
            );
        }
    }
}
