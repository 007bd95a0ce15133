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
    /// Tenant routers with a port on the switch; FiberLB's own responders are excluded.
    pub routers: BTreeSet<Uuid>,
    /// Switches behind these routers that may have clients, including the switch itself. External networks of a router are excluded:
    /// tenants share them, and packets of one tenant must not reach the VIPs of another there. The router balances what arrives from
    /// them.
    pub switches: BTreeSet<Uuid>,
}

impl Topology {
    /// Surroundings of `switch`; `None` if it does not exist.
    #[must_use]
    pub fn of(switch: Uuid, nb: &Northbound) -> Option<Self> {
        let row = nb.logical_switch.get(&switch)?;
        let routers: BTreeSet<Uuid> =
            router_ports(row, nb).filter_map(|port| tenant_router(port, nb)).collect();
        let behind = routers.iter().flat_map(|router| inner_switches(*router, nb));
        Some(Self { switches: behind.chain([switch]).collect(), routers })
    }
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

/// Switches behind `router` that are not external: not behind a gateway port, and, of a gateway router, not physical networks.
fn inner_switches(router: Uuid, nb: &Northbound) -> impl Iterator<Item = Uuid> + '_ {
    let is_gateway = nb.logical_router.get(&router).is_some_and(|row| row.options.contains_key("chassis"));
    let inner = ports_of(router, nb)
        .filter(|port| port.gateway_chassis.is_empty() && port.ha_chassis_group.is_none());
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
    let mut found: Vec<IpAddr> = Vec::new();
    for address in rows.flat_map(networks_of).map(|network| network.ip()) {
        if !found.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            found.push(address);
        }
    }
    found
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
            assert_eq!(found.routers, [ROUTER].into());
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
