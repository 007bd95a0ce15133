//! Configuration of the data plane: one immutable value, applied as a whole.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnetwork::IpNetwork;
use uuid::Uuid;

use crate::{proxy_protocol, sockets::SocketFactory};

/// Everything that the data plane serves.
#[derive(Clone, Default)]
pub struct DataplaneSpec {
    /// Socket factories by network. Another factory under the same id means that the namespace was made anew:
    /// the network's listening sockets are then made anew too.
    pub networks: HashMap<Uuid, Arc<dyn SocketFactory>>,
    /// Networks that leave the node once this configuration is applied, none of them among `networks`. Connections of their
    /// listeners are reset at once, while packets still go out.
    pub leaving: HashSet<Uuid>,
    /// Addresses of the nodes on each network. Connections that come from them are bounded more narrowly than
    /// those of clients. A network that is not there has none.
    pub nodes: HashMap<Uuid, NodeAddresses>,
    /// The listeners. Ids are unique; of two listeners on one endpoint the first wins and the second is
    /// refused.
    pub listeners: Vec<ListenerSpec>,
    /// The pools that listeners refer to. Several listeners may share one.
    pub pools: Vec<PoolSpec>,
    /// Drain deadline: time after which the connections of a removed listener are reset. Zero: at once.
    pub drain_timeout: Duration,
}

impl fmt::Debug for DataplaneSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DataplaneSpec")
            .field("networks", &self.networks.keys())
            .field("leaving", &self.leaving)
            .field("nodes", &self.nodes)
            .field("listeners", &self.listeners)
            .field("pools", &self.pools)
            .field("drain_timeout", &self.drain_timeout)
            .finish()
    }
}

/// Addresses of proxy nodes on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// This node's own. A connection from one to itself comes back from where it was made, and is reset.
    pub own: HashSet<IpAddr>,
    /// All from which connections of nodes come: those of this node and of the others, and VIPs, one of which a
    /// node has for its source if its connection comes back to itself.
    pub all: HashSet<IpAddr>,
}

/// A listener: addresses that clients connect to, and the pool that serves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// FiberLB's id.
    pub id: Uuid,
    /// Name in logs.
    pub name: String,
    /// Its load balancer, for the access log.
    pub load_balancer: Uuid,
    /// Its project, for the access log.
    pub project: String,
    /// The network, a key of [`DataplaneSpec::networks`].
    pub network: Uuid,
    /// Protocol in which clients are served.
    pub protocol: Protocol,
    /// Addresses to listen on: the node's own, or VIPs. An address need not be on an interface yet. Never
    /// port 0.
    pub addresses: Vec<SocketAddr>,
    /// Number of consecutive ports, from that of each address on, at least 1. Clients at the n-th one are connected to the n-th port of
    /// a backend, from that of its address on.
    pub ports: u16,
    /// The pools that divide the connections. Ids are unique. None: each client is reset.
    pub pools: Vec<WeightedPool>,
    /// Limits of its connections.
    pub limits: Limits,
    /// Subnets of the clients that are served; others are reset. None: all are served.
    pub allowed_cidrs: Vec<IpNetwork>,
    /// Subnets of the proxies whose connections begin with a header of PROXY protocol, which states their client. None:
    /// no connection does.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Addresses that clients know it by, at most one of each family: its VIPs with its own port. None of a family: the
    /// address that they were accepted at.
    pub frontends: Vec<SocketAddr>,
    /// False: it has no listening socket.
    pub enabled: bool,
}

/// Pool of a listener, with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedPool {
    /// The pool.
    pub id: Uuid,
    /// Share of new connections relative to the other pools, 0 to 256. That of a pool in which no backend takes connections is the
    /// others'. 0: none, and connections that it has count as those of a backend that is gone.
    pub weight: u16,
}

impl WeightedPool {
    /// Pool that has no other one beside it.
    #[must_use]
    pub const fn alone(id: Uuid) -> Self {
        Self { id, weight: 1 }
    }
}

/// Protocol in which a listener is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A byte stream, relayed as it is, whatever it carries.
    Tcp,
    /// Datagrams, in sessions: one for each address and port of a client.
    Udp,
}

impl Protocol {
    /// Protocols that this data plane serves.
    const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// Transport of its listening sockets.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }

    /// Word in `Hello.capabilities` by which a node states that it serves the protocol.
    const fn capability(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Words in `Hello.capabilities` of what this data plane can do.
pub fn capabilities() -> impl Iterator<Item = &'static str> {
    Protocol::ALL.map(Protocol::capability).into_iter().chain([
        "access-log",
        "allowed-cidrs",
        "backend-limits",
        "bandwidth",
        "client-limits",
        "drain-timeout",
        "half-close",
        "passive-health",
        "port-ranges",
        "proxy-protocol",
        "random",
        "slow-start",
        "weighted-pools",
    ])
}

/// Transport of a listening socket. Each has ports of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Limits of a listener's connections, which are the sessions of UDP. None: no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at a time, over all workers; those above are reset.
    pub connections: Option<u32>,
    /// Most connections at a time of one client address, over all workers; those above are reset.
    pub client_connections: Option<u32>,
    /// New connections a second, over all workers, and as many at once after a quiet second; those above are reset.
    pub connection_rate: Option<u32>,
    /// The same of one client address.
    pub client_connection_rate: Option<u32>,
    /// Bytes a second in each direction, over all connections; above it they wait, and datagrams are dropped.
    pub bandwidth: Option<u64>,
    /// Idle timeout while the client is to send or to receive: the connection is reset after it.
    pub client_data: Option<Duration>,
    /// Time for one backend to accept a connection before the next one is tried. None: as long as the kernel
    /// tries. Without a meaning for UDP.
    pub backend_connect: Option<Duration>,
    /// Idle timeout while the backend is to send or to receive: the connection is reset after it.
    pub backend_data: Option<Duration>,
    /// Idle timeout of a connection of which one side has closed its half, in place of the two above. None: these, at most
    /// 300 s. Without a meaning for UDP.
    pub half_close: Option<Duration>,
}

impl Limits {
    /// True if one of them is about single clients, or about rates.
    #[must_use]
    pub const fn need_counting(&self) -> bool {
        let Self { client_connections, connection_rate, client_connection_rate, .. } = self;
        client_connections.is_some() || connection_rate.is_some() || client_connection_rate.is_some()
    }
}

/// Backends, and how one of them is selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    /// FiberLB's id. Persistence and the state of the algorithm are kept for as long as it stays.
    pub id: Uuid,
    /// Algorithm that selects a backend.
    pub algorithm: Algorithm,
    /// Persistence of a client's backend over several connections; None: each connection is decided anew.
    pub persistence: Option<SourceIpPersistence>,
    /// Header of PROXY protocol that each connection to a backend begins with.
    pub header: Option<proxy_protocol::Version>,
    /// Time after which the connections of a backend that is gone are reset: one that is not in the pool any more, is not
    /// enabled, has no weight or is out of rotation; the same when their listener has the pool no more, or at weight 0. Zero: at
    /// once. None: never. Without a meaning for UDP.
    pub drain_timeout: Option<Duration>,
    /// Time in which the weight of a backend that begins to take connections grows from a tenth to all of it: one that is
    /// new in a pool that is there already, comes into rotation again, is enabled, or had no weight. None: it has all of
    /// it at once. Without a meaning for algorithms that hash.
    pub slow_start: Option<Duration>,
    /// Passive health check; None: a backend that fails connections is passed over by each, and stays in the choice.
    pub passive_health: Option<PassiveHealthSpec>,
    /// Queue of the connections that find all backends at their limits; None: they are reset. Without a meaning for UDP.
    pub queue: Option<QueueSpec>,
    /// The backends. Ids are unique over all pools that share an address's health.
    pub backends: Vec<BackendSpec>,
}

/// Passive health check: a backend to which connections in a row fail is left out of the node's choice for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassiveHealthSpec {
    /// Number of failures in a row, over all workers, none of them older than a first ejection takes.
    pub consecutive_failures: u32,
    /// Time of the first ejection; the n-th in a row takes n times as long.
    pub ejection: Duration,
    /// Longest time of an ejection.
    pub max_ejection: Duration,
    /// Most of the pool's backends that are left out at a time, in percent of those that take connections as far as
    /// their configuration and health go. The only one never is.
    pub max_ejected_percent: u8,
}

/// Queue of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Most connections in it, over all workers; others are reset.
    pub limit: u32,
    /// Time after which a connection in it is reset.
    pub timeout: Duration,
}

/// Algorithm that selects the backend of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, by weight, interleaved.
    RoundRobin,
    /// The backend with the fewest open connections for its weight.
    LeastConnections,
    /// By a hash of the client's address: one client, one backend, on every node.
    SourceIp,
    /// By a hash of the client's address and port.
    SourceIpPort,
    /// Drawn by weight.
    Random,
    /// The backend with fewer open connections for its weight, of two that are drawn by weight.
    PowerOfTwoChoices,
}

/// Persistence by the client's address: a client stays with its backend for as long as that one is in
/// rotation. A client that is not remembered meets a backend by a hash of its address, whatever the algorithm: the same
/// one on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceIpPersistence {
    /// Time after a client's latest connection at which its entry expires.
    pub timeout: Duration,
}

/// One backend server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// FiberLB's id, by which its health is reported.
    pub id: Uuid,
    /// Address that it listens on.
    pub address: SocketAddr,
    /// Its share, 0 to 256. Zero: draining, no new connections.
    pub weight: u16,
    /// Only used while no other is left.
    pub backup: bool,
    /// False: no new connections.
    pub enabled: bool,
    /// Most connections at a time, over all workers; it is not selected for more. 0: none at all.
    pub connection_limit: Option<u32>,
    /// True if it is in rotation until its health is first reported; false for a new backend of a checked
    /// pool.
    pub starts_in_rotation: bool,
}

impl BackendSpec {
    /// True if it takes new connections, as far as its configuration goes.
    pub(super) fn takes_connections(&self) -> bool {
        self.enabled && self.weight > 0
    }
}

/// The largest weight.
pub const MAX_WEIGHT: u16 = 256;
