//! A tenant network that is placed on the node.

use std::net::IpAddr;

use fiberlb_node::netlink::Mac;
use fiberlb_proto::agent::v1;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::invalid::{ResourceError, bounded, distinct, field, host, id, parse};
use super::{Resource, ResourceKind};

/// Longest name of a logical switch port, in bytes.
const PORT_NAME_BYTES: usize = 255;
/// Most nodes' addresses that one network can have.
const MOST_NODES: usize = 10_000;
/// Most VIPs that one network can have on its namespaces.
const MOST_VIPS: usize = 10_000;
/// Most routes that one network can have beside the default ones.
const MOST_ROUTES: usize = 1_000;
/// Most further addresses of a node on one network.
const MOST_SOURCES: usize = 64;
/// Least MTU of every link with IPv4 (RFC 791), in bytes.
const LEAST_MTU: u32 = 68;
/// Least MTU of every link with IPv6 (RFC 8200), in bytes.
const LEAST_MTU_V6: u32 = 1280;
/// Largest MTU of a veth, in bytes.
const MOST_MTU: u32 = 65_535;

/// A tenant network that is placed on the node: it gets a namespace, plugged into the integration bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// UUID of the logical switch.
    pub id: Uuid,
    /// Name of the node's logical switch port.
    pub port_name: String,
    /// MAC address of the namespace's link. No group address.
    pub mac: Mac,
    /// The node's own addresses, at most one of each family, at least one.
    pub addresses: Vec<IpNetwork>,
    /// Further addresses of the node, by which it connects to backends beside its own.
    pub sources: Vec<IpNetwork>,
    /// Next hops of default routes, at most one of each family. Those of a family without an address are left
    /// out when they are parsed: they would lead nowhere.
    pub gateways: Vec<IpAddr>,
    /// Routes beside the default ones, with next hops of families in which it has an address.
    pub routes: Vec<Route>,
    /// MTU, in bytes.
    pub mtu: u32,
    /// Addresses of all nodes on it, as far as the plugin sends them.
    pub nodes: Vec<IpAddr>,
    /// VIPs with DIRECT exposure, whichever node holds them.
    pub vips: Vec<Vip>,
    /// VIPs that this node held, and OVN answers for now.
    pub answered: Vec<AnsweredVip>,
}

/// A route to a network behind a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network, without bits of a host.
    pub destination: IpNetwork,
    /// Address of the router, of the same family.
    pub next_hop: IpAddr,
}

/// A VIP that one node at a time puts on its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Id of the VIP between plugin and nodes.
    pub id: Uuid,
    /// The address.
    pub address: IpAddr,
    /// True if this node holds it.
    pub held: bool,
}

/// A VIP that OVN answers for, while neighbours may still know it at the MAC of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredVip {
    /// The address.
    pub address: IpAddr,
    /// MAC at which OVN answers. No group address.
    pub mac: Mac,
}

impl Network {
    /// True if an address is in a subnet of the network, or behind a router of it.
    #[must_use]
    pub fn has_route(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.contains(address))
            || self.gateways.iter().any(|gateway| gateway.is_ipv4() == address.is_ipv4())
            || self.routes.iter().any(|route| route.destination.contains(address))
    }

    /// Addresses of the node itself, without VIPs: its own ones come first.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().chain(&self.sources).map(IpNetwork::ip)
    }

    /// The VIPs that this node holds.
    pub fn held(&self) -> impl Iterator<Item = &Vip> {
        self.vips.iter().filter(|vip| vip.held)
    }
}

impl Resource for Network {
    type Wire = v1::Network;
    const KIND: ResourceKind = ResourceKind::Network;

    fn read(id: Uuid, wire: &v1::Network) -> Result<Self, ResourceError> {
        bounded("vips", wire.vips.len(), MOST_VIPS)?;
        bounded("answered_vips", wire.answered_vips.len(), MOST_VIPS)?;
        bounded("node_addresses", wire.node_addresses.len(), MOST_NODES)?;
        bounded("source_addresses", wire.source_addresses.len(), MOST_SOURCES)?;
        bounded("routes", wire.routes.len(), MOST_ROUTES)?;
        let mut network = Self {
            id,
            port_name: port_name(&wire.port_name)?,
            mac: mac("mac", &wire.mac)?,
            addresses: addresses("addresses", &wire.addresses)?,
            sources: addresses("source_addresses", &wire.source_addresses)?,
            gateways: wire.gateways.iter().map(|text| gateway(text)).collect::<Result<_, _>>()?,
            routes: wire.routes.iter().map(route).collect::<Result<_, _>>()?,
            mtu: wire.mtu,
            nodes: wire.node_addresses.iter().map(|text| node(text)).collect::<Result<_, _>>()?,
            vips: wire.vips.iter().map(vip).collect::<Result<_, _>>()?,
            answered: wire.answered_vips.iter().map(answered).collect::<Result<_, _>>()?,
        };
        network.check()?;
        let Self { addresses, gateways, routes, .. } = &mut network;
        let has_family = |hop: IpAddr| addresses.iter().any(|own| own.is_ipv4() == hop.is_ipv4());
        gateways.retain(|gateway| has_family(*gateway));
        routes.retain(|route| has_family(route.next_hop));
        Ok(network)
    }
}

impl Network {
    fn check(&self) -> Result<(), ResourceError> {
        if self.addresses.is_empty() {
            return Err(field("addresses", "", "there is none"));
        }
        family_once("addresses", self.addresses.iter().map(|it| it.ip()))?;
        family_once("gateways", self.gateways.iter().copied())?;
        distinct("routes", self.routes.iter().map(|route| route.destination))?;
        distinct("source_addresses", self.hosts())?;
        distinct("vips", self.vips.iter().map(|vip| vip.id))?;
        distinct("vips", self.vips.iter().map(|vip| vip.address))?;
        if let Some(own) = self.vips.iter().find(|vip| self.hosts().any(|host| host == vip.address)) {
            return Err(field("vips", &own.address, "it is the node's own address"));
        }
        self.check_mtu()
    }

    fn check_mtu(&self) -> Result<(), ResourceError> {
        let mut addresses = self.hosts().chain(self.vips.iter().map(|vip| vip.address));
        let least = if addresses.any(|address| address.is_ipv6()) { LEAST_MTU_V6 } else { LEAST_MTU };
        if (least..=MOST_MTU).contains(&self.mtu) {
            return Ok(());
        }
        Err(field("mtu", &self.mtu, "must be 68 (with IPv6 1280) to 65535"))
    }
}

fn mac(name: &'static str, text: &str) -> Result<Mac, ResourceError> {
    let mac: Mac = parse(name, text, "not six pairs of hexadecimal digits with colons")?;
    let [first, ..] = mac.0;
    if first & 1 == 1 || mac.0 == [0; 6] {
        return Err(field(name, &mac, "not the address of one link"));
    }
    Ok(mac)
}

fn answered(wire: &v1::AnsweredVip) -> Result<AnsweredVip, ResourceError> {
    let address = parse("answered_vips.address", &wire.address, "not an IP address")?;
    let mac = mac("answered_vips.mac", &wire.mac)?;
    Ok(AnsweredVip { address: host("answered_vips.address", address)?, mac })
}

fn port_name(text: &str) -> Result<String, ResourceError> {
    let legal = !text.is_empty() && text.len() <= PORT_NAME_BYTES && !text.chars().any(char::is_control);
    if legal {
        Ok(text.to_owned())
    } else {
        Err(field("port_name", text, "must be 1 to 255 printable bytes"))
    }
}

fn addresses(name: &'static str, texts: &[String]) -> Result<Vec<IpNetwork>, ResourceError> {
    let read = |text: &String| {
        let network: IpNetwork = parse(name, text, "not ADDRESS/PREFIX")?;
        if !text.contains('/') || network.prefix() == 0 {
            return Err(field(name, text, "has no prefix length"));
        }
        host(name, network.ip())?;
        Ok(network)
    };
    texts.iter().map(read).collect()
}

fn gateway(text: &str) -> Result<IpAddr, ResourceError> {
    host("gateways", parse("gateways", text, "not an IP address")?)
}

fn route(wire: &v1::Route) -> Result<Route, ResourceError> {
    let destination: IpNetwork = parse("routes.destination", &wire.destination, "not NETWORK/PREFIX")?;
    let next_hop = host("routes.next_hop", parse("routes.next_hop", &wire.next_hop, "not an IP address")?)?;
    if destination.ip() != destination.network() {
        return Err(field("routes.destination", &destination, "has bits of a host"));
    }
    if destination.prefix() == 0 {
        return Err(field("routes.destination", &destination, "is a default route: see gateways"));
    }
    if destination.is_ipv4() != next_hop.is_ipv4() {
        return Err(field("routes.next_hop", &next_hop, "is of another family than the destination"));
    }
    Ok(Route { destination, next_hop })
}

fn node(text: &str) -> Result<IpAddr, ResourceError> {
    host("node_addresses", parse("node_addresses", text, "not an IP address")?)
}

fn vip(wire: &v1::Vip) -> Result<Vip, ResourceError> {
    let address = parse("vips.address", &wire.address, "not an IP address")?;
    Ok(Vip { id: id("vips.id", &wire.id)?, address: host("vips.address", address)?, held: wire.held })
}

fn family_once(name: &'static str, addresses: impl Iterator<Item = IpAddr>) -> Result<(), ResourceError> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.partition(IpAddr::is_ipv4);
    match [v4, v6].iter().find_map(|family| family.get(1)) {
        Some(second) => Err(field(name, second, "there is one of its family already")),
        None => Ok(()),
    }
}
