//! Ports that keep VIPs from OVN's IPAM. None may answer ARP, or it would swallow the traffic.
//!
//! Where answers are rows, a plain port that is told to be silent keeps the VIPs of some neighbouring load balancers: each pass of
//! northd goes over the ports of all networks, so that a port for each load balancer makes any change dear, while another address of a
//! port is cheap. Where answers are addresses of the responder, each load balancer has a port of its own, of type `virtual`, which
//! nothing binds without parents. One of type `external` would be silent too, but breaks Neutron, which looks for its own keys on each
//! of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use super::network::mac_of;
use super::{Desired, Installation, OWNER_KEY, Owner, Row, SHARED_KEY, Step, StepOperation};
use crate::{LogicalSwitchPort, Northbound, TableKind};

/// Bits of an address that do not count for the port that keeps it: one has the VIPs of 64 addresses, since a change of one of them
/// costs northd what it does for all of them.
const BLOCK_BITS: u32 = 6;
/// Option of a port that does not answer for its addresses.
const SILENT: &str = "disable_arp_nd_rsp";

/// Load balancer whose VIPs are to be kept from others.
#[derive(Clone, Copy, Debug)]
pub struct Reservation<'a> {
    /// Installation.
    pub installation: Installation,
    /// Logical switch of the VIPs.
    pub switch: Uuid,
    /// UUID of the port that the load balancer would have alone.
    pub row: Uuid,
    /// VIPs.
    pub vips: &'a [IpAddr],
}

impl Reservation<'_> {
    /// Adds the port that reserves the VIPs where answers are addresses.
    pub fn add_port(&self, desired: &mut Desired, owner: Owner) {
        let vips: Vec<String> = self.vips.iter().map(ToString::to_string).collect();
        let virtual_ip = vips.first().cloned().unwrap_or_default();
        let port = LogicalSwitchPort {
            r#type: "virtual".to_owned(),
            options: Map::from([("virtual-ip".to_owned(), virtual_ip)]),
            addresses: Set::from([format!("{} {}", mac_of(self.row), vips.join(" "))]),
            ..named(self.row, OWNER_KEY, owner)
        };
        add(desired, self.row, port, self.switch);
    }

    /// Plans that the network's silent ports come to have the VIPs, or cease to: the part of [`network`](super::network()) that a load
    /// balancer changes when it is created or deleted, at a cost that is independent of the size of the network. `None` where a port
    /// comes or goes, so that the network has to be planned.
    #[must_use]
    pub fn steps(&self, operation: StepOperation, nb: &Northbound) -> Option<Vec<Step>> {
        let port = self.silent_port(nb);
        let element = port.map(|(uuid, _)| element(uuid, self.vips));
        let is_there = port.zip(element.as_ref()).is_some_and(|((_, port), it)| port.addresses.contains(it));
        let comes = operation == StepOperation::Insert;
        match port.zip(element) {
            None if comes => None,
            None => Some(Vec::new()),
            // The port is another one with it, or without it.
            Some(((uuid, _), _)) if comes && self.row < uuid => None,
            Some(_) if comes == is_there => Some(Vec::new()),
            Some(((uuid, port), _)) if !comes && (uuid == self.row || port.addresses.len() == 1) => None,
            Some(((uuid, _), element)) => Some(vec![Step::Address(operation, uuid, element)]),
        }
    }

    /// True if an element of `addresses` of a silent port is the one of this load balancer.
    #[must_use]
    pub fn is_kept_as(&self, address: &str, nb: &Northbound) -> bool {
        self.silent_port(nb).is_some_and(|(uuid, _)| element(uuid, self.vips) == address)
    }

    /// True if a silent port has one of the VIPs.
    #[must_use]
    pub fn is_kept(&self, nb: &Northbound) -> bool {
        let owner = self.installation.network(self.switch).to_string();
        self.vips.iter().any(|vip| {
            nb.ports_with_address(*vip, self.switch).any(|port| is_silent_port_of(&owner, port, nb))
        })
    }

    /// Silent port for the load balancers of this one's neighbourhood.
    fn silent_port<'a>(&self, nb: &'a Northbound) -> Option<(Uuid, &'a LogicalSwitchPort)> {
        let block = block_of(self.vips)?;
        let owner = self.installation.network(self.switch).to_string();
        let ports = nb.owned(&owner).filter(|(table, _)| *table == TableKind::LogicalSwitchPort);
        let silent = ports.filter(|(_, uuid)| is_silent_port_of(&owner, *uuid, nb));
        let mut ports = silent.filter_map(|(_, uuid)| Some((uuid, nb.logical_switch_port.get(&uuid)?)));
        ports.find(|(_, port)| {
            port.addresses.iter().next().and_then(|text| block_of(&vips_of(text))) == Some(block)
        })
    }
}

/// True if an address of a switch is kept for a load balancer of this installation by a port that `port` names.
pub(super) fn is_silent_port_of(network: &str, port: Uuid, nb: &Northbound) -> bool {
    nb.logical_switch_port.get(&port).is_some_and(|row| {
        row.options.contains_key(SILENT) && row.external_ids.get(SHARED_KEY).is_some_and(|it| it == network)
    })
}

/// Adds the silent ports of a network. `reserved` are the VIPs of each load balancer, by the UUID of the port that it would have
/// alone: the port of several is that of the least of these. So a release that gives each load balancer its own finds that of one of
/// them at least, keeps what the network shares for its sake, and takes the port over; those of the others it makes then.
pub(super) fn add_silent_ports(
    desired: &mut Desired,
    owner: Owner,
    switch: Uuid,
    reserved: &BTreeMap<Uuid, BTreeSet<IpAddr>>,
) {
    let mut blocks: BTreeMap<IpAddr, Vec<(Uuid, Vec<IpAddr>)>> = BTreeMap::new();
    for (row, vips) in reserved {
        let vips: Vec<IpAddr> = vips.iter().copied().collect();
        let Some(block) = block_of(&vips) else { continue };
        blocks.entry(block).or_default().push((*row, vips));
    }
    for members in blocks.into_values() {
        let Some((uuid, _)) = members.first() else { continue };
        let port = LogicalSwitchPort {
            options: Map::from([(SILENT.to_owned(), "true".to_owned())]),
            addresses: members.iter().map(|(_, vips)| element(*uuid, vips)).collect(),
            ..named(*uuid, SHARED_KEY, owner)
        };
        add(desired, *uuid, port, switch);
    }
}

fn named(uuid: Uuid, key: &str, owner: Owner) -> LogicalSwitchPort {
    LogicalSwitchPort {
        name: format!("fiberlb-vip-{uuid}"),
        external_ids: Map::from([(key.to_owned(), owner.to_string())]),
        ..LogicalSwitchPort::default()
    }
}

fn add(desired: &mut Desired, uuid: Uuid, port: LogicalSwitchPort, switch: Uuid) {
    desired.add(uuid, Row::LogicalSwitchPort(port), [(TableKind::LogicalSwitch, switch, "ports")]);
}

/// Element of a port's `addresses` for the VIPs of a load balancer.
fn element(port: Uuid, vips: &[IpAddr]) -> String {
    let vips: BTreeSet<&IpAddr> = vips.iter().collect();
    let texts = vips.into_iter().map(ToString::to_string);
    std::iter::once(mac_of(port)).chain(texts).collect::<Vec<_>>().join(" ")
}

/// VIPs of an element of a port's `addresses`.
#[must_use]
pub fn vips_of(address: &str) -> Vec<IpAddr> {
    address.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// First address of the block of the least VIP, for which all VIPs of a load balancer are in the port of that block.
fn block_of(vips: &[IpAddr]) -> Option<IpAddr> {
    Some(match vips.iter().min()? {
        IpAddr::V4(vip) => IpAddr::from((u32::from(*vip) >> BLOCK_BITS << BLOCK_BITS).to_be_bytes()),
        IpAddr::V6(vip) => IpAddr::from((u128::from(*vip) >> BLOCK_BITS << BLOCK_BITS).to_be_bytes()),
    })
}

#[cfg(test)]
mod tests;
