//! What all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers for their VIPs where no router of the tenant does. And the port that keeps a VIP's address from OVN's IPAM.
//!
//! Measured on OVN 23.03: a VIP in a switch's own subnet is reachable when its row is on the switch and on a router that
//! answers ARP for it. The responder's port carries a /0, which makes it answer for every VIP of its rows without taking
//! an address of the tenant, and each VIP as a host address, which makes it answer pings and refuse closed ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::{
    Desired, Families, Installation, NodePort, OWNER_KEY, Owner, Row, Step, StepOperation, Topology, gateways,
};
use crate::{LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitchPort, Northbound, TableKind};

/// Link-local address of a responder that covers all of IPv4.
const EVERYTHING_V4: &str = "169.254.77.1/0";
/// The same for IPv6.
const EVERYTHING_V6: &str = "fe80::77/0";

/// A logical switch with at least one VIP, or with none any more.
#[derive(Clone, Debug)]
pub struct Network {
    /// Whose rows.
    pub installation: Installation,
    /// The tenant's logical switch.
    pub switch: Uuid,
    /// All VIPs on it.
    pub vips: BTreeSet<IpAddr>,
    /// The families for whose VIPs the responder router answers, which is there if it is any; see [`responder_families`].
    pub responder: Families,
    /// Ports of proxy nodes on it.
    pub node_ports: Vec<NodePort>,
}

impl Network {
    /// UUID of the `Load_Balancer_Group` that the rows of the network's load balancers belong to.
    #[must_use]
    pub fn group(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("group", &switch.to_string())
    }
}

/// The families for whose VIPs a network needs a responder router: those that no router of the tenant has an address of on the
/// switch, once there is such a VIP, and those that it answers for already. Clients have the responder's MAC in their
/// neighbour caches, so it stays until the last VIP is gone, also beside a new router.
#[must_use]
pub fn responder_families(
    installation: Installation,
    switch: Uuid,
    vips: &BTreeSet<IpAddr>,
    nb: &Northbound,
) -> Families {
    let lacking = Families::of(gateways(switch, nb)).others();
    let needed = if vips.iter().any(|vip| lacking.has(*vip)) { lacking } else { Families::NONE };
    standing(installation, switch, nb).or(needed)
}

/// Whether neither a router of the tenant nor a responder is there to answer for one of these VIPs.
#[must_use]
pub fn lacks_responder(installation: Installation, switch: Uuid, vips: &[IpAddr], nb: &Northbound) -> bool {
    let standing = standing(installation, switch, nb);
    let unanswered: Vec<IpAddr> = vips.iter().copied().filter(|vip| !standing.has(*vip)).collect();
    !unanswered.is_empty() && {
        let routers = Families::of(gateways(switch, nb));
        unanswered.iter().any(|vip| !routers.has(*vip))
    }
}

/// The families that the responder of a switch answers for now.
fn standing(installation: Installation, switch: Uuid, nb: &Northbound) -> Families {
    let Responder { router, router_port, .. } = Responder::of(installation, switch);
    if nb.logical_router.get(&router).is_none() {
        return Families::NONE;
    }
    // A responder without its port is to have it back, and nobody knows for which it was.
    nb.logical_router_port.get(&router_port).map_or(Families::BOTH, |port| families_of(&port.networks))
}

/// The families of a responder's `networks`, by their link-local addresses: there are as many host addresses as VIPs.
/// Without any of the two, somebody has changed the row, and host addresses tell it.
fn families_of(networks: &BTreeSet<String>) -> Families {
    let families = Families { v4: networks.contains(EVERYTHING_V4), v6: networks.contains(EVERYTHING_V6) };
    if families.is_empty() {
        return Families::of(networks.iter().filter_map(|network| network.split('/').next()?.parse().ok()));
    }
    families
}

/// All rows of a network. Without a VIP there are none but the ports of proxy nodes.
#[must_use]
pub fn network(network: &Network, topology: &Topology) -> Desired {
    let mut desired = Desired::default();
    let Network { installation, switch, .. } = *network;
    let owner = installation.network(switch);
    for port in &network.node_ports {
        port.add_to(&mut desired, owner, switch);
    }
    if network.vips.is_empty() {
        return desired;
    }
    let switches =
        topology.switches.iter().map(|uuid| (TableKind::LogicalSwitch, *uuid, "load_balancer_group"));
    let routers =
        topology.routers.iter().map(|uuid| (TableKind::LogicalRouter, *uuid, "load_balancer_group"));
    let responder = Responder::of(installation, switch);
    let has_responder = !network.responder.is_empty();
    let own = has_responder.then_some((TableKind::LogicalRouter, responder.router, "load_balancer_group"));
    let group = LoadBalancerGroup { name: owner.to_string(), ..LoadBalancerGroup::default() };
    desired.add(
        Network::group(installation, switch),
        Row::LoadBalancerGroup(group),
        switches.chain(routers).chain(own),
    );
    if has_responder {
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
            router_port: Self::router_port(installation, switch),
            switch_port: row("responder-switch-port"),
        }
    }

    fn router_port(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("responder-router-port", &switch.to_string())
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
            networks: networks(network.responder, &network.vips),
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

/// `Logical_Router_Port.networks` of a responder: for each of its families a link-local address that covers everything, and
/// the VIPs.
fn networks(families: Families, vips: &BTreeSet<IpAddr>) -> BTreeSet<String> {
    let everything = [(families.v4, EVERYTHING_V4), (families.v6, EVERYTHING_V6)];
    let everything = everything.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text.to_owned());
    let hosts = vips.iter().filter(|vip| families.has(**vip)).map(|vip| host(*vip));
    everything.chain(hosts).collect()
}

fn host(vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(vip) => format!("{vip}/32"),
        IpAddr::V6(vip) => format!("{vip}/128"),
    }
}

/// The VIP that an element of a responder's `networks` stands for; `None` for any other text.
#[must_use]
pub fn vip_of(network: &str) -> Option<IpAddr> {
    let vip = network.split('/').next()?.parse().ok()?;
    (host(vip) == network).then_some(vip)
}

/// Whether the responder of a switch answers for a VIP.
#[must_use]
pub fn is_answered(installation: Installation, switch: Uuid, vip: IpAddr, nb: &Northbound) -> bool {
    let port = nb.logical_router_port.get(&Responder::router_port(installation, switch));
    port.is_some_and(|port| port.networks.contains(&host(vip)))
}

/// What is missing for the responder of a switch, where there is one, to begin or to cease to answer for VIPs: the part of
/// [`network`] that a load balancer changes when it comes or goes, at a cost that does not grow with the network.
#[must_use]
pub fn answer(
    installation: Installation,
    switch: Uuid,
    way: StepOperation,
    vips: &[IpAddr],
    nb: &Northbound,
) -> Vec<Step> {
    let uuid = Responder::router_port(installation, switch);
    let Some(port) = nb.logical_router_port.get(&uuid) else { return Vec::new() };
    let families = families_of(&port.networks);
    let is_so = |network: &String| port.networks.contains(network) == (way == StepOperation::Insert);
    let own = vips.iter().filter(|vip| families.has(**vip));
    let missing = own.map(|vip| host(*vip)).filter(|network| !is_so(network));
    missing.map(|network| Step::Network(way, uuid, network)).collect()
}

/// A locally administered unicast MAC (IEEE 802) that never changes for the same row.
pub(super) fn mac_of(row: Uuid) -> String {
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
mod tests;
