//! What all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers for their VIPs where the tenant has no router. And the port that keeps a VIP's address from OVN's IPAM.
//!
//! Measured on OVN 23.03: a VIP in a switch's own subnet is reachable when its row is on the switch and on a router that
//! answers ARP for it. The responder's port carries a /0, which makes it answer for every VIP of its rows without taking
//! an address of the tenant, and each VIP as a host address, which makes it answer pings and refuse closed ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::{Desired, Installation, OWNER_KEY, Owner, Row, Topology};
use crate::nb::{
    LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitchPort, Northbound, TableKind,
};

/// A logical switch with at least one VIP, or with none any more.
#[derive(Clone, Debug)]
pub struct Network {
    /// Whose rows.
    pub installation: Installation,
    /// The tenant's logical switch.
    pub switch: Uuid,
    /// All VIPs on it.
    pub vips: BTreeSet<IpAddr>,
    /// Whether the responder router is wanted; see [`responder_wanted`].
    pub responder: bool,
}

impl Network {
    /// UUID of the `Load_Balancer_Group` that the rows of the network's load balancers belong to.
    #[must_use]
    pub fn group(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("group", &switch.to_string())
    }
}

/// Whether a network needs a responder router: when it has no router of the tenant's, or has a responder already. Clients
/// have the responder's MAC in their neighbour caches, so it stays until the last VIP is gone, also beside a new router.
#[must_use]
pub fn responder_wanted(
    installation: Installation,
    switch: Uuid,
    topology: &Topology,
    nb: &Northbound,
) -> bool {
    topology.routers.is_empty()
        || nb.logical_router.get(&Responder::of(installation, switch).router).is_some()
}

/// All rows of a network. Without a VIP there are none.
#[must_use]
pub fn network(network: &Network, topology: &Topology) -> Desired {
    let mut desired = Desired::default();
    if network.vips.is_empty() {
        return desired;
    }
    let Network { installation, switch, .. } = *network;
    let owner = installation.network(switch);
    let switches =
        topology.switches.iter().map(|uuid| (TableKind::LogicalSwitch, *uuid, "load_balancer_group"));
    let routers =
        topology.routers.iter().map(|uuid| (TableKind::LogicalRouter, *uuid, "load_balancer_group"));
    let responder = Responder::of(installation, switch);
    let own =
        network.responder.then_some((TableKind::LogicalRouter, responder.router, "load_balancer_group"));
    let group = LoadBalancerGroup { name: owner.to_string(), ..LoadBalancerGroup::default() };
    desired.add(
        Network::group(installation, switch),
        Row::LoadBalancerGroup(group),
        switches.chain(routers).chain(own),
    );
    if network.responder {
        responder.add_to(&mut desired, network, owner);
    }
    desired
}

/// UUIDs of a responder's rows.
struct Responder {
    router: Uuid,
    router_port: Uuid,
    switch_port: Uuid,
}

impl Responder {
    fn of(installation: Installation, switch: Uuid) -> Self {
        let row = |kind| installation.row(kind, &switch.to_string());
        Self {
            router: row("responder"),
            router_port: row("responder-router-port"),
            switch_port: row("responder-switch-port"),
        }
    }

    fn add_to(&self, desired: &mut Desired, network: &Network, owner: Owner) {
        let external_ids = BTreeMap::from([(OWNER_KEY.to_owned(), owner.to_string())]);
        let router_port_name = format!("fiberlb-responder-{}", self.router_port);
        let router = LogicalRouter {
            name: format!("fiberlb-responder-{}", network.switch),
            external_ids: external_ids.clone(),
            ..LogicalRouter::default()
        };
        let router_port = LogicalRouterPort {
            name: router_port_name.clone(),
            mac: mac_of(self.router_port),
            networks: networks(&network.vips),
            external_ids: external_ids.clone(),
            ..LogicalRouterPort::default()
        };
        let switch_port = LogicalSwitchPort {
            name: format!("fiberlb-responder-{}", self.switch_port),
            r#type: "router".to_owned(),
            options: BTreeMap::from([("router-port".to_owned(), router_port_name)]),
            addresses: BTreeSet::from(["router".to_owned()]),
            external_ids,
            ..LogicalSwitchPort::default()
        };
        desired.add(self.router, Row::LogicalRouter(router), []);
        let on_router = (TableKind::LogicalRouter, self.router, "ports");
        desired.add(self.router_port, Row::LogicalRouterPort(router_port), [on_router]);
        let on_switch = (TableKind::LogicalSwitch, network.switch, "ports");
        desired.add(self.switch_port, Row::LogicalSwitchPort(switch_port), [on_switch]);
    }
}

/// `Logical_Router_Port.networks` of a responder: link-local addresses that cover everything, and each VIP.
fn networks(vips: &BTreeSet<IpAddr>) -> BTreeSet<String> {
    let hosts = vips.iter().map(|vip| match vip {
        IpAddr::V4(vip) => format!("{vip}/32"),
        IpAddr::V6(vip) => format!("{vip}/128"),
    });
    hosts.chain(["169.254.77.1/0".to_owned(), "fe80::77/0".to_owned()]).collect()
}

/// A locally administered unicast MAC (IEEE 802) that never changes for the same row.
fn mac_of(row: Uuid) -> String {
    let [a, b, c, d, e, ..] = *row.as_bytes();
    format!("0e:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// The port that keeps a load balancer's addresses from OVN's IPAM. Type `external`: it reserves and stays silent, where
/// an ordinary port would answer ARP with its own MAC and swallow the traffic.
pub fn reservation(desired: &mut Desired, owner: Owner, uuid: Uuid, switch: Uuid, vips: &[IpAddr]) {
    let addresses: Vec<String> = vips.iter().map(ToString::to_string).collect();
    let port = LogicalSwitchPort {
        name: format!("fiberlb-vip-{uuid}"),
        r#type: "external".to_owned(),
        addresses: BTreeSet::from([format!("{} {}", mac_of(uuid), addresses.join(" "))]),
        external_ids: BTreeMap::from([(OWNER_KEY.to_owned(), owner.to_string())]),
        ..LogicalSwitchPort::default()
    };
    desired.add(uuid, Row::LogicalSwitchPort(port), [(TableKind::LogicalSwitch, switch, "ports")]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCH: Uuid = Uuid::from_u128(5);

    fn wish(vips: &[&str], responder: bool) -> Network {
        Network {
            installation: Installation(Uuid::from_u128(1)),
            switch: SWITCH,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            responder,
        }
    }

    #[test]
    fn a_network_without_vips_has_no_rows() {
        assert_eq!(network(&wish(&[], true), &Topology::default()), Desired::default());
    }

    #[test]
    fn the_group_is_on_every_switch_and_router_that_may_hold_a_client() {
        let topology =
            Topology { routers: [Uuid::from_u128(6)].into(), switches: [SWITCH, Uuid::from_u128(7)].into() };
        let desired = network(&wish(&["10.0.0.9"], false), &topology);
        assert_eq!(desired.rows.len(), 1);
        let holders: BTreeSet<Uuid> = desired.members.iter().map(|member| member.row).collect();
        assert_eq!(holders, [SWITCH, Uuid::from_u128(6), Uuid::from_u128(7)].into());
    }

    #[test]
    fn a_responder_takes_no_address_but_the_vips() {
        let desired = network(&wish(&["10.0.0.9", "fd00::9"], true), &Topology::default());
        let networks = desired.rows.values().find_map(|row| match row {
            Row::LogicalRouterPort(port) => Some(port.networks.clone()),
            _ => None,
        });
        let expected = ["10.0.0.9/32", "fd00::9/128", "169.254.77.1/0", "fe80::77/0"];
        assert_eq!(networks.unwrap(), expected.map(str::to_owned).into());
    }
}
