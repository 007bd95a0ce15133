//! How the backends of a pool are checked.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Common, Kind, Record, Resource, guard};

/// What a probe does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum HealthCheckType {
    /// Connects.
    Tcp,
    /// Asks for a path.
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

/// How the backends of a pool are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Name and tags.
    #[serde(flatten)]
    pub common: Common,
    /// Its pool, which has no other.
    pub pool_id: Uuid,
    /// What a probe does.
    #[serde(rename = "type")]
    pub check_type: HealthCheckType,
    /// From the start of one probe to the next, in milliseconds.
    pub delay_ms: u32,
    /// For one probe, in milliseconds.
    pub timeout_ms: u32,
    /// Good probes in a row that bring a backend back, 1 to 10.
    pub rise: u8,
    /// Bad probes in a row that take a backend out, 1 to 10.
    pub fall: u8,
    /// HTTP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// False: nothing is checked.
    pub admin_state_up: bool,
}

impl Record<HealthCheck> {
    /// Whether it is to be carried out: it is switched on, and not deleted.
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
