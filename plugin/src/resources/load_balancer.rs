//! The root of a tree.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Common;

/// A VIP, or one of each family, on one tenant network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Name, description, tags.
    #[serde(flatten)]
    pub common: Common,
    /// Owner: organization.
    pub org_id: String,
    /// Owner: project.
    pub project_id: String,
    /// UUID of the logical switch.
    pub network: Uuid,
    /// One or two addresses, the first one as `vip_address`, of different families.
    pub vips: Vec<IpAddr>,
    /// False: nothing is served.
    pub admin_state_up: bool,
}
