//! The root of a tree.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::violation::Form;
use super::{Common, Key, Kind, Resource, guard};

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

impl Resource for LoadBalancer {
    const PARENT: Option<Kind> = None;

    fn parent(&self) -> Option<Uuid> {
        None
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn key(&self, id: Uuid) -> Key {
        Key::LoadBalancer { org_id: self.org_id.clone(), project_id: self.project_id.clone(), id }
    }

    fn guards(&self) -> Vec<String> {
        self.vips.iter().map(|vip| guard::vip(self.network, *vip)).collect()
    }

    fn check(&self, form: &mut Form<'_>) {
        self.common.check(form);
    }
}

/// Checks that an address can be that of one host in a tenant's network.
pub fn check_host(address: IpAddr, field: &str, form: &mut Form<'_>) {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if special || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        form.invalid(field, format!("{address} cannot be the address of a host in a tenant's network"));
    }
}
