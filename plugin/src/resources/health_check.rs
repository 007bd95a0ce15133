//! Health checks of pools.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, Kind, Record, Resource, guard};

/// Type of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthCheckType {
    /// Opens a TCP connection.
    Tcp,
    /// Sends an HTTP request.
    Http,
}

/// The request of an HTTP check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Request method.
    pub method: String,
    /// Request target.
    pub path: String,
    /// Codes that mean healthy: "200", "200,202" or "200-204".
    pub expected_codes: String,
    /// Host header; the backend's address when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
}

/// Health check of a pool's backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Name and tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its pool, which has no other.
    pub pool_id: Uuid,
    /// Type of its probes.
    #[serde(rename = "type")]
    pub check_type: HealthCheckType,
    /// Interval from the start of one probe to the next, in milliseconds.
    pub delay_ms: u32,
    /// Timeout of one probe, in milliseconds.
    pub timeout_ms: u32,
    /// Successful probes in a row that put a backend back, 1 to 10.
    pub rise: u8,
    /// Failed probes in a row that take a backend out, 1 to 10.
    pub fall: u8,
    /// HTTP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// False: nothing is checked.
    pub admin_state_up: bool,
}

impl Record<HealthCheck> {
    /// True if it is enabled and not deleted.
    pub fn is_in_force(&self) -> bool {
        self.spec.admin_state_up && !self.deleting
    }
}

impl Resource for HealthCheck {
    const PARENT: Kind = Kind::Pool;

    fn parent(&self) -> Uuid {
        self.pool_id
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn guard(&self) -> Option<String> {
        Some(guard::health_check(self.pool_id))
    }
}
