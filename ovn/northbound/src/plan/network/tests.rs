use super::*;
use crate::plan::NextHop;
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

const SWITCH: Uuid = Uuid::from_u128(5);

fn spec(vips: &[&str]) -> Network {
    Network {
        installation: Installation(Uuid::from_u128(1)),
        switch: SWITCH,
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        node_ports: Vec::new(),
    }
}

#[test]
fn a_network_without_vips_has_no_rows() {
    assert_eq!(network(&spec(&[]), &Topology::default()), Desired::default());
}

#[test]
fn the_group_is_on_every_switch_that_may_hold_a_client_and_on_ways_out() {
    let topology = Topology {
        ways_out: [Uuid::from_u128(6)].into(),
        switches: [SWITCH, Uuid::from_u128(7)].into(),
        ..Topology::default()
    };
    let desired = network(&spec(&["10.0.0.9"]), &topology);
    let group = Network::group(Installation(Uuid::from_u128(1)), SWITCH);
    let holders = desired.members.iter().filter(|member| member.element == group).map(|member| member.row);
    let responder = Responder::of(Installation(Uuid::from_u128(1)), SWITCH).router;
    assert_eq!(
        holders.collect::<BTreeSet<_>>(),
        [SWITCH, Uuid::from_u128(6), Uuid::from_u128(7), responder].into()
    );
}

#[test]
fn a_responder_takes_no_address_but_the_vips() {
    let desired = network(&spec(&["10.0.0.9", "fd00::9"]), &Topology::default());
    let networks = desired.rows.values().find_map(|row| match row {
        Row::LogicalRouterPort(port) => Some(port.networks.clone()),
        _ => None,
    });
    let expected = ["10.0.0.9/32", "fd00::9/128", "169.254.77.1/0", "fe80::77/0"];
    assert_eq!(networks.unwrap(), expected.map(str::to_owned).into());
}

fn hop(router: u128, addresses: &[&str], behind: &[&str]) -> NextHop {
    NextHop {
        router: Uuid::from_u128(router),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        behind: behind.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// The policies, as `PRIORITY PACKETS via NEXT HOP`.
fn policies_with(own: &[&str], next_hops: Vec<NextHop>) -> Vec<String> {
    let own = own.iter().map(|text| text.parse().unwrap()).collect();
    let policies = policies(&Topology { own, next_hops, ..Topology::default() });
    let names: BTreeSet<&String> = policies.iter().map(|policy| &policy.name).collect();
    assert_eq!(names.len(), policies.len());
    policies.iter().map(|it| format!("{} {} via {}", it.priority, it.packets, it.next_hop)).collect()
}

#[test]
fn a_responder_reaches_what_is_behind_each_router() {
    let own = ["10.0.0.0/24", "fd00::/64"];
    assert_eq!(policies_with(&own, Vec::new()), [""; 0]);
    let one = hop(6, &["10.0.0.1", "fd00::1"], &["10.1.0.0/24"]);
    let to_the_rest =
        ["100 ip4.dst != {10.0.0.0/24} via 10.0.0.1", "100 ip6.dst != {fd00::/64, fe80::/10} via fd00::1"];
    assert_eq!(policies_with(&own, vec![one.clone()]), to_the_rest);
    // A second one has what is behind it, of the families in which it has an address.
    let two = hop(7, &["10.0.0.2"], &["10.2.0.0/24", "10.3.0.0/24", "fd02::/64"]);
    let [v4, v6] = to_the_rest;
    let second = "200 ip4.dst == {10.2.0.0/24, 10.3.0.0/24} via 10.0.0.2";
    assert_eq!(policies_with(&own, vec![one.clone(), two]), [v4, second, v6]);
    let alone = hop(7, &["10.0.0.2", "fd00::2"], &[]);
    assert_eq!(policies_with(&own, vec![one, alone]), to_the_rest);
    // Nothing is known of the switch in this family.
    assert_eq!(policies_with(&[], vec![hop(6, &["10.0.0.1"], &[])]), [""; 0]);
}

fn put(nb: &mut Northbound, table: &str, uuid: Uuid, row: serde_json::Map<String, serde_json::Value>) {
    let (table, change) = (table.to_owned(), RowChange::Insert(row));
    nb.apply(vec![RowUpdate { table, uuid, change }]).unwrap();
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

    let row = LogicalRouterPort { networks: networks(&[known].into()), ..Default::default() }.to_row();
    put(&mut nb, "Logical_Router_Port", port, row);
    assert!(is_answered(installation, SWITCH, known, &nb));
    assert!(!is_answered(installation, SWITCH, new, &nb));
    let network = |way, text: &str| [Step::Network(way, port, text.to_owned())];
    let (come, go) = (StepOperation::Insert, StepOperation::Delete);
    assert_eq!(steps(come, &nb), network(come, "fd00::9/128"));
    assert_eq!(steps(go, &nb), network(go, "10.0.0.8/32"));
}
