use super::*;
use crate::plan::NextHop;

const SWITCH: Uuid = Uuid::from_u128(5);

fn spec(vips: &[&str]) -> Network {
    let vips: BTreeSet<IpAddr> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    Network {
        installation: Installation(Uuid::from_u128(1)),
        switch: SWITCH,
        form: AnswerForm::Networks,
        addresses: vips.clone(),
        vips,
        reserved: BTreeMap::new(),
        node_ports: Vec::new(),
    }
}

/// The same, where answers are rows.
fn by_rows(vips: &[&str]) -> Network {
    Network { form: AnswerForm::Rows, addresses: BTreeSet::new(), ..spec(vips) }
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
    let installation = Installation(Uuid::from_u128(1));
    let responder = Responder::of(installation, SWITCH).router;
    let holders = |network: &Network, group: Uuid| -> BTreeSet<Uuid> {
        let members = super::network(network, &topology).members.into_iter();
        members.filter(|member| member.element == group).map(|member| member.row).collect()
    };
    let (group, answers) = (Network::group(installation, SWITCH), Network::answers(installation, SWITCH));
    let tenants = [SWITCH, Uuid::from_u128(6), Uuid::from_u128(7)];
    let by_rows = by_rows(&["10.0.0.9"]);
    assert_eq!(holders(&by_rows, group), tenants.into());
    assert_eq!(holders(&by_rows, answers), [responder].into(), "never beside the rows of listeners");
    let by_networks = spec(&["10.0.0.9"]);
    assert_eq!(holders(&by_networks, group), tenants.into_iter().chain([responder]).collect());
    assert_eq!(holders(&by_networks, answers), [].into());
}

#[test]
fn a_responder_takes_no_address_but_the_vips() {
    let networks = |network: &Network| {
        let desired = super::network(network, &Topology::default());
        let ports = desired.rows.into_values().filter_map(|row| match row {
            Row::LogicalRouterPort(port) => Some(port.networks),
            _ => None,
        });
        ports.flatten().collect::<Vec<String>>()
    };
    let vips = ["10.0.0.9", "fd00::9"];
    let all = ["10.0.0.9/32", "169.254.77.1/0", "fd00::9/128", "fe80::77/0"];
    assert_eq!(networks(&spec(&vips)), all);
    assert_eq!(networks(&by_rows(&vips)), ["169.254.77.1/0", "fe80::77/0"]);
    let moving = Network { addresses: ["10.0.0.9".parse().unwrap()].into(), ..by_rows(&vips) };
    assert_eq!(networks(&moving), ["10.0.0.9/32", "169.254.77.1/0", "fe80::77/0"]);
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
