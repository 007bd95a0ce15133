//! Clients that are refused by the limits of single clients and of rates: counted, and told in log lines with throttles.

use std::{net::SocketAddr, time::Instant};

use super::{client_limits::LimitRefusal, listener::WorkerListener};
use crate::dataplane::{account::increment, spec::Transport};

impl LimitRefusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::ClientConnections => "the client has as many connections as client_connection_limit allows",
            Self::ClientRate => "the client connects more often than client_connection_rate allows",
            Self::Rate => "clients connect more often than connection_rate allows",
        }
    }
}

/// Counts and tells that a client is refused.
pub(in crate::dataplane) fn record_limit(
    listener: &WorkerListener,
    client: SocketAddr,
    refusal: LimitRefusal,
) {
    let (counters, throttles) = (&listener.shared.counters, &listener.throttles);
    let (counter, throttle) = match refusal {
        LimitRefusal::ClientConnections => (&counters.refused_by_client_limit, &throttles.client_limit),
        LimitRefusal::ClientRate => (&counters.refused_by_client_rate, &throttles.client_rate),
        LimitRefusal::Rate => (&counters.refused_by_rate, &throttles.rate),
    };
    increment(counter);
    let Some(suppressed) = throttle.admit(Instant::now()) else { return };
    let (id, name, reason) = (listener.shared.id, &listener.shared.name, refusal.as_str());
    let what = match listener.shared.protocol.transport() {
        Transport::Tcp => "client reset",
        Transport::Udp => "datagram dropped",
    };
    tracing::info!(listener = %id, name, %client, suppressed, "{what}: {reason}");
}
