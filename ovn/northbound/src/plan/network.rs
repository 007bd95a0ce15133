//! Rows that all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers for their VIPs.
//!
//! A VIP in a switch's own subnet is reachable if its row is on the switch and a router answers ARP and ND for it. The one who answers
//! must be able to forward to each backend, be the only one, and keep its MAC: so that is always the responder, from the
//! network's first VIP to its last, whatever routers the tenant has. Its port has a /0, with which every address counts as on the
//! link and none of the tenant's is taken. It answers for the VIPs by a group of answer rows, or by host addresses of its port, with
//! which it also answers to pings and on closed ports ([`AnswerForm`]). To what is behind the tenant's routers it forwards by
//! policies. The tenant's routers have the group only where they are a way out: clients behind others are balanced by the group on
//! their own switch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use super::answer::host;
use super::reservation::add_silent_ports;
use super::{AnswerForm, Desired, Installation, NodePort, OWNER_KEY, Owner, Row, Topology};
use crate::{
    LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort, LogicalSwitchPort, TableKind,
};

/// Addresses of a responder itself, link-local ones that cover all of a family.
const EVERYTHING: [&str; 2] = ["169.254.77.1/0", "fe80::77/0"];
/// End of the name of the group of a network's answer rows, after its owner.
const ANSWERS: &str = "#answers";
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
    /// Form of the responder's answers.
    pub form: AnswerForm,
    /// VIPs on the switch that the responder answers for.
    pub vips: BTreeSet<IpAddr>,
    /// VIPs among them that are addresses of the responder's port: all where these are its answers, else those without an answer row
    /// yet.
    pub addresses: BTreeSet<IpAddr>,
    /// VIPs of each load balancer that silent ports keep from OVN's IPAM, by the UUID of the port that it would have alone; none where
    /// answers are addresses.
    pub reserved: BTreeMap<Uuid, BTreeSet<IpAddr>>,
    /// Ports of proxy nodes on the switch.
    pub node_ports: Vec<NodePort>,
}

impl Network {
    /// UUID of the `Load_Balancer_Group` that the rows of the network's load balancers belong to.
    #[must_use]
    pub fn group(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("group", &switch.to_string())
    }

    /// UUID of the `Load_Balancer_Group` of the network's answer rows.
    #[must_use]
    pub fn answers(installation: Installation, switch: Uuid) -> Uuid {
        installation.row("answers", &switch.to_string())
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
    responder.add_to(&mut desired, network, owner);
    add_silent_ports(&mut desired, owner, switch, &network.reserved);
    let switches = topology.switches.iter().map(|uuid| (TableKind::LogicalSwitch, *uuid));
    let ways_out = topology.ways_out.iter().map(|uuid| (TableKind::LogicalRouter, *uuid));
    let mut holders: Vec<_> = switches.chain(ways_out).collect();
    let responder_holds = (TableKind::LogicalRouter, responder.router);
    match network.form {
        AnswerForm::Rows => {
            let name = format!("{owner}{ANSWERS}");
            add_group(&mut desired, Network::answers(installation, switch), name, [responder_holds]);
        }
        AnswerForm::Networks => holders.push(responder_holds),
    }
    add_group(&mut desired, Network::group(installation, switch), owner.to_string(), holders);
    for Policy { name, priority, packets, next_hop } in policies(topology) {
        let policy = LogicalRouterPolicy {
            priority,
            r#match: packets,
            action: "reroute".to_owned(),
            nexthops: Set::from([next_hop.to_string()]),
            external_ids: Map::from([(OWNER_KEY.to_owned(), owner.to_string())]),
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

/// Adds a group with the switches and routers that refer to it.
fn add_group(
    desired: &mut Desired,
    uuid: Uuid,
    name: String,
    holders: impl IntoIterator<Item = (TableKind, Uuid)>,
) {
    let group = LoadBalancerGroup { name, ..LoadBalancerGroup::default() };
    let holders = holders.into_iter().map(|(table, uuid)| (table, uuid, "load_balancer_group"));
    desired.add(uuid, Row::LoadBalancerGroup(group), holders);
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
        for (index, (next_hop, hop)) in topology.hops(is_v4).enumerate() {
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
pub(super) struct Responder {
    pub(super) router: Uuid,
    pub(super) router_port: Uuid,
    switch_port: Uuid,
}

impl Responder {
    pub(super) fn of(installation: Installation, switch: Uuid) -> Self {
        let row = |kind| installation.row(kind, &switch.to_string());
        Self {
            router: row("responder"),
            router_port: row("responder-router-port"),
            switch_port: row("responder-switch-port"),
        }
    }

    fn add_to(&self, desired: &mut Desired, network: &Network, owner: Owner) {
        let external_ids = Map::from([(OWNER_KEY.to_owned(), owner.to_string())]);
        let router_port_name = format!("fiberlb-responder-{}", self.router_port);
        let router = LogicalRouter {
            name: format!("fiberlb-responder-{}", network.switch),
            external_ids: external_ids.clone(),
            ..LogicalRouter::default()
        };
        let router_port = LogicalRouterPort {
            name: router_port_name.clone(),
            mac: mac_of(self.router_port),
            networks: networks(&network.addresses),
            external_ids: external_ids.clone(),
            ..LogicalRouterPort::default()
        };
        let switch_port = LogicalSwitchPort {
            name: format!("fiberlb-responder-{}", self.switch_port),
            r#type: "router".to_owned(),
            options: Map::from([("router-port".to_owned(), router_port_name)]),
            addresses: Set::from(["router".to_owned()]),
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

/// `Logical_Router_Port.networks` of a responder: link-local addresses with a /0, and VIPs as host addresses.
fn networks(addresses: &BTreeSet<IpAddr>) -> Set<String> {
    EVERYTHING.iter().map(|text| (*text).to_owned()).chain(addresses.iter().map(|vip| host(*vip))).collect()
}

/// MAC at which the responder of a switch answers for VIPs.
#[must_use]
pub fn responder_mac(installation: Installation, switch: Uuid) -> String {
    mac_of(Responder::of(installation, switch).router_port)
}

/// Locally administered unicast MAC (IEEE 802) of a row, derived from its UUID.
pub(super) fn mac_of(row: Uuid) -> String {
    let [a, b, c, d, e, ..] = *row.as_bytes();
    format!("0e:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

#[cfg(test)]
mod tests;
