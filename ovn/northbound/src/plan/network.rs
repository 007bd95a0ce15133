//! Rows that all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers for their VIPs. And the port that reserves a VIP's address in OVN's IPAM.
//!
//! A VIP in a switch's own subnet is reachable if its row is on the switch and a router answers ARP and ND for it. The one who answers
//! must be able to forward to each backend, be the only one, and keep its MAC: so that is always the responder, from the
//! network's first VIP to its last, whatever routers the tenant has. Its port has a /0, with which every address counts as on the
//! link and none of the tenant's is taken, and each VIP as a host address, for which it answers, also to pings and on closed ports.
//! To what is behind the tenant's routers it forwards by policies. The tenant's routers have the group only where they are a way
//! out: clients behind others are balanced by the group on their own switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::{Desired, Installation, NodePort, OWNER_KEY, Owner, Row, Step, StepOperation, Topology};
use crate::{
    LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort, LogicalSwitchPort, Northbound,
    TableKind,
};

/// Addresses of a responder itself, link-local ones that cover all of a family.
const EVERYTHING: [&str; 2] = ["169.254.77.1/0", "fe80::77/0"];
/// Priority of the policy for all that is not on the switch.
const TO_THE_REST: i64 = 100;
/// Priority of a policy for certain networks.
const TO_NETWORKS: i64 = 200;

/// Desired state of a logical switch that has VIPs, or has had them.
#[derive(Clone, Debug)]
pub struct Network {
    /// Installation.
    pub installation: Installation,
    /// Logical switch of the tenant.
    pub switch: Uuid,
    /// VIPs on the switch that the responder answers for.
    pub vips: BTreeSet<IpAddr>,
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
    let responder = Responder::of(installation, switch);
    let switches = topology.switches.iter().map(|uuid| (TableKind::LogicalSwitch, *uuid));
    let routers = topology.ways_out.iter().chain([&responder.router]);
    let holders = switches.chain(routers.map(|uuid| (TableKind::LogicalRouter, *uuid)));
    let group = LoadBalancerGroup { name: owner.to_string(), ..LoadBalancerGroup::default() };
    desired.add(
        Network::group(installation, switch),
        Row::LoadBalancerGroup(group),
        holders.map(|(table, uuid)| (table, uuid, "load_balancer_group")),
    );
    responder.add_to(&mut desired, network, owner);
    for Policy { name, priority, packets, next_hop } in policies(topology) {
        let policy = LogicalRouterPolicy {
            priority,
            r#match: packets,
            action: "reroute".to_owned(),
            nexthops: BTreeSet::from([next_hop.to_string()]),
            external_ids: BTreeMap::from([(OWNER_KEY.to_owned(), owner.to_string())]),
        };
        let uuid = installation.row("responder-policy", &format!("{switch} {name}"));
        desired.add(
            uuid,
            Row::LogicalRouterPolicy(policy),
            [(TableKind::LogicalRouter, responder.router, "policies")],
        );
    }
    desired
}

/// Policy of a responder.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    /// Name, unique among those of the responder.
    name: String,
    priority: i64,
    /// Packets that it is for.
    packets: String,
    next_hop: IpAddr,
}

/// Policies by which a responder reaches what is not on its switch: the first router of a family is the way to all of it, and another
/// one to what is behind that alone.
fn policies(topology: &Topology) -> Vec<Policy> {
    let mut policies = Vec::new();
    for (family, is_v4) in [("ip4", true), ("ip6", false)] {
        let of_family = |networks: &BTreeSet<IpNetwork>| -> Vec<String> {
            networks.iter().filter(|network| network.is_ipv4() == is_v4).map(ToString::to_string).collect()
        };
        let hops = topology.next_hops.iter().filter_map(|hop| {
            let address = hop.addresses.iter().find(|address| address.is_ipv4() == is_v4)?;
            Some((*address, hop))
        });
        for (index, (next_hop, hop)) in hops.enumerate() {
            let (name, priority, operator, networks) = if index == 0 {
                let mut own = of_family(&topology.own);
                own.extend((!is_v4).then(|| "fe80::/10".to_owned()));
                (family.to_owned(), TO_THE_REST, "!=", own)
            } else {
                (format!("{family} {}", hop.router), TO_NETWORKS, "==", of_family(&hop.behind))
            };
            if !networks.is_empty() {
                let packets = format!("{family}.dst {operator} {{{}}}", networks.join(", "));
                policies.push(Policy { name, priority, packets, next_hop });
            }
        }
    }
    policies
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

/// `Logical_Router_Port.networks` of a responder: link-local addresses with a /0, and the VIPs as host addresses.
fn networks(vips: &BTreeSet<IpAddr>) -> BTreeSet<String> {
    EVERYTHING.iter().map(|text| (*text).to_owned()).chain(vips.iter().map(|vip| host(*vip))).collect()
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
    let is_present =
        |network: &String| port.networks.contains(network) == (operation == StepOperation::Insert);
    let missing = vips.iter().map(|vip| host(*vip)).filter(|network| !is_present(network));
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
