//! Rows that all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers ARP for their VIPs where no router of the tenant does. And the port that reserves a VIP's address in OVN's IPAM.
//!
//! Measured on OVN 23.03: a VIP in a switch's own subnet is reachable if its row is on the switch and on a router that answers ARP
//! for it. The responder's port has a /0, with which it answers for every VIP of its rows without using an address of the tenant,
//! and each VIP as a host address, with which it answers pings and rejects connections to closed ports.

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

/// Desired state of a logical switch that has VIPs, or has had them.
#[derive(Clone, Debug)]
pub struct Network {
    /// Installation.
    pub installation: Installation,
    /// Logical switch of the tenant.
    pub switch: Uuid,
    /// VIPs on the switch.
    pub vips: BTreeSet<IpAddr>,
    /// Families of the VIPs that the responder router answers for; see [`responder_families`]. There is one unless this is empty.
    pub responder: Families,
    /// Ports of proxy nodes on the switch.
    pub node_ports: Vec<NodePort>,
}

impl Network {
    /// UUID of the `Load_Balancer_Group` that the rows of the network's load balancers belong to.
    #[must_use]
    pub fn group(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("group", &switch.to_string())
    }
}

/// Families for which a network needs a responder router: those of VIPs for which no router of the tenant has an address on the
/// switch, and those that it answers for already. Clients have the responder's MAC in their neighbour caches, so it remains until the
/// last VIP is deleted, even beside a new router.
#[must_use]
pub fn responder_families(
    installation: Installation,
    switch: Uuid,
    vips: &BTreeSet<IpAddr>,
    nb: &Northbound,
) -> Families {
    let lacking = Families::of(gateways(switch, nb)).others();
    let needed = if vips.iter().any(|vip| lacking.has(*vip)) { lacking } else { Families::NONE };
    present_families(installation, switch, nb).or(needed)
}

/// True if neither a router of the tenant nor a responder answers for one of these VIPs.
#[must_use]
pub fn lacks_responder(installation: Installation, switch: Uuid, vips: &[IpAddr], nb: &Northbound) -> bool {
    let present = present_families(installation, switch, nb);
    let unanswered: Vec<IpAddr> = vips.iter().copied().filter(|vip| !present.has(*vip)).collect();
    !unanswered.is_empty() && {
        let routers = Families::of(gateways(switch, nb));
        unanswered.iter().any(|vip| !routers.has(*vip))
    }
}

/// Families that the responder of a switch answers for at present.
fn present_families(installation: Installation, switch: Uuid, nb: &Northbound) -> Families {
    let Responder { router, router_port, .. } = Responder::of(installation, switch);
    if nb.logical_router.get(&router).is_none() {
        return Families::NONE;
    }
    // A responder that lost its port gets it back; its families are unknown.
    nb.logical_router_port.get(&router_port).map_or(Families::BOTH, |port| families_of(&port.networks))
}

/// Families of a responder's `networks`, by their /0 addresses, which are fewer than the host addresses. If someone has removed both,
/// by the host addresses.
fn families_of(networks: &BTreeSet<String>) -> Families {
    let families = Families { v4: networks.contains(EVERYTHING_V4), v6: networks.contains(EVERYTHING_V6) };
    if families.is_empty() {
        return Families::of(networks.iter().filter_map(|network| network.split('/').next()?.parse().ok()));
    }
    families
}

/// Builds the rows of a network. Without VIPs, these are the ports of proxy nodes only.
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

/// `Logical_Router_Port.networks` of a responder: for each of its families a link-local address with a /0, and the VIPs as host
/// addresses.
fn networks(families: Families, vips: &BTreeSet<IpAddr>) -> BTreeSet<String> {
    let everything = [(families.v4, EVERYTHING_V4), (families.v6, EVERYTHING_V6)];
    let everything =
        everything.into_iter().filter(|(has_family, _)| *has_family).map(|(_, text)| text.to_owned());
    let hosts = vips.iter().filter(|vip| families.has(**vip)).map(|vip| host(*vip));
    everything.chain(hosts).collect()
}

fn host(vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(vip) => format!("{vip}/32"),
        IpAddr::V6(vip) => format!("{vip}/128"),
    }
}

/// VIP of an element of a responder's `networks`; `None` for any other text.
#[must_use]
pub fn vip_of(network: &str) -> Option<IpAddr> {
    let vip = network.split('/').next()?.parse().ok()?;
    (host(vip) == network).then_some(vip)
}

/// True if the responder of a switch answers for a VIP.
#[must_use]
pub fn is_answered(installation: Installation, switch: Uuid, vip: IpAddr, nb: &Northbound) -> bool {
    let port = nb.logical_router_port.get(&Responder::router_port(installation, switch));
    port.is_some_and(|port| port.networks.contains(&host(vip)))
}

/// Plans that the responder of a switch, if there is one, starts or stops answering for VIPs: the part of [`network`] that a load
/// balancer changes when it is created or deleted, at a cost that is independent of the size of the network.
#[must_use]
pub fn answer(
    installation: Installation,
    switch: Uuid,
    operation: StepOperation,
    vips: &[IpAddr],
    nb: &Northbound,
) -> Vec<Step> {
    let uuid = Responder::router_port(installation, switch);
    let Some(port) = nb.logical_router_port.get(&uuid) else { return Vec::new() };
    let families = families_of(&port.networks);
    let is_present =
        |network: &String| port.networks.contains(network) == (operation == StepOperation::Insert);
    let own = vips.iter().filter(|vip| families.has(**vip));
    let missing = own.map(|vip| host(*vip)).filter(|network| !is_present(network));
    missing.map(|network| Step::Network(operation, uuid, network)).collect()
}

/// Locally administered unicast MAC (IEEE 802) of a row, derived from its UUID.
pub(super) fn mac_of(row: Uuid) -> String {
    let [a, b, c, d, e, ..] = *row.as_bytes();
    format!("0e:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// Adds the port that reserves a load balancer's addresses in OVN's IPAM. Of type `external`, which does not answer ARP; a port of
/// another type would, with its own MAC, and swallow the traffic.
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
