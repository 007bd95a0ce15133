use super::*;
use crate::plan::{AddressUse, Installation};
use crate::{DhcpOptions, LogicalRouter, LogicalSwitchPort};
use ovsdb::collections::{Map, Set};
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
    let mut ports = Set::new();
    for (switch, port) in
        [(TENANT, LogicalRouterPort::default()), (SIBLING, LogicalRouterPort::default()), (PROVIDER, way_out)]
    {
        let [router_port, link, outward] = [10, 20, 30].map(|kind| Uuid::from_u128(kind + switch.as_u128()));
        let name = format!("to-{switch}");
        put(
            &mut nb,
            "Logical_Router_Port",
            router_port,
            LogicalRouterPort { name: name.clone(), ..port }.to_row(),
        );
        ports.insert(router_port);
        let options = Map::from([("router-port".to_owned(), name)]);
        let row = LogicalSwitchPort { r#type: "router".to_owned(), options, ..Default::default() };
        put(&mut nb, "Logical_Switch_Port", link, row.to_row());
        let mut links = Set::from([link]);
        if switch == PROVIDER {
            let row = LogicalSwitchPort { r#type: "localnet".to_owned(), ..Default::default() };
            put(&mut nb, "Logical_Switch_Port", outward, row.to_row());
            links.insert(outward);
        }
        put(&mut nb, "Logical_Switch", switch, LogicalSwitch { ports: links, ..Default::default() }.to_row());
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
    let options = Map::from([("chassis".to_owned(), "chassis-1".to_owned())]);
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
fn what_is_behind_a_second_router_is_distant() {
    let mut nb = cloud(LogicalRouter::default(), LogicalRouterPort::default());
    let second = Uuid::from_u128(5);
    let mut ports = Set::new();
    let mut join = |nb: &mut Northbound, switch: Uuid, number: u128| {
        let [router_port, link] = [100 + number, 200 + number].map(Uuid::from_u128);
        let name = format!("second-{number}");
        ports.insert(router_port);
        put(
            nb,
            "Logical_Router_Port",
            router_port,
            LogicalRouterPort { name: name.clone(), ..Default::default() }.to_row(),
        );
        put(
            nb,
            "Logical_Router",
            second,
            LogicalRouter { ports: ports.clone(), ..Default::default() }.to_row(),
        );
        let options = Map::from([("router-port".to_owned(), name)]);
        let row = LogicalSwitchPort { r#type: "router".to_owned(), options, ..Default::default() };
        put(nb, "Logical_Switch_Port", link, row.to_row());
        let mut row = nb.logical_switch.get(&switch).cloned().unwrap_or_default();
        row.ports.insert(link);
        put(nb, "Logical_Switch", switch, row.to_row());
    };
    assert!(!has_distant_networks(TENANT, &nb));
    join(&mut nb, SIBLING, 1);
    join(&mut nb, PROVIDER, 2);
    assert!(!has_distant_networks(TENANT, &nb), "nothing new is behind the second router");
    let far = Uuid::from_u128(6);
    join(&mut nb, far, 3);
    assert!(has_distant_networks(TENANT, &nb) && has_distant_networks(far, &nb));
    assert!(
        !has_distant_networks(SIBLING, &nb) && !Topology::of(TENANT, &nb).unwrap().switches.contains(&far)
    );
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

#[test]
fn the_first_router_is_the_default_route_and_the_others_lead_to_what_is_behind_them() {
    let hop = |router: u128, addresses: &[&str], behind: &[&str]| NextHop {
        router: Uuid::from_u128(router),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        behind: behind.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let next_hops = vec![
        hop(1, &["10.0.0.1"], &["10.1.0.0/24"]),
        hop(2, &["10.0.0.2", "fd00::2"], &["10.2.0.0/24", "fd02::/64"]),
        // What no packet is sent to, and what is behind another one already.
        hop(
            3,
            &["10.0.0.3", "fd00::3"],
            &["0.0.0.0/0", "127.0.0.0/8", "10.1.0.0/24", "10.2.0.0/24", "fd03::/64", "ff00::/8"],
        ),
    ];
    let routes = Topology { next_hops, ..Topology::default() }.routes();
    let gateways: Vec<String> = routes.gateways.iter().map(ToString::to_string).collect();
    assert_eq!(gateways, ["10.0.0.1", "fd00::2"]);
    let others: Vec<String> =
        routes.others.iter().map(|(network, next_hop)| format!("{network} by {next_hop}")).collect();
    assert_eq!(others, ["10.2.0.0/24 by 10.0.0.2", "fd03::/64 by fd00::3"]);
    assert_eq!(Topology::default().routes(), Routes::default());
}

#[test]
fn an_ipv6_prefix_is_a_64() {
    assert_eq!(prefix64("fd00:1::"), "fd00:1::/64".parse().ok());
    assert_eq!(prefix64("fd00:1::/64"), "fd00:1::/64".parse().ok());
    assert_eq!(prefix64("10.0.0.0"), None);
}

#[test]
fn neutron_tells_subnets_by_dhcp_where_no_router_does() {
    let network = "11111111-2222-3333-4444-555555555555";
    let mut nb = Northbound::default();
    let pairs = |pairs: &[(&str, &str)]| -> Map<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let switch = LogicalSwitch {
        name: format!("neutron-{network}"),
        external_ids: pairs(&[("neutron:network_name", "tenant")]),
        ..LogicalSwitch::default()
    };
    put(&mut nb, "Logical_Switch", TENANT, switch.to_row());
    let subnet = |cidr: &str, gateway: &str, ids: &[(&str, &str)]| DhcpOptions {
        cidr: cidr.to_owned(),
        options: pairs(&[("router", gateway)]),
        external_ids: pairs(ids),
    };
    let of_network = ("neutron:network_id", network);
    let rows = [
        subnet("10.0.0.0/24", "10.0.0.254", &[of_network]),
        subnet("fd00::/64", "", &[of_network]),
        subnet("10.8.0.0/24", "10.8.0.1", &[of_network, ("port_id", "p")]),
        subnet("10.9.0.0/24", "10.9.0.1", &[("neutron:network_id", "other")]),
        subnet("nonsense", "nonsense", &[of_network]),
    ];
    for (number, row) in (50..).zip(rows) {
        put(&mut nb, "DHCP_Options", Uuid::from_u128(number), row.to_row());
    }
    let told = |nb: &Northbound| subnets(TENANT, nb).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told(&nb), ["10.0.0.0/24", "fd00::/64"]);
    assert_eq!(Topology::of(TENANT, &nb).unwrap().own.len(), 2);
    let addresses = AddressUse::on(TENANT, Installation(Uuid::nil()), &nb);
    let holder = |address: &str| addresses.holder(address.parse().unwrap(), Uuid::nil()).is_some();
    assert!(holder("10.0.0.254") && !holder("10.0.0.253"), "its router may come");

    // A subnet comes and goes: whoever is on the switch has to look.
    let change = RowChange::Delete;
    let gone = RowUpdate { table: "DHCP_Options".to_owned(), uuid: Uuid::from_u128(50), change };
    assert_eq!(nb.apply(vec![gone]).unwrap(), [crate::Change::Switch { uuid: TENANT }]);
    assert_eq!(told(&nb), ["fd00::/64"]);

    // What a router says of a family comes first.
    let row = LogicalRouterPort {
        name: "to-router".to_owned(),
        networks: ["10.0.0.1/25".to_owned()].into(),
        ..LogicalRouterPort::default()
    };
    let [port, link] = [60, 61].map(Uuid::from_u128);
    put(&mut nb, "Logical_Router_Port", port, row.to_row());
    put(
        &mut nb,
        "Logical_Router",
        ROUTER,
        LogicalRouter { ports: [port].into(), ..Default::default() }.to_row(),
    );
    let options = pairs(&[("router-port", "to-router")]);
    let row = LogicalSwitchPort { r#type: "router".to_owned(), options, ..Default::default() };
    put(&mut nb, "Logical_Switch_Port", link, row.to_row());
    put(&mut nb, "Logical_Switch", TENANT, LogicalSwitch { ports: [link].into(), ..switch }.to_row());
    assert_eq!(told(&nb), ["10.0.0.1/25", "fd00::/64"]);
}

#[test]
fn neutron_before_28_tells_subnets_by_the_addresses_of_ports() {
    let pairs = |key: &str, value: &str| Map::from([(key.to_owned(), value.to_owned())]);
    let mut nb = Northbound::default();
    let ports = [70, 71, 72].map(Uuid::from_u128);
    for (port, cidrs) in ports.into_iter().zip(["10.0.0.2/24", "10.0.0.7/24 fd00::7/64", "nonsense"]) {
        let row = LogicalSwitchPort { external_ids: pairs("neutron:cidrs", cidrs), ..Default::default() };
        put(&mut nb, "Logical_Switch_Port", port, row.to_row());
    }
    let switch = LogicalSwitch { ports: ports.into(), ..LogicalSwitch::default() };
    put(&mut nb, "Logical_Switch", TENANT, switch.to_row());
    assert_eq!(subnets(TENANT, &nb), [], "it is no network of Neutron");
    let external_ids = pairs("neutron:network_name", "tenant");
    let switch = LogicalSwitch { name: "neutron-x".to_owned(), external_ids, ..switch };
    put(&mut nb, "Logical_Switch", TENANT, switch.to_row());
    let told: Vec<String> = subnets(TENANT, &nb).iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.0/24", "fd00::/64"]);
}

/// [`cloud`] with an address of the router on the tenant's switch, and another one on the sibling, and ports that are switched on or off.
fn routed(router: Option<bool>, port: Option<bool>, sibling: &str) -> Northbound {
    let plain = LogicalRouter { enabled: router, ..LogicalRouter::default() };
    let mut nb = cloud(plain, LogicalRouterPort::default());
    for (switch, network, enabled) in [(TENANT, "10.0.0.1/24", port), (SIBLING, sibling, None)] {
        let row = LogicalRouterPort {
            name: format!("to-{switch}"),
            networks: [network.to_owned()].into(),
            enabled,
            ..LogicalRouterPort::default()
        };
        put(&mut nb, "Logical_Router_Port", Uuid::from_u128(10 + switch.as_u128()), row.to_row());
    }
    nb
}

#[test]
fn a_router_that_is_switched_off_is_no_next_hop() {
    let hops =
        |router, port| Topology::of(TENANT, &routed(router, port, "10.1.0.1/24")).unwrap().next_hops.len();
    assert_eq!([hops(None, None), hops(Some(true), Some(true))], [1, 1]);
    assert_eq!([hops(Some(false), None), hops(None, Some(false))], [0, 0]);
}

#[test]
fn a_switch_behind_a_router_with_the_same_addresses_has_others_for_neighbours() {
    let switches = |sibling| Topology::of(TENANT, &routed(None, None, sibling)).unwrap().switches;
    assert_eq!(switches("10.1.0.1/24"), [TENANT, SIBLING, PROVIDER].into());
    for sibling in ["10.0.0.2/24", "10.0.0.129/25", "10.0.0.2/8"] {
        assert_eq!(switches(sibling), [TENANT, PROVIDER].into(), "{sibling}");
    }
}
