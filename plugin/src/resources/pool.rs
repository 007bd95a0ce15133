//! A set of backends with an algorithm.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, Kind, Resource};

/// Protocol of a pool's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PoolProtocol {
    /// Any byte stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// RFC 9260.
    Sctp,
    /// HTTP behind a listener that passes it through.
    Http,
    /// TLS behind a listener that passes it through.
    Https,
}

/// Algorithm by which a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Algorithm {
    /// In proportion to the weights.
    RoundRobin,
    /// One client address, one backend.
    SourceIp,
    /// By client address and port.
    SourceIpPort,
    /// The backend with the fewest connections in proportion to its weight. Proxies only.
    LeastConnections,
}

/// Session persistence of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// By client address, until the client was idle for the timeout.
    SourceIp {
        /// 1 to 65535.
        timeout_s: u16,
    },
}

/// A set of backends with an algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its load balancer.
    pub load_balancer_id: Uuid,
    /// Protocol of its backends.
    pub protocol: PoolProtocol,
    /// Algorithm by which a backend is chosen.
    pub algorithm: Algorithm,
    /// Session persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// False: its listeners refuse.
    pub admin_state_up: bool,
}

impl Resource for Pool {
    const PARENT: Kind = Kind::LoadBalancer;

    fn parent(&self) -> Uuid {
        self.load_balancer_id
    }

    fn common(&self) -> &Common {
        &self.common
    }
}
