//! One port of a load balancer.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, Kind, PoolProtocol, Resource, guard};

/// Protocol between a listener and its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ListenerProtocol {
    /// Any byte stream.
    Tcp,
    /// Datagrams.
    Udp,
    /// RFC 9260.
    Sctp,
    /// TLS, passed through.
    Https,
}

/// Transport protocol of a listener. Port numbers are unique per transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl ListenerProtocol {
    /// Transport protocol that it runs over.
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp | Self::Https => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Sctp => Transport::Sctp,
        }
    }

    /// True if proxies can carry it.
    pub fn is_proxied(self) -> bool {
        self.transport() == Transport::Tcp
    }

    /// Checks whether a pool of that protocol can serve its connections.
    pub fn fits(self, pool: PoolProtocol) -> bool {
        use PoolProtocol as Pool;
        match self {
            Self::Tcp => matches!(pool, Pool::Tcp | Pool::Http | Pool::Https),
            Self::Udp => pool == Pool::Udp,
            Self::Sctp => pool == Pool::Sctp,
            Self::Https => matches!(pool, Pool::Https | Pool::Tcp),
        }
    }
}

/// Requested carrier of a listener's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Datapath {
    /// OVN wherever possible.
    #[default]
    Auto,
    /// OVN only.
    Ovn,
    /// FiberLB's proxies.
    Proxy,
}

/// Requested way in which clients reach the proxies of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Exposure {
    /// An OVN row wherever possible.
    #[default]
    Auto,
    /// An OVN row.
    Ovn,
    /// The VIP itself, on one node at a time.
    Direct,
}

impl Exposure {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Limits that only a proxy can enforce; `None` is the default and needs no proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyLimits {
    /// Most concurrent connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Idle timeout of a client, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_data_ms: Option<u32>,
    /// Connect timeout of a backend, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_connect_ms: Option<u32>,
    /// Idle timeout of a backend, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_data_ms: Option<u32>,
}

impl ProxyLimits {
    /// Default idle timeout of a client, in milliseconds.
    pub const CLIENT_DATA_MS: u32 = 50_000;
    /// Default connect timeout of a backend, in milliseconds.
    pub const BACKEND_CONNECT_MS: u32 = 5_000;
    /// Default idle timeout of a backend, in milliseconds.
    pub const BACKEND_DATA_MS: u32 = 50_000;

    /// True if all limits are at their defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its load balancer.
    pub load_balancer_id: Uuid,
    /// Protocol of its clients.
    pub protocol: ListenerProtocol,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Pool that receives its connections; without one they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pool_id: Option<Uuid>,
    /// Requested carrier.
    #[serde(default)]
    pub datapath: Datapath,
    /// Requested way in which clients reach its proxies.
    #[serde(default, skip_serializing_if = "Exposure::is_auto")]
    pub exposure: Exposure,
    /// Limits that only a proxy can enforce.
    #[serde(default, skip_serializing_if = "ProxyLimits::is_default")]
    pub limits: ProxyLimits,
    /// False: connections are refused.
    pub admin_state_up: bool,
}

impl Resource for Listener {
    const PARENT: Kind = Kind::LoadBalancer;

    fn parent(&self) -> Uuid {
        self.load_balancer_id
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn guard(&self) -> Option<String> {
        Some(guard::port(self.load_balancer_id, self.protocol.transport(), self.port))
    }
}
