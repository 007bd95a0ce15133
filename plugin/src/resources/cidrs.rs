//! Lists of subnets that a resource has.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::violation::Form;

/// Most bytes of an entry in an answer: an IPv6 subnet as text.
pub(super) const CIDR_BYTES: usize = 45;

/// Checks a list: at most `most` subnets, each once.
pub(super) fn check(cidrs: &[IpNetwork], field: &str, most: usize, form: &mut Form<'_>) {
    // A subnet that could not be read lacks here, and the others would be found in the wrong places.
    if form.has_wrong(field) {
        return;
    }
    if cidrs.len() > most {
        form.invalid(field, format!("at most {most} subnets"));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        if let Some(why) =
            fault(cidr).or_else(|| (!seen.insert(cidr)).then(|| format!("{cidr} is there twice")))
        {
            form.invalid(&format!("{field}[{index}]"), why);
        }
    }
}

/// Reason why a subnet cannot be one of peers.
fn fault(cidr: &IpNetwork) -> Option<String> {
    let (network, prefix) = (cidr.network(), cidr.prefix());
    if cidr.ip() != network {
        return Some(format!("{cidr} has bits beyond its prefix; its subnet is {network}/{prefix}"));
    }
    let is_mapped = matches!(network, IpAddr::V6(v6) if prefix >= 96 && v6.to_ipv4_mapped().is_some());
    is_mapped.then(|| format!("{cidr} has IPv4 addresses in IPv6 notation; write it as an IPv4 subnet"))
}
