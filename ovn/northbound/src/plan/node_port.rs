//! Logical switch ports of proxy nodes on tenant networks, and of VIPs that nodes hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use super::network::mac_of;
use super::{Desired, Installation, OWNER_KEY, Owner, Row};
use crate::{LogicalSwitchPort, TableKind};

/// Port of one proxy node on one logical switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// UUID of the row.
    pub uuid: Uuid,
    /// Name, which is the `iface-id` of the node's interface.
    pub name: String,
    /// MAC address, derived from the UUID.
    pub mac: String,
    /// Addresses of the node on the switch.
    pub addresses: Vec<IpAddr>,
}

impl NodePort {
    /// Port of `node` on `switch`.
    #[must_use]
    pub fn new(installation: Installation, switch: Uuid, node: &str, addresses: Vec<IpAddr>) -> Self {
        let uuid = installation.row("node-port", &format!("{switch}/{node}"));
        Self { uuid, name: format!("fiberlb-node-{uuid}"), mac: mac_of(uuid), addresses }
    }

    /// Adds its row, with the reference of `switch`.
    pub fn add_to(&self, desired: &mut Desired, owner: Owner, switch: Uuid) {
        let port = LogicalSwitchPort {
            name: self.name.clone(),
            addresses: Set::from([self.lsp_addresses()]),
            external_ids: owned(owner),
            ..LogicalSwitchPort::default()
        };
        desired.add(self.uuid, Row::LogicalSwitchPort(port), [(TableKind::LogicalSwitch, switch, "ports")]);
    }

    fn lsp_addresses(&self) -> String {
        let addresses = self.addresses.iter().map(ToString::to_string);
        std::iter::once(self.mac.clone()).chain(addresses).collect::<Vec<_>>().join(" ")
    }
}

/// UUID of the row of a VIP that nodes hold, one at a time.
#[must_use]
pub fn virtual_port_row(installation: Installation, load_balancer: Uuid, vip: IpAddr) -> Uuid {
    installation.row("virtual", &format!("{load_balancer}/{vip}"))
}

/// Adds the port of a VIP that nodes hold, one at a time: of type `virtual`, which OVN binds to the parent that announces the address
/// (`options:virtual-ip` and `virtual-parents`, ovn-nb(5)).
pub fn virtual_port(
    desired: &mut Desired,
    owner: Owner,
    uuid: Uuid,
    switch: Uuid,
    vip: IpAddr,
    parents: &BTreeSet<String>,
) {
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let port = LogicalSwitchPort {
        name: format!("fiberlb-vip-{uuid}"),
        r#type: "virtual".to_owned(),
        options: Map::from([
            ("virtual-ip".to_owned(), vip.to_string()),
            ("virtual-parents".to_owned(), parents.join(",")),
        ]),
        addresses: Set::from([format!("{} {vip}", mac_of(uuid))]),
        external_ids: owned(owner),
        ..LogicalSwitchPort::default()
    };
    desired.add(uuid, Row::LogicalSwitchPort(port), [(TableKind::LogicalSwitch, switch, "ports")]);
}

fn owned(owner: Owner) -> Map<String, String> {
    Map::from([(OWNER_KEY.to_owned(), owner.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_port_for_each_switch_and_installation() {
        let (a, b) = (Installation(Uuid::from_u128(1)), Installation(Uuid::from_u128(2)));
        let (one, other) = (Uuid::from_u128(3), Uuid::from_u128(4));
        let port =
            NodePort::new(a, one, "n1", vec!["10.0.0.250".parse().unwrap(), "fd00::fa".parse().unwrap()]);
        assert_eq!(port.uuid, NodePort::new(a, one, "n1", Vec::new()).uuid);
        let others = [(a, other, "n1"), (b, one, "n1"), (a, one, "n2")];
        assert!(others.iter().all(|(i, s, n)| NodePort::new(*i, *s, n, Vec::new()).uuid != port.uuid));
        assert_eq!(port.lsp_addresses(), format!("{} 10.0.0.250 fd00::fa", port.mac));
    }
}
