//! The root of a tree.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
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
    const IMMUTABLE: &'static [&'static str] =
        &["org_id", "project_id", "network", "vip_address", "additional_vips"];

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
    if !is_host(address) {
        form.invalid(field, not_a_host(address));
    }
}

fn not_a_host(address: IpAddr) -> String {
    format!("{address} cannot be the address of a host in a tenant's network")
}

/// False for addresses that no host has by itself (RFC 6890): "this network", loopback, link-local, multicast, reserved and
/// broadcast ones, and IPv4 addresses in IPv6 notation.
fn is_host(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4().is_some(),
    };
    !is_special && !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}

/// True if an address can be a host's in a subnet: it is neither the network's nor the broadcast address.
pub fn is_host_of(address: IpAddr, subnet: &IpNetwork) -> bool {
    let has_edges = subnet.prefix() < if subnet.is_ipv4() { 31 } else { 127 };
    let is_edge = address == subnet.network() || (subnet.is_ipv4() && address == subnet.broadcast());
    subnet.contains(address) && !(has_edges && is_edge)
}

/// Reason why an address cannot be a VIP on a network with these subnets, whether it was given or chosen; `None`: it can.
/// `allow_unknown`: a network of which no subnet of the family is known takes any address of a host.
pub fn vip_fault(vip: IpAddr, subnets: &[IpNetwork], allow_unknown: bool) -> Option<String> {
    if !is_host(vip) {
        return Some(not_a_host(vip));
    }
    let known: Vec<&IpNetwork> = subnets.iter().filter(|subnet| subnet.is_ipv4() == vip.is_ipv4()).collect();
    if known.is_empty() {
        return (!allow_unknown).then(|| unknown_subnet(vip.is_ipv4()));
    }
    let is_inside = known.iter().any(|subnet| is_host_of(vip, subnet));
    (!is_inside).then(|| {
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        format!("{vip} is not a host address of the network's subnet {}", known.join(", "))
    })
}

/// True if one of the VIPs is of an address' family.
pub fn has_family_of(vips: &[IpAddr], address: IpAddr) -> bool {
    vips.iter().any(|vip| vip.is_ipv4() == address.is_ipv4())
}

/// Text for a VIP on a network of which no subnet of an address family is known.
pub fn unknown_subnet(is_ipv4: bool) -> String {
    format!("{}, or let an operator set networks.allow_unknown_subnets", no_subnet(is_ipv4))
}

/// Text for a network of which no subnet of an address family is known.
pub fn no_subnet(is_ipv4: bool) -> String {
    let family = if is_ipv4 { "IPv4" } else { "IPv6" };
    format!(
        "no {family} subnet of the network is known, neither from the logical switch nor from a router port of it: name it \
         there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_of_a_subnet_are_no_hosts() {
        let is_host =
            |address: &str, subnet: &str| is_host_of(address.parse().unwrap(), &subnet.parse().unwrap());
        assert!(is_host("10.0.0.1", "10.0.0.0/24") && is_host("fd00::1", "fd00::/64"));
        assert!(is_host("fd00::ffff:ffff:ffff:ffff", "fd00::/64"), "IPv6 has no broadcast");
        for edge in ["10.0.0.0", "10.0.0.255", "10.0.1.1"] {
            assert!(!is_host(edge, "10.0.0.0/24"), "{edge}");
        }
        assert!(is_host("10.0.0.0", "10.0.0.0/31"));
    }
}
