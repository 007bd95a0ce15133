//! One server of a pool.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, Kind, Resource, guard};

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Name and tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its pool.
    pub pool_id: Uuid,
    /// Address and port that it listens on; unique in the pool.
    pub address: SocketAddr,
    /// 0 to 256; 0 drains.
    pub weight: u16,
    /// Serves only while no regular backend of the pool does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// Address of its health check, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_address: Option<IpAddr>,
    /// Port of its health check, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor_port: Option<u16>,
    /// False: takes no connections.
    pub admin_state_up: bool,
}

impl Resource for Backend {
    const PARENT: Kind = Kind::Pool;

    fn parent(&self) -> Uuid {
        self.pool_id
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn guard(&self) -> Option<String> {
        Some(guard::backend(self.pool_id, self.address))
    }
}
