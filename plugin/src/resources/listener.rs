//! One port of a load balancer.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, PoolProtocol};

/// What a listener speaks with its clients.
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

/// The transport protocol below a listener: what a port number is unique for.
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
    /// What it runs over.
    pub fn transport(self) -> Transport {
        match self {
            Self::Tcp | Self::Https => Transport::Tcp,
            Self::Udp => Transport::Udp,
            Self::Sctp => Transport::Sctp,
        }
    }

    /// Whether its connections can go to a pool of that protocol.
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

/// Who is asked to carry a listener's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Datapath {
    /// OVN wherever it can.
    #[default]
    Auto,
    /// OVN only.
    Ovn,
}

/// One port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its load balancer.
    pub load_balancer_id: Uuid,
    /// What it speaks.
    pub protocol: ListenerProtocol,
    /// 1 to 65535.
    pub port: u16,
    /// Where connections go; without one they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pool_id: Option<Uuid>,
    /// Who is asked to carry it.
    #[serde(default)]
    pub datapath: Datapath,
    /// False: refuses.
    pub admin_state_up: bool,
}
