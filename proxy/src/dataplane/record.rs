//! Records of single connections, for the access log. A session of UDP is one, too.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use uuid::Uuid;

/// Receives the records of all connections, as they end or are refused.
pub trait ConnectionLog: Send + Sync {
    /// Place for the connections of a listener.
    fn listener(&self, labels: &RecordLabels) -> Arc<dyn ListenerSink>;

    /// Told after each configuration, when the places of its listeners are made and those of others are gone.
    fn settle(&self) {}
}

/// Place for the connections of one listener, on the threads of the workers.
pub trait ListenerSink: Send + Sync {
    /// Takes a connection. `record` makes its record, which is worth nothing to most: it is only called for those that are
    /// logged. Must not wait for IO.
    fn ended(&self, record: &dyn Fn() -> ConnectionRecord);
}

/// Log that takes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl ConnectionLog for NoLog {
    fn listener(&self, _: &RecordLabels) -> Arc<dyn ListenerSink> {
        Arc::new(Self)
    }
}

impl ListenerSink for NoLog {
    fn ended(&self, _: &dyn Fn() -> ConnectionRecord) {}
}

/// Owner of a listener's connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordLabels {
    /// The listener.
    pub listener: Uuid,
    /// Its load balancer.
    pub load_balancer: Uuid,
    /// Its project; empty: unknown.
    pub project: String,
}

/// Connection that has ended, or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Owner.
    pub labels: Arc<RecordLabels>,
    /// Time at which the client was accepted.
    pub started: SystemTime,
    /// From then to the end.
    pub duration: Duration,
    /// The client: the one that a trusted proxy has stated, if one has.
    pub client: SocketAddr,
    /// Address of that proxy.
    pub proxy: Option<SocketAddr>,
    /// Pool that was selected for it.
    pub pool: Option<Uuid>,
    /// Backend that has accepted it.
    pub backend: Option<ReachedBackend>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Reason of its end or refusal.
    pub reason: EndReason,
}

/// Backend of a connection, and how it came to be that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedBackend {
    /// FiberLB's id.
    pub id: Uuid,
    /// Its address.
    pub address: SocketAddr,
    /// Reason of its selection.
    pub selected: SelectedBy,
    /// Backends that were tried, this one included.
    pub tries: u8,
    /// From the acceptance of the client to that of the backend.
    pub connected_after: Duration,
}

/// Reason why a backend was selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectedBy {
    /// The client was there before, and the pool's persistence remembers it.
    Persistence,
    /// The turn of its weight.
    RoundRobin,
    /// It had the fewest connections.
    LeastConnections,
    /// The hash of the client's address.
    SourceIp,
    /// The hash of the client's address and port.
    SourceIpPort,
    /// Drawn by weight.
    Random,
    /// Drawn by weight, and the one of two with fewer connections.
    PowerOfTwoChoices,
}

impl SelectedBy {
    /// Its word in the access log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Persistence => "persistence",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::SourceIp => "source_ip",
            Self::SourceIpPort => "source_ip_port",
            Self::Random => "random",
            Self::PowerOfTwoChoices => "power_of_two_choices",
        }
    }
}

/// Reason why a connection ended, or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Both sides have closed it.
    Closed,
    /// The client has reset it, maybe before a backend was reached, or takes no more.
    ClientReset,
    /// The backend has reset it, or takes no more.
    BackendReset,
    /// Idle timeout; the usual end of a session of UDP.
    TimedOut,
    /// Idle timeout of a connection of which one side has closed its half.
    HalfClosed,
    /// Its backend is gone, and the drain timeout of its pool is over.
    BackendGone,
    /// Its listener is gone and the drain deadline over (a session's: at once), its network leaves the node, or the node's
    /// process ends.
    Cut,
    /// Refused: the listener has reached its connection limit.
    ConnectionLimit,
    /// Refused: its client has as many connections as one client may have.
    ClientLimit,
    /// Refused: its client connects too often.
    ClientRate,
    /// Refused: all clients together connect too often.
    ConnectionRate,
    /// Refused: its network has used up its share of the node's connections.
    Share,
    /// Refused: it comes from this node's own address, or has passed too many load balancers.
    Loop,
    /// Refused: the listener does not allow its client.
    AllowedCidrs,
    /// Refused: a trusted proxy has not begun with a valid header of PROXY protocol.
    ProxyHeader,
    /// Refused: all backends are at their limits, and the queue, if there is one, is full.
    BackendsFull,
    /// Refused: it has waited too long for a place at a backend.
    QueueTimeout,
    /// Refused: no backend has accepted it.
    NoBackend,
    /// Refused: the node is short of sockets or memory.
    NodeExhausted,
}

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Closed,
        Self::ClientReset,
        Self::BackendReset,
        Self::TimedOut,
        Self::HalfClosed,
        Self::BackendGone,
        Self::Cut,
        Self::ConnectionLimit,
        Self::ClientLimit,
        Self::ClientRate,
        Self::ConnectionRate,
        Self::Share,
        Self::Loop,
        Self::AllowedCidrs,
        Self::ProxyHeader,
        Self::BackendsFull,
        Self::QueueTimeout,
        Self::NoBackend,
        Self::NodeExhausted,
    ];

    /// Its word in logs and statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ClientReset => "client_reset",
            Self::BackendReset => "backend_reset",
            Self::TimedOut => "timed_out",
            Self::HalfClosed => "half_closed",
            Self::BackendGone => "backend_gone",
            Self::Cut => "cut",
            Self::ConnectionLimit => "connection_limit",
            Self::ClientLimit => "client_limit",
            Self::ClientRate => "client_rate",
            Self::ConnectionRate => "connection_rate",
            Self::Share => "network_share",
            Self::Loop => "loop",
            Self::AllowedCidrs => "allowed_cidrs",
            Self::ProxyHeader => "proxy_header",
            Self::BackendsFull => "backends_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NoBackend => "no_backend",
            Self::NodeExhausted => "node_exhausted",
        }
    }

    /// Its meaning, for `docs/`.
    #[cfg(test)]
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Closed => "both sides have closed it",
            Self::ClientReset => {
                "the client has reset it, maybe before a backend was reached, or took no more"
            }
            Self::BackendReset => "the backend has reset it, or took no more",
            Self::TimedOut => "nothing has moved for a data timeout; the usual end of a session of UDP",
            Self::HalfClosed => {
                "one side had closed its half, and nothing has moved for the `half_close_timeout`, or 300 s"
            }
            Self::BackendGone => "its backend is gone, and the `drain_timeout` of its pool over",
            Self::Cut => {
                "cut by the node: its listener is gone and the drain deadline over, its network has left the node, or the node's process ends; a session of UDP whose listener is gone"
            }
            Self::ConnectionLimit => "refused: the listener has reached its connection limit",
            Self::ClientLimit => "refused: its client has reached the `client_connection_limit`",
            Self::ClientRate => {
                "refused: its client connects more often than `client_connection_rate` allows"
            }
            Self::ConnectionRate => "refused: clients connect more often than `connection_rate` allows",
            Self::Share => "refused: its network has used up its share of the node's connections",
            Self::Loop => "refused: backends lead in a circle, back to the node",
            Self::AllowedCidrs => "refused: the listener does not allow its client",
            Self::ProxyHeader => {
                "refused: a trusted proxy has not begun with a valid header of PROXY protocol"
            }
            Self::NoBackend => {
                "refused: no backend has accepted it, or, of a session of UDP, none takes it any more"
            }
            Self::BackendsFull => {
                "refused: all backends are at their `connection_limit`, and the queue, if there is one, is full"
            }
            Self::QueueTimeout => "refused: it has waited for a backend for the `queue_timeout`",
            Self::NodeExhausted => "refused: the node was short of sockets or memory",
        }
    }
}

/// Reason why an attempt to connect to a backend failed, or why a session of UDP left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The backend refused it.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// No way leads to it.
    Unreachable,
    /// Any other.
    Other,
}

impl ConnectFailure {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Refused, Self::TimedOut, Self::Unreachable, Self::Other];

    /// The reason that an error of a socket states.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// Its word in statistics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "connect_refused",
            Self::TimedOut => "connect_timed_out",
            Self::Unreachable => "connect_unreachable",
            Self::Other => "connect_failed",
        }
    }

    /// Its meaning, for `docs/`.
    #[cfg(test)]
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Refused => "the backend has refused it, or reset it at once; of UDP: nobody listens there",
            Self::TimedOut => "the backend has not answered in time",
            Self::Unreachable => {
                "no route leads to it, it answers no ARP or ND, or somebody on the way forbids it"
            }
            Self::Other => "any other error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_reasons_share_a_word() {
        let ends = EndReason::ALL.map(EndReason::as_str);
        let failures = ConnectFailure::ALL.map(ConnectFailure::as_str);
        let mut words: Vec<&str> = ends.into_iter().chain(failures).collect();
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]), "{words:?}");
    }

    #[test]
    fn failures_are_told_apart_by_their_errors() {
        use io::ErrorKind as Kind;
        let of = |kind: Kind| ConnectFailure::of(&kind.into()).as_str();
        let kinds = [Kind::ConnectionRefused, Kind::TimedOut, Kind::HostUnreachable, Kind::BrokenPipe];
        let words = ["connect_refused", "connect_timed_out", "connect_unreachable", "connect_failed"];
        assert_eq!(kinds.map(of), words);
    }
}
