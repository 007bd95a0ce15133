use super::*;
use crate::LogicalSwitch;
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

const SWITCH: Uuid = Uuid::from_u128(5);

fn spec(vips: &[&str], responder: Families) -> Network {
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
    assert_eq!(network(&spec(&[], Families::BOTH), &Topology::default()), Desired::default());
}

#[test]
fn the_group_is_on_every_switch_and_router_that_may_hold_a_client() {
    let topology =
        Topology { routers: [Uuid::from_u128(6)].into(), switches: [SWITCH, Uuid::from_u128(7)].into() };
    let desired = network(&spec(&["10.0.0.9"], Families::NONE), &topology);
    assert_eq!(desired.rows.len(), 1);
    let holders: BTreeSet<Uuid> = desired.members.iter().map(|member| member.row).collect();
    assert_eq!(holders, [SWITCH, Uuid::from_u128(6), Uuid::from_u128(7)].into());
}

#[test]
fn a_responder_takes_no_address_but_the_vips() {
    let networks = |families| {
        let desired = network(&spec(&["10.0.0.9", "fd00::9"], families), &Topology::default());
        let networks = desired.rows.values().find_map(|row| match row {
            Row::LogicalRouterPort(port) => Some(port.networks.clone()),
            _ => None,
        });
        networks.unwrap()
    };
    let expected = ["10.0.0.9/32", "fd00::9/128", "169.254.77.1/0", "fe80::77/0"];
    assert_eq!(networks(Families::BOTH), expected.map(str::to_owned).into());
    let expected = ["fd00::9/128", "fe80::77/0"];
    assert_eq!(networks(Families { v4: false, v6: true }), expected.map(str::to_owned).into());
}

/// A switch with a tenant's router that has these networks there (none: there is no router), and a responder with
/// those.
fn surroundings(router: &[&str], responder: &[&str]) -> Northbound {
    let installation = Installation(Uuid::from_u128(1));
    let Responder { router: own, router_port, switch_port } = Responder::of(installation, SWITCH);
    let theirs = [Uuid::from_u128(6), Uuid::from_u128(7), Uuid::from_u128(8)];
    let owner = BTreeMap::from([(OWNER_KEY.to_owned(), installation.network(SWITCH).to_string())]);
    let mut nb = Northbound::default();
    let mut switch = LogicalSwitch::default();
    let both = [(theirs, router, BTreeMap::new()), ([own, router_port, switch_port], responder, owner)];
    for ([router, port, link], networks, external_ids) in both.into_iter().filter(|it| !it.1.is_empty()) {
        let name = format!("port-{port}");
        switch.ports.insert(link);
        let networks = networks.iter().map(|text| (*text).to_owned()).collect();
        let ports = BTreeSet::from([port]);
        let row = LogicalRouter { ports, external_ids, ..Default::default() }.to_row();
        put(&mut nb, "Logical_Router", router, row);
        let row = LogicalRouterPort { name: name.clone(), networks, ..Default::default() }.to_row();
        put(&mut nb, "Logical_Router_Port", port, row);
        let (r#type, options) = ("router".to_owned(), BTreeMap::from([("router-port".to_owned(), name)]));
        let row = LogicalSwitchPort { r#type, options, ..Default::default() }.to_row();
        put(&mut nb, "Logical_Switch_Port", link, row);
    }
    put(&mut nb, "Logical_Switch", SWITCH, switch.to_row());
    nb
}

fn put(nb: &mut Northbound, table: &str, uuid: Uuid, row: serde_json::Map<String, serde_json::Value>) {
    let (table, change) = (table.to_owned(), RowChange::Insert(row));
    nb.apply(vec![RowUpdate { table, uuid, change }]).unwrap();
}

#[test]
fn a_responder_is_for_the_families_that_no_router_of_the_tenant_has() {
    // The tenant's router, the responder, the VIPs; what is wanted, and whether that is not there.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], Families, bool);
    let installation = Installation(Uuid::from_u128(1));
    let (v4, v6) = (Families { v4: true, v6: false }, Families { v4: false, v6: true });
    let both = &["169.254.77.1/0", "fe80::77/0"][..];
    let cases: [Case<'_>; 10] = [
        (&[], &[], &["10.0.0.9"], Families::BOTH, true),
        (&["10.0.0.1/24"], &[], &["10.0.0.9"], Families::NONE, false),
        (&["10.0.0.1/24"], &[], &["10.0.0.9", "fd00::9"], v6, true),
        (&["10.0.0.1/24", "fe80::1/64"], &[], &["fd00::9"], v6, true),
        (&["fd00::1/64"], &[], &["fd00::9"], Families::NONE, false),
        (&["fd00::1/64"], &[], &["10.0.0.9"], v4, true),
        (&["10.0.0.1/24", "fd00::1/64"], &[], &["10.0.0.9", "fd00::9"], Families::NONE, false),
        // It stays, and answers for no more than it has to.
        (&["10.0.0.1/24", "fd00::1/64"], both, &["10.0.0.9"], Families::BOTH, false),
        (&["10.0.0.1/24", "fd00::1/64"], &["fd00::9/128"], &["10.0.0.9"], v6, false),
        (&[], &["fe80::77/0"], &["10.0.0.9"], Families::BOTH, true),
    ];
    for (router, responder, vips, wanted, is_missing) in cases {
        let nb = surroundings(router, responder);
        let vips: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        let case = format!("{router:?} {responder:?} {vips:?}");
        assert_eq!(responder_families(installation, SWITCH, &vips, &nb), wanted, "{case}");
        let vips: Vec<IpAddr> = vips.into_iter().collect();
        assert_eq!(lacks_responder(installation, SWITCH, &vips, &nb), is_missing, "{case}");
    }
}

#[test]
fn an_element_of_networks_is_a_vip_or_is_not() {
    for vip in ["10.0.0.9", "fd00::9"] {
        let vip: IpAddr = vip.parse().unwrap();
        assert_eq!(vip_of(&host(vip)), Some(vip));
    }
    for other in ["169.254.77.1/0", "fe80::77/0", "10.0.0.9/24", "10.0.0.9", "fd00:0::9/128", "x/32", ""] {
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

    let of = |families| networks(families, &[known].into());
    let row = LogicalRouterPort { networks: of(Families::BOTH), ..Default::default() }.to_row();
    put(&mut nb, "Logical_Router_Port", port, row);
    assert!(is_answered(installation, SWITCH, known, &nb));
    assert!(!is_answered(installation, SWITCH, new, &nb));
    let network = |way, text: &str| [Step::Network(way, port, text.to_owned())];
    let (come, go) = (StepOperation::Insert, StepOperation::Delete);
    assert_eq!(steps(come, &nb), network(come, "fd00::9/128"));
    assert_eq!(steps(go, &nb), network(go, "10.0.0.8/32"));

    // One of another family is none of its business.
    let networks = of(Families { v4: true, v6: false });
    let row = LogicalRouterPort { networks, ..Default::default() }.to_row();
    let mut nb = Northbound::default();
    put(&mut nb, "Logical_Router_Port", port, row);
    assert_eq!(steps(come, &nb), []);
}
