//! Surroundings of a tenant network: its routers, the switches behind them, its subnets, and the holders of addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv6Network};
use uuid::Uuid;

use super::OWNER_KEY;
use crate::{LogicalRouterPort, LogicalSwitch, Northbound};

/// Switches and routers that the rows of one logical switch are attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Tenant routers with a port on the switch that are a way out: they balance what arrives from outside. FiberLB's own responders
    /// are excluded.
    pub ways_out: BTreeSet<Uuid>,
    /// Tenant routers with an address on the switch, and what is behind them; a way out comes first.
    pub next_hops: Vec<NextHop>,
    /// Networks on the switch itself.
    pub own: BTreeSet<IpNetwork>,
    /// Switches behind these routers that may have clients, including the switch itself. External networks of a router are excluded:
    /// tenants share them, and packets of one tenant must not reach the VIPs of another there. The router balances what arrives from
    /// them.
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
        let row = nb.logical_switch.get(&switch)?;
        let ports: BTreeSet<Uuid> = router_ports(row, nb).collect();
        let routers: BTreeSet<Uuid> = ports.iter().filter_map(|port| tenant_router(*port, nb)).collect();
        let behind = routers.iter().flat_map(|router| inner_switches(*router, nb));
        let switches = behind.chain([switch]).collect();

        let ways_out: BTreeSet<Uuid> =
            routers.iter().copied().filter(|router| is_way_out(*router, nb)).collect();
        let routed = ports.iter().filter(|port| tenant_router(**port, nb).is_some());
        let routed = routed.filter_map(|port| nb.logical_router_port.get(port)).flat_map(networks_of);
        let own: BTreeSet<IpNetwork> =
            subnets(switch, nb).into_iter().chain(routed).filter_map(network_of).collect();
        let mut next_hops: Vec<NextHop> =
            routers.iter().map(|router| NextHop::of(*router, &ports, &own, nb)).collect();
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
            rows.filter_map(|port| nb.logical_router_port.get(port)).flat_map(networks_of)
        };
        let behind = rows(false).filter_map(network_of).filter(|network| !own.contains(network)).collect();
        Self { router, addresses: one_of_each_family(rows(true).map(|network| network.ip())), behind }
    }
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
fn router_ports<'a>(switch: &'a LogicalSwitch, nb: &'a Northbound) -> impl Iterator<Item = Uuid> + 'a {
    nb.router_links(switch).filter_map(|name| nb.router_port_named(name))
}

fn tenant_router(port: Uuid, nb: &Northbound) -> Option<Uuid> {
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

/// Switches behind `router` that are not external: not behind a gateway port, and, of a gateway router, not physical networks.
fn inner_switches(router: Uuid, nb: &Northbound) -> impl Iterator<Item = Uuid> + '_ {
    let is_gateway = is_gateway_router(router, nb);
    let inner = ports_of(router, nb).filter(|port| !is_gateway_port(port));
    let switches = inner.flat_map(|port| nb.switches_linked_to(&port.name));
    switches.filter(move |switch| !(is_gateway && is_physical(*switch, nb)))
}

/// True if a switch has a port to a physical network.
fn is_physical(switch: Uuid, nb: &Northbound) -> bool {
    let ports = nb.logical_switch.get(&switch).into_iter().flat_map(|row| &row.ports);
    ports.filter_map(|port| nb.logical_switch_port.get(port)).any(|port| port.r#type == "localnet")
}

/// Subnets of a switch: those of its IPAM, otherwise those of its router ports. Link-local ones are excluded.
#[must_use]
pub fn subnets(switch: Uuid, nb: &Northbound) -> Vec<IpNetwork> {
    let Some(row) = nb.logical_switch.get(&switch) else { return Vec::new() };
    let own_v4 = row.other_config.get("subnet").and_then(|text| text.parse().ok());
    let own_v6 = row.other_config.get("ipv6_prefix").and_then(|text| prefix64(text));
    let own: Vec<IpNetwork> = own_v4.into_iter().chain(own_v6).collect();

    let ports = router_ports(row, nb).filter(|port| tenant_router(*port, nb).is_some());
    let routed = ports.filter_map(|port| nb.logical_router_port.get(&port)).flat_map(networks_of);
    let missing: Vec<IpNetwork> =
        routed.filter(|network| !own.iter().any(|known| known.is_ipv4() == network.is_ipv4())).collect();
    own.into_iter().chain(missing).collect()
}

/// Addresses of tenant routers on a switch, at most one of each family: next hops to the networks behind them.
#[must_use]
pub fn gateways(switch: Uuid, nb: &Northbound) -> Vec<IpAddr> {
    let Some(row) = nb.logical_switch.get(&switch) else { return Vec::new() };
    let ports: BTreeSet<Uuid> =
        router_ports(row, nb).filter(|port| tenant_router(*port, nb).is_some()).collect();
    let rows = ports.iter().filter_map(|port| nb.logical_router_port.get(port));
    one_of_each_family(rows.flat_map(networks_of).map(|network| network.ip()))
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

fn networks_of(port: &LogicalRouterPort) -> impl Iterator<Item = IpNetwork> + '_ {
    let networks = port.networks.iter().filter_map(|text| text.parse::<IpNetwork>().ok());
    networks.filter(|network| match network.ip() {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

/// Holder of an address, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressHolder(pub String);

/// Finds a holder of `address` on `switch` other than the port `own`.
#[must_use]
pub fn address_holder(switch: Uuid, address: IpAddr, own: Uuid, nb: &Northbound) -> Option<AddressHolder> {
    let row = nb.logical_switch.get(&switch)?;
    let port = nb
        .ports_with_address(address)
        .find(|port| *port != own && nb.switch_of_port(*port) == Some(switch))
        .and_then(|port| nb.logical_switch_port.get(&port));
    if let Some(port) = port {
        return Some(AddressHolder(format!("logical switch port {:?}", port.name)));
    }
    router_ports(row, nb)
        .filter(|port| tenant_router(*port, nb).is_some())
        .filter_map(|port| nb.logical_router_port.get(&port))
        .find(|port| networks_of(port).any(|network| network.ip() == address))
        .map(|port| AddressHolder(format!("logical router port {:?}", port.name)))
}

/// Number of addresses that are tried before a subnet is considered exhausted.
const MAX_TRIES: u128 = 1 << 17;

/// Finds a free address of `subnet`, from its upper end downwards: OVN's own IPAM allocates from the lower end, so that collisions are
/// unlikely. The network address, the first host (usually the gateway), and IPv4's broadcast address are excluded.
#[must_use]
pub fn free_address(subnet: IpNetwork, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let (first, last) = match subnet {
        IpNetwork::V4(v4) => (u128::from(u32::from(v4.network())), u128::from(u32::from(v4.broadcast()))),
        // The lowest 2^32 host numbers are enough, and avoid addresses that are derived from MACs (RFC 4291, appendix A).
        IpNetwork::V6(v6) => {
            let network = u128::from(v6.network());
            (network, network | (u128::from(v6.broadcast()) & u128::from(u32::MAX)))
        }
    };
    let address = |number: u128| match subnet {
        IpNetwork::V4(_) => u32::try_from(number).ok().map(|number| IpAddr::V4(Ipv4Addr::from(number))),
        IpNetwork::V6(_) => Some(IpAddr::V6(Ipv6Addr::from(number))),
    };
    let lowest = first.saturating_add(2).max(last.saturating_sub(MAX_TRIES));
    (lowest..last).rev().filter_map(address).find(|candidate| !taken(*candidate))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{LogicalRouter, LogicalSwitchPort};
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

    const TENANT: Uuid = Uuid::from_u128(1);
    const SIBLING: Uuid = Uuid::from_u128(2);
    const PROVIDER: Uuid = Uuid::from_u128(3);
    const ROUTER: Uuid = Uuid::from_u128(4);

    fn put(nb: &mut Northbound, table: &str, uuid: Uuid, row: serde_json::Map<String, serde_json::Value>) {
        let (table, change) = (table.to_owned(), RowChange::Insert(row));
        nb.apply(vec![RowUpdate { table, uuid, change }]).unwrap();
    }

    /// A router with ports on three switches, the third of which is a physical network.
    fn cloud(router: LogicalRouter, way_out: LogicalRouterPort) -> Northbound {
        let mut nb = Northbound::default();
        let mut ports = BTreeSet::new();
        for (switch, port) in [
            (TENANT, LogicalRouterPort::default()),
            (SIBLING, LogicalRouterPort::default()),
            (PROVIDER, way_out),
        ] {
            let [router_port, link, outward] =
                [10, 20, 30].map(|kind| Uuid::from_u128(kind + switch.as_u128()));
            let name = format!("to-{switch}");
            put(
                &mut nb,
                "Logical_Router_Port",
                router_port,
                LogicalRouterPort { name: name.clone(), ..port }.to_row(),
            );
            ports.insert(router_port);
            let options = BTreeMap::from([("router-port".to_owned(), name)]);
            let row = LogicalSwitchPort { r#type: "router".to_owned(), options, ..Default::default() };
            put(&mut nb, "Logical_Switch_Port", link, row.to_row());
            let mut links = BTreeSet::from([link]);
            if switch == PROVIDER {
                let row = LogicalSwitchPort { r#type: "localnet".to_owned(), ..Default::default() };
                put(&mut nb, "Logical_Switch_Port", outward, row.to_row());
                links.insert(outward);
            }
            put(
                &mut nb,
                "Logical_Switch",
                switch,
                LogicalSwitch { ports: links, ..Default::default() }.to_row(),
            );
        }
        put(&mut nb, "Logical_Router", ROUTER, LogicalRouter { ports, ..router }.to_row());
        nb
    }

    #[test]
    fn what_tenants_share_behind_their_routers_is_none_of_their_switches() {
        let switches = |router: &LogicalRouter, way_out: &LogicalRouterPort, of: Uuid| {
            let found = Topology::of(of, &cloud(router.clone(), way_out.clone())).unwrap();
            let is_plain = *router == LogicalRouter::default() && *way_out == LogicalRouterPort::default();
            assert_eq!(found.ways_out.contains(&ROUTER), !is_plain);
            found.switches
        };
        let (plain, port) = (LogicalRouter::default(), LogicalRouterPort::default());
        let gateway_chassis = [Uuid::from_u128(9)].into();
        let by_chassis = LogicalRouterPort { gateway_chassis, ..port.clone() };
        let by_group = LogicalRouterPort { ha_chassis_group: Some(Uuid::from_u128(9)), ..port.clone() };
        let options = BTreeMap::from([("chassis".to_owned(), "chassis-1".to_owned())]);
        let gateway = LogicalRouter { options, ..plain.clone() };
        for (router, way_out) in [(&plain, &by_chassis), (&plain, &by_group), (&gateway, &port)] {
            assert_eq!(switches(router, way_out, TENANT), [TENANT, SIBLING].into());
            // A VIP of the physical network itself is met there, and by the tenants behind the router.
            assert_eq!(switches(router, way_out, PROVIDER), [TENANT, SIBLING, PROVIDER].into());
        }
        // A tenant's own network may be a physical one (a VLAN).
        assert_eq!(switches(&plain, &port, TENANT), [TENANT, SIBLING, PROVIDER].into());
    }

    #[test]
    fn a_router_is_a_next_hop_to_what_is_behind_it() {
        let mut nb = cloud(LogicalRouter::default(), LogicalRouterPort::default());
        for (switch, networks) in [
            (TENANT, &["10.0.0.1/24", "fd00::1/64", "169.254.0.1/30"][..]),
            (SIBLING, &["10.1.0.1/24"]),
            (PROVIDER, &["192.0.2.1/24", "10.0.0.200/24"]),
        ] {
            let row = LogicalRouterPort {
                name: format!("to-{switch}"),
                networks: networks.iter().map(|text| (*text).to_owned()).collect(),
                ..LogicalRouterPort::default()
            };
            put(&mut nb, "Logical_Router_Port", Uuid::from_u128(10 + switch.as_u128()), row.to_row());
        }
        let networks =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpNetwork>>();
        let found = Topology::of(TENANT, &nb).unwrap();
        assert_eq!(found.own, networks(&["10.0.0.0/24", "fd00::/64"]));
        let [hop] = found.next_hops.as_slice() else { panic!("{:?}", found.next_hops) };
        assert_eq!((hop.router, hop.addresses.len()), (ROUTER, 2));
        assert_eq!(hop.behind, networks(&["10.1.0.0/24", "192.0.2.0/24"]));
        // Without an address on the switch it leads nowhere.
        let nb = cloud(LogicalRouter::default(), LogicalRouterPort::default());
        assert_eq!(Topology::of(TENANT, &nb).unwrap().next_hops, []);
    }

    fn free(subnet: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<IpAddr> = taken.iter().map(|text| text.parse().unwrap()).collect();
        free_address(subnet.parse().unwrap(), |address| taken.contains(&address)).map(|free| free.to_string())
    }

    #[test]
    fn addresses_are_given_from_the_upper_end() {
        assert_eq!(free("10.0.0.0/24", &[]).as_deref(), Some("10.0.0.254"));
        assert_eq!(free("10.0.0.0/24", &["10.0.0.254", "10.0.0.253"]).as_deref(), Some("10.0.0.252"));
        assert_eq!(free("fd00::/64", &[]).as_deref(), Some("fd00::ffff:fffe"));
        assert_eq!(free("0.0.0.0/0", &[]).as_deref(), Some("255.255.255.254"));
    }

    #[test]
    fn a_full_subnet_has_none() {
        assert_eq!(free("10.0.0.0/30", &["10.0.0.2"]), None);
        assert_eq!(free("10.0.0.0/31", &[]), None);
        assert_eq!(free("10.0.0.7/32", &[]), None);
        assert_eq!(free("fd00::1/128", &[]), None);
    }

    #[test]
    fn an_ipv6_prefix_is_a_64() {
        assert_eq!(prefix64("fd00:1::"), "fd00:1::/64".parse().ok());
        assert_eq!(prefix64("fd00:1::/64"), "fd00:1::/64".parse().ok());
        assert_eq!(prefix64("10.0.0.0"), None);
    }
}
