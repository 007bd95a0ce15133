//! What all load balancers on one logical switch share: the group that attaches their rows, and the responder router that
//! answers for their VIPs where the tenant has no router. And the port that keeps a VIP's address from OVN's IPAM.
//!
//! Measured on OVN 23.03: a VIP in a switch's own subnet is reachable when its row is on the switch and on a router that
//! answers ARP for it. The responder's port carries a /0, which makes it answer for every VIP of its rows without taking
//! an address of the tenant, and each VIP as a host address, which makes it answer pings and refuse closed ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::{Desired, Installation, NodePort, OWNER_KEY, Owner, Row, Step, StepOperation, Topology};
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
    let hosts = vips.iter().map(|vip| host(*vip));
    hosts.chain(["169.254.77.1/0".to_owned(), "fe80::77/0".to_owned()]).collect()
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
    let is_so = |network: &String| port.networks.contains(network) == (way == StepOperation::Insert);
    let missing = vips.iter().map(|vip| host(*vip)).filter(|network| !is_so(network));
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
mod tests {
    use super::*;
    use crate::ovsdb::replica::{Replica as _, RowChange, RowUpdate};

    const SWITCH: Uuid = Uuid::from_u128(5);

    fn wish(vips: &[&str], responder: bool) -> Network {
        Network {
            installation: Installation(Uuid::from_u128(1)),
            switch: SWITCH,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            responder,
            node_ports: Vec::new(),
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
    #[test]
    fn an_element_of_networks_is_a_vip_or_is_not() {
        for vip in ["10.0.0.9", "fd00::9"] {
            let vip: IpAddr = vip.parse().unwrap();
            assert_eq!(vip_of(&host(vip)), Some(vip));
        }
        for other in ["169.254.77.1/0", "fe80::77/0", "10.0.0.9/24", "10.0.0.9", "fd00:0::9/128", "x/32", ""]
        {
            assert_eq!(vip_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_responder_is_told_of_vips_that_come_and_go_and_of_no_others() {
        let installation = Installation(Uuid::from_u128(1));
        let port = Responder::router_port(installation, SWITCH);
        let [known, new]: [IpAddr; 2] = ["10.0.0.8", "fd00::9"].map(|vip| vip.parse().unwrap());
        let steps = |way, nb: &Northbound| answer(installation, SWITCH, way, &[known, new], nb);
        let mut nb = Northbound::default();
        assert_eq!(steps(StepOperation::Insert, &nb), []);

        let row = LogicalRouterPort { networks: networks(&[known].into()), ..Default::default() }.to_row();
        let (table, change) = ("Logical_Router_Port".to_owned(), RowChange::Insert(row));
        nb.apply(vec![RowUpdate { table, uuid: port, change }]).unwrap();
        assert!(is_answered(installation, SWITCH, known, &nb));
        assert!(!is_answered(installation, SWITCH, new, &nb));
        let network = |way, text: &str| [Step::Network(way, port, text.to_owned())];
        let (come, go) = (StepOperation::Insert, StepOperation::Delete);
        assert_eq!(steps(come, &nb), network(come, "fd00::9/128"));
        assert_eq!(steps(go, &nb), network(go, "10.0.0.8/32"));
    }
}
