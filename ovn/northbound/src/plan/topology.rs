//! Surroundings of a tenant network: its routers, the switches behind them, and its subnets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv6Network};
use uuid::Uuid;

use super::OWNER_KEY;
use crate::{LogicalRouter, LogicalRouterPort, LogicalSwitch, Northbound};

/// Switches and routers that the rows of one logical switch are attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Tenant routers with a port on the switch that are a way out: they balance what arrives from outside. FiberLB's own responders
    /// are excluded.
    pub ways_out: BTreeSet<Uuid>,
    /// Tenant routers with an address on the switch that are switched on, and what is behind them; a way out comes first.
    pub next_hops: Vec<NextHop>,
    /// Networks on the switch itself.
    pub own: BTreeSet<IpNetwork>,
    /// Switches behind these routers that may have clients, including the switch itself. External networks of a router are excluded:
    /// tenants share them, and packets of one tenant must not reach the VIPs of another there. The router balances what arrives from
    /// them. So are switches with the same networks: machines there have the addresses of this switch for their own neighbours'.
    pub switches: BTreeSet<Uuid>,
}

/// Tenant router, by which the switch reaches other networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Router.
    pub router: Uuid,
    /// Its addresses on the switch, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Networks on its other ports.
    pub behind: BTreeSet<IpNetwork>,
}

impl Topology {
    /// Surroundings of `switch`; `None` if it does not exist.
    #[must_use]
    pub fn of(switch: Uuid, nb: &Northbound) -> Option<Self> {
        nb.logical_switch.get(&switch)?;
        let ports: BTreeSet<Uuid> = router_ports(switch, nb).collect();
        let routers: BTreeSet<Uuid> = ports.iter().filter_map(|port| tenant_router(*port, nb)).collect();
        let ways_out: BTreeSet<Uuid> =
            routers.iter().copied().filter(|router| is_way_out(*router, nb)).collect();
        let routed = ports.iter().filter(|port| tenant_router(**port, nb).is_some());
        let routed = routed.filter_map(|port| nb.logical_router_port.get(port)).flat_map(networks_of);
        let own: BTreeSet<IpNetwork> =
            subnets(switch, nb).into_iter().chain(routed).filter_map(network_of).collect();
        let behind = routers.iter().flat_map(|router| inner_switches(*router, &own, nb));
        let switches = behind.chain([switch]).collect();
        let is_enabled =
            |router: &&Uuid| nb.logical_router.get(router).is_some_and(LogicalRouter::is_enabled);
        let enabled = routers.iter().filter(is_enabled);
        let mut next_hops: Vec<NextHop> =
            enabled.map(|router| NextHop::of(*router, &ports, &own, nb)).collect();
        next_hops.retain(|hop| !hop.addresses.is_empty());
        next_hops.sort_by_key(|hop| !ways_out.contains(&hop.router));
        Some(Self { ways_out, next_hops, own, switches })
    }
}

impl NextHop {
    /// `ports`: the router ports on the switch; `own`: the networks there.
    fn of(router: Uuid, ports: &BTreeSet<Uuid>, own: &BTreeSet<IpNetwork>, nb: &Northbound) -> Self {
        let all = || nb.logical_router.get(&router).into_iter().flat_map(|row| &row.ports);
        let rows = |on_switch: bool| {
            let rows = all().filter(move |port| ports.contains(port) == on_switch);
            let rows = rows.filter_map(|port| nb.logical_router_port.get(port));
            rows.filter(|port| port.is_enabled()).flat_map(networks_of)
        };
        let behind = rows(false).filter_map(network_of).filter(|network| !own.contains(network)).collect();
        Self { router, addresses: one_of_each_family(rows(true).map(|network| network.ip())), behind }
    }
}

/// Routes of an endpoint on a switch to what is not on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Next hops of default routes, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Networks that are behind another router than the default one, each once, with its address.
    pub others: Vec<(IpNetwork, IpAddr)>,
}

impl Topology {
    /// Routers with an address of a family: by the first one everything is reached that is not on the switch, by each other one
    /// what is behind it.
    pub(super) fn hops(&self, is_v4: bool) -> impl Iterator<Item = (IpAddr, &NextHop)> {
        self.next_hops.iter().filter_map(move |hop| {
            let address = hop.addresses.iter().find(|address| address.is_ipv4() == is_v4)?;
            Some((*address, hop))
        })
    }

    /// Routes of an endpoint on the switch.
    #[must_use]
    pub fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        for is_v4 in [true, false] {
            let mut hops = self.hops(is_v4);
            let Some((gateway, default)) = hops.next() else { continue };
            routes.gateways.push(gateway);
            // What the default route leads to stays there.
            let mut known: BTreeSet<IpNetwork> = default.behind.clone();
            for (next_hop, hop) in hops {
                let behind = hop.behind.iter().filter(|network| network.is_ipv4() == is_v4);
                let new = behind.filter(|network| is_routed(network) && known.insert(**network));
                routes.others.extend(new.map(|network| (*network, next_hop)));
            }
        }
        routes
    }
}

/// True for two networks with an address in common.
fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}

/// True for a network of unicast addresses, which is not everything.
fn is_routed(network: &IpNetwork) -> bool {
    let first = network.network();
    !(first.is_unspecified() || first.is_loopback() || first.is_multicast())
}

/// The network itself of an address with a prefix length.
fn network_of(address: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(address.network(), address.prefix()).ok()
}

fn one_of_each_family(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in addresses {
        if !found.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            found.push(address);
        }
    }
    found
}

/// Router ports that a switch is connected to.
pub(super) fn router_ports(switch: Uuid, nb: &Northbound) -> impl Iterator<Item = Uuid> + '_ {
    nb.router_links(switch).filter_map(|name| nb.router_port_named(name))
}

pub(super) fn tenant_router(port: Uuid, nb: &Northbound) -> Option<Uuid> {
    let router = nb.router_of_port(port)?;
    let row = nb.logical_router.get(&router)?;
    (!row.external_ids.contains_key(OWNER_KEY)).then_some(router)
}

/// Switches with a port that connects to `router`.
pub fn switches_behind(router: Uuid, nb: &Northbound) -> impl Iterator<Item = Uuid> + '_ {
    ports_of(router, nb).flat_map(|port| nb.switches_linked_to(&port.name))
}

fn ports_of(router: Uuid, nb: &Northbound) -> impl Iterator<Item = &LogicalRouterPort> {
    let ports = nb.logical_router.get(&router).into_iter().flat_map(|row| &row.ports);
    ports.filter_map(|port| nb.logical_router_port.get(port))
}

/// True if a router is a gateway router or has a gateway port: what arrives from outside is bound to a chassis there.
fn is_way_out(router: Uuid, nb: &Northbound) -> bool {
    is_gateway_router(router, nb) || ports_of(router, nb).any(is_gateway_port)
}

fn is_gateway_router(router: Uuid, nb: &Northbound) -> bool {
    nb.logical_router.get(&router).is_some_and(|row| row.options.contains_key("chassis"))
}

fn is_gateway_port(port: &LogicalRouterPort) -> bool {
    !port.gateway_chassis.is_empty() || port.ha_chassis_group.is_some()
}

/// Switches behind `router` that are not external: not behind a gateway port, and, of a gateway router, not physical networks; and that
/// have other networks than `own`.
fn inner_switches<'a>(
    router: Uuid,
    own: &'a BTreeSet<IpNetwork>,
    nb: &'a Northbound,
) -> impl Iterator<Item = Uuid> + 'a {
    let is_gateway = is_gateway_router(router, nb);
    let is_own = |network: IpNetwork| own.iter().any(|own| overlap(*own, network));
    let inner =
        ports_of(router, nb).filter(move |port| !is_gateway_port(port) && !networks_of(port).any(is_own));
    let switches = inner.flat_map(|port| nb.switches_linked_to(&port.name));
    switches.filter(move |switch| !(is_gateway && nb.is_physical(*switch)))
}

/// True if there are networks behind a second router, beyond those behind the tenant routers of `switch`: no client there is balanced.
#[must_use]
pub fn has_distant_networks(switch: Uuid, nb: &Northbound) -> bool {
    let Some(Topology { own, switches, .. }) = Topology::of(switch, nb) else { return false };
    let near = switches.iter().filter(|near| **near != switch).flat_map(|near| router_ports(*near, nb));
    let mut routers = near.filter_map(|port| tenant_router(port, nb));
    routers.any(|router| inner_switches(router, &own, nb).any(|other| !switches.contains(&other)))
}

/// Traits of a network that load balancing by OVN depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkTraits {
    /// True if the switch exists.
    pub exists: bool,
    /// True if it has a port to a physical network: each chassis on that answers there for a VIP, and balances what it receives.
    pub is_physical: bool,
    /// True if it, or a switch behind a tenant router of it, has rules that pass packets by load balancing.
    pub has_stateless_acls: bool,
}

impl NetworkTraits {
    /// Traits of `switch`.
    #[must_use]
    pub fn of(switch: Uuid, nb: &Northbound) -> Self {
        if nb.logical_switch.get(&switch).is_none() {
            return Self::default();
        }
        let is_stateless =
            |topology: Topology| topology.switches.into_iter().any(|switch| nb.has_stateless_acls(switch));
        let has_stateless_acls =
            nb.knows_stateless_acls() && Topology::of(switch, nb).is_some_and(is_stateless);
        Self { exists: true, is_physical: nb.is_physical(switch), has_stateless_acls }
    }
}

/// Subnets of a switch: those of its IPAM, otherwise those of its router ports, otherwise those of which Neutron tells by DHCP, or
/// by the addresses of ports.
/// Link-local ones are excluded.
#[must_use]
pub fn subnets(switch: Uuid, nb: &Northbound) -> Vec<IpNetwork> {
    let Some(row) = nb.logical_switch.get(&switch) else { return Vec::new() };
    let own_v4 = row.other_config.get("subnet").and_then(|text| text.parse().ok());
    let own_v6 = row.other_config.get("ipv6_prefix").and_then(|text| prefix64(text));
    let mut found: Vec<IpNetwork> = own_v4.into_iter().chain(own_v6).collect();

    let ports = router_ports(switch, nb).filter(|port| tenant_router(*port, nb).is_some());
    let routed = ports.filter_map(|port| nb.logical_router_port.get(&port)).flat_map(networks_of);
    extend_families(&mut found, routed.collect());
    let served = nb.neutron_subnets(row).filter_map(|row| row.cidr.parse().ok());
    extend_families(&mut found, served.collect());
    if found.is_empty() && row.neutron_network().is_some() {
        found.extend(port_subnets(row, nb));
    }
    found
}

/// Subnets of a switch by the addresses that Neutron gave to its ports: before release 28 its DHCP options do not say whose they are.
fn port_subnets(switch: &LogicalSwitch, nb: &Northbound) -> BTreeSet<IpNetwork> {
    let ports = switch.ports.iter().filter_map(|port| nb.logical_switch_port.get(port));
    let cidrs = ports.filter_map(|port| port.external_ids.get("neutron:cidrs"));
    let networks = cidrs.flat_map(|text| text.split_whitespace()).filter_map(|word| word.parse().ok());
    networks.filter_map(network_of).collect()
}

/// Adds the networks of a family of which none is there yet.
fn extend_families(found: &mut Vec<IpNetwork>, mut others: Vec<IpNetwork>) {
    others.retain(|network| !found.iter().any(|known| known.is_ipv4() == network.is_ipv4()));
    found.extend(others);
}

/// MTU of a switch in bytes, if Neutron has recorded it (`external_ids:neutron:mtu`).
#[must_use]
pub fn mtu(switch: Uuid, nb: &Northbound) -> Option<u32> {
    nb.logical_switch.get(&switch)?.external_ids.get("neutron:mtu")?.parse().ok()
}

/// Parses `other_config:ipv6_prefix`, a /64 that is written with or without its length (ovn-nb(5)).
fn prefix64(text: &str) -> Option<IpNetwork> {
    let address: Ipv6Addr = text.split('/').next()?.parse().ok()?;
    Some(IpNetwork::V6(Ipv6Network::new(address, 64).ok()?))
}

pub(super) fn networks_of(port: &LogicalRouterPort) -> impl Iterator<Item = IpNetwork> + '_ {
    let networks = port.networks.iter().filter_map(|text| text.parse::<IpNetwork>().ok());
    networks.filter(|network| match network.ip() {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

#[cfg(test)]
mod tests;
