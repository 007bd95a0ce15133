//! LoadBalancer.

use std::net::IpAddr;

use fiberlb_proto::v1;
use ipnetwork::IpNetwork;

use super::Form;
use crate::api::principal::{self, Principal};

/// Addresses that a new load balancer requests: each VIP is given, or to be allocated.
pub(in crate::api) struct Addresses {
    /// One per VIP, the main one first: the address, and the subnet to allocate from.
    pub(in crate::api) vips: Vec<(Option<IpAddr>, Option<IpNetwork>)>,
}

/// The owner of a new load balancer: as given, else the caller.
pub(in crate::api) fn owner(
    given: &v1::LoadBalancer,
    principal: &Principal,
    form: &mut Form<'_>,
) -> (String, String) {
    let or_own = |given: &str, own: &str| if given.is_empty() { own.to_owned() } else { given.to_owned() };
    let (org_id, project_id) =
        (or_own(&given.org_id, &principal.org_id), or_own(&given.project_id, &principal.project_id));
    for (field, text) in [("org_id", &org_id), ("project_id", &project_id)] {
        if !principal::is_name(text) {
            form.invalid(field, "must have 1 to 64 letters, digits, '.', '_' or '-'");
        }
    }
    if !principal.may_own(&org_id, &project_id) {
        form.invalid("project_id", "must be your own, or empty");
    }
    (org_id, project_id)
}

/// The requested VIPs.
pub(in crate::api) fn addresses(given: &v1::LoadBalancer, form: &mut Form<'_>) -> Addresses {
    let mut vips = vec![(
        address(&given.vip_address, "vip_address", form),
        subnet(&given.vip_subnet, "vip_subnet", form),
    )];
    for (index, vip) in given.additional_vips.iter().enumerate() {
        let at = format!("additional_vips[{index}]");
        let (address, subnet) = (
            address(&vip.address, &format!("{at}.address"), form),
            subnet(&vip.subnet, &format!("{at}.subnet"), form),
        );
        vips.push((address, subnet));
    }
    if given.additional_vips.len() > 1 {
        form.invalid("additional_vips", "at most one, of the other address family");
    }
    let families: Vec<bool> =
        vips.iter().filter_map(|(address, _)| address.map(|address| address.is_ipv4())).collect();
    if matches!(families.as_slice(), [first, second, ..] if first == second) {
        form.invalid("additional_vips", "must be of the other address family than vip_address");
    }
    Addresses { vips }
}

fn address(text: &str, field: &str, form: &mut Form<'_>) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(address) => {
            host(address, field, form);
            Some(address)
        }
        Err(_) => {
            form.invalid(field, format!("{text:?} is not an IP address"));
            None
        }
    }
}

/// Rejects addresses that are not those of one host in a tenant's network.
pub(super) fn host(address: IpAddr, field: &str, form: &mut Form<'_>) {
    let special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if special || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        form.invalid(field, format!("{address} cannot be the address of a host in a tenant's network"));
    }
}

fn subnet(text: &str, field: &str, form: &mut Form<'_>) -> Option<IpNetwork> {
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(subnet) => Some(subnet),
        Err(_) => {
            form.invalid(field, format!("{text:?} is not a subnet such as 10.0.0.0/24"));
            None
        }
    }
}
