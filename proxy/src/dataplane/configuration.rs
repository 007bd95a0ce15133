//! What the data plane is asked to do: one immutable value, put in force as a whole.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use uuid::Uuid;

use crate::sockets::SocketFactory;

/// Everything that the data plane serves.
#[derive(Clone, Default)]
pub struct Configuration {
    /// Where sockets of a network come from. Another factory under the same id means that the namespace was made anew: the
    /// network's listening sockets are then made anew too.
    pub networks: HashMap<Uuid, Arc<dyn SocketFactory>>,
    /// The listeners. Ids are unique; of two listeners on one address the first wins and the second is refused.
    pub listeners: Vec<Listener>,
    /// The pools that listeners refer to. Several listeners may share one.
    pub pools: Vec<Pool>,
    /// How long connections of a listener that has gone may go on before they are reset. Zero: not at all.
    pub drain_timeout: Duration,
}

impl fmt::Debug for Configuration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Configuration")
            .field("networks", &self.networks.keys())
            .field("listeners", &self.listeners)
            .field("pools", &self.pools)
            .field("drain_timeout", &self.drain_timeout)
            .finish()
    }
}

/// An L4 listener: addresses where clients come in, and the pool that they go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// FiberLB's id.
    pub id: Uuid,
    /// For logs only.
    pub name: String,
    /// The network, a key of [`Configuration::networks`].
    pub network: Uuid,
    /// Where to listen: the proxy's own address, or a VIP. An address need not be on an interface yet. Never port 0.
    pub addresses: Vec<SocketAddr>,
    /// The pool, by id. None: each client is reset.
    pub pool: Option<Uuid>,
    /// Limits of its connections.
    pub limits: Limits,
    /// Switched off: not listened on.
    pub enabled: bool,
}

/// Limits of a listener's connections. None: no limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most connections at a time, over all workers; those above are reset.
    pub connections: Option<u32>,
    /// When nobody moved a byte and it is the client's turn: the connection is reset after this.
    pub client_data: Option<Duration>,
    /// Time for one backend to answer a connect before the next one is tried. None: as long as the kernel tries.
    pub backend_connect: Option<Duration>,
    /// When nobody moved a byte and it is the backend's turn: the connection is reset after this.
    pub backend_data: Option<Duration>,
}

/// Backends, and how one of them is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// FiberLB's id. Persistence and turns are kept for as long as it stays.
    pub id: Uuid,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Whether a client stays with its backend over several connections.
    pub persistence: Option<SourceIpPersistence>,
    /// The backends. Ids are unique over all pools that share an address's health.
    pub backends: Vec<Backend>,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// In turn, by weight, interleaved.
    RoundRobin,
    /// The one with the fewest open connections for its weight.
    LeastConnections,
    /// By a hash of the client's address: one client, one backend, on every node.
    SourceIp,
    /// By a hash of the client's address and port.
    SourceIpPort,
}

/// A client stays with the backend that it had, for as long as that one is in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceIpPersistence {
    /// Forgotten this long after the client's latest connection.
    pub timeout: Duration,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// FiberLB's id; health is told by it.
    pub id: Uuid,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share, 0 to 256. Zero: draining, no new connections.
    pub weight: u16,
    /// Only used while no other is left.
    pub backup: bool,
    /// Switched off: no new connections.
    pub enabled: bool,
    /// Whether it is in rotation until its health is first told: false for a new backend of a checked pool.
    pub starts_in_rotation: bool,
}

/// The largest weight.
pub const MAX_WEIGHT: u16 = 256;
