//! Clients that are refused, as log lines with throttles tell it.

use std::{fmt, net::SocketAddr, time::Instant};

use tracing::{Level, field};

use super::{client_limits::LimitRefusal, listener::WorkerListener};
use crate::dataplane::{
    account::{HeaderRefusal, ListenerThrottles, LogThrottle, increment},
    spec::Transport,
};

/// Reason why a client is refused.
#[derive(Clone, Copy)]
pub(in crate::dataplane) enum RefusalReason<'a> {
    /// The listener has reached its connection limit.
    ConnectionLimit,
    /// A limit of single clients, or a rate.
    ClientLimit(LimitRefusal),
    /// The share of its network is used up.
    Share,
    /// The listener does not allow its address.
    Cidr,
    /// It is this node itself.
    Loop,
    /// It comes through as many load balancers as a datagram may pass.
    Hops,
    /// It is a trusted proxy that has sent no valid header.
    Header(HeaderRefusal),
    /// No backend had a place for it.
    BackendsFull,
    /// It has waited too long for one.
    QueueTimeout,
    /// No backend takes it.
    NoBackend,
    /// The node lacks something.
    Exhausted(&'a dyn fmt::Display),
}

impl RefusalReason<'_> {
    fn text(self) -> &'static str {
        match self {
            Self::ConnectionLimit => "the listener has reached its connection limit",
            Self::ClientLimit(LimitRefusal::ClientConnections) => {
                "the client has as many connections as client_connection_limit allows"
            }
            Self::ClientLimit(LimitRefusal::ClientRate) => {
                "the client connects more often than client_connection_rate allows"
            }
            Self::ClientLimit(LimitRefusal::Rate) => "clients connect more often than connection_rate allows",
            Self::Share => "its network has used up its share of this node's connections",
            Self::Cidr => "its address is not among those that the listener allows",
            Self::Loop => "it is this node itself, since a backend leads back to the listener",
            Self::Hops => "it has no hop left, since load balancers lead to each other in a circle",
            Self::Header(_) => {
                "it is a trusted proxy, and has not begun with a valid header of PROXY protocol"
            }
            Self::BackendsFull => "all backends are at their connection limits, and no queue has room for it",
            Self::QueueTimeout => "no backend had a place for it within the queue timeout",
            Self::NoBackend => "no backend takes it",
            Self::Exhausted(_) => {
                "this node cannot make another connection to its backends, for want of something of its own"
            }
        }
    }

    fn level(self) -> Level {
        match self {
            Self::Share | Self::Loop | Self::Hops => Level::WARN,
            Self::Exhausted(_) => Level::ERROR,
            _ => Level::INFO,
        }
    }

    fn throttle(self, throttles: &ListenerThrottles) -> &LogThrottle {
        match self {
            Self::ConnectionLimit => &throttles.limit,
            Self::ClientLimit(LimitRefusal::ClientConnections) => &throttles.client_limit,
            Self::ClientLimit(LimitRefusal::ClientRate) => &throttles.client_rate,
            Self::ClientLimit(LimitRefusal::Rate) => &throttles.rate,
            Self::Share => &throttles.share,
            Self::Cidr => &throttles.cidr,
            Self::Loop | Self::Hops => &throttles.looped,
            Self::Header(_) => &throttles.header,
            Self::BackendsFull | Self::QueueTimeout => &throttles.full,
            Self::NoBackend => &throttles.no_backend,
            Self::Exhausted(_) => &throttles.exhausted,
        }
    }

    fn header(&self) -> Option<&'static str> {
        if let Self::Header(refusal) = self { Some(refusal.as_str()) } else { None }
    }

    fn error(&self) -> Option<&dyn fmt::Display> {
        if let Self::Exhausted(error) = self { Some(*error) } else { None }
    }
}

/// Tells that a client is refused, unless that was told a moment ago.
pub(in crate::dataplane) fn log_refusal(
    listener: &WorkerListener,
    client: SocketAddr,
    reason: RefusalReason<'_>,
) {
    let Some(suppressed) = reason.throttle(&listener.throttles).admit(Instant::now()) else { return };
    let (id, name, text) = (listener.shared.id, &listener.shared.name, reason.text());
    let (reason_of_header, error) = (reason.header(), reason.error().map(field::display));
    let what = match listener.shared.protocol.transport() {
        Transport::Tcp => "client reset",
        Transport::Udp => "datagram dropped",
    };
    macro_rules! tell {
        ($level:ident) => {
            tracing::$level!(
                listener = %id, name, %client, reason = reason_of_header, error, suppressed, "{what}: {text}"
            )
        };
    }
    match reason.level() {
        Level::ERROR => tell!(error),
        Level::WARN => tell!(warn),
        _ => tell!(info),
    }
}

/// Counts and tells that a client is refused by a limit of single clients, or a rate.
pub(in crate::dataplane) fn record_limit(
    listener: &WorkerListener,
    client: SocketAddr,
    refusal: LimitRefusal,
) {
    let counters = &listener.shared.counters;
    increment(match refusal {
        LimitRefusal::ClientConnections => &counters.refused_by_client_limit,
        LimitRefusal::ClientRate => &counters.refused_by_client_rate,
        LimitRefusal::Rate => &counters.refused_by_rate,
    });
    log_refusal(listener, client, RefusalReason::ClientLimit(refusal));
}
