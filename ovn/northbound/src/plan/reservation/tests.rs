use proptest::prelude::*;

use super::*;
use crate::LogicalSwitch;
use crate::plan::{Network, Topology, diff, network};
use ovsdb::replica::{Replica as _, RowChange, RowUpdate, TableRow as _};

const INSTALLATION: Installation = Installation(Uuid::from_u128(1));
const SWITCH: Uuid = Uuid::from_u128(5);

/// Load balancers with these VIPs, each by its port's number.
type Balancers<'a> = &'a [(u128, &'a [&'a str])];

fn vips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn reservation(number: u128, vips: &[IpAddr]) -> Reservation<'_> {
    Reservation { installation: INSTALLATION, switch: SWITCH, row: Uuid::from_u128(number), vips }
}

/// Silent ports of a network with these load balancers.
fn silent_ports(balancers: Balancers<'_>) -> Desired {
    let reserved = balancers.iter().map(|(number, texts)| {
        (Uuid::from_u128(*number), vips(texts).into_iter().collect::<BTreeSet<IpAddr>>())
    });
    let mut desired = Desired::default();
    add_silent_ports(&mut desired, INSTALLATION.network(SWITCH), SWITCH, &reserved.collect());
    desired
}

/// A database with these ports on the switch.
fn database(desired: &Desired) -> Northbound {
    let mut nb = Northbound::new(OWNER_KEY);
    let switch = LogicalSwitch { ports: desired.rows.keys().copied().collect(), ..Default::default() };
    let mut rows = vec![(LogicalSwitch::TABLE, SWITCH, switch.to_row())];
    for (uuid, row) in &desired.rows {
        let Row::LogicalSwitchPort(port) = row else { panic!("{row:?}") };
        rows.push((LogicalSwitchPort::TABLE, *uuid, port.to_row()));
    }
    let update = |(table, uuid, row): (&str, Uuid, _)| RowUpdate {
        table: table.to_owned(),
        uuid,
        change: RowChange::Insert(row),
    };
    nb.apply(rows.into_iter().map(update).collect()).unwrap();
    nb
}

/// Numbers of ports, with the VIPs of each.
fn by_port(desired: &Desired) -> Vec<(u128, Vec<IpAddr>)> {
    let port = |(uuid, row): (&Uuid, &Row)| {
        let Row::LogicalSwitchPort(port) = row else { panic!("{row:?}") };
        (uuid.as_u128(), port.addresses.iter().flat_map(|text| vips_of(text)).collect())
    };
    desired.rows.iter().map(port).collect()
}

#[test]
fn neighbours_share_a_port_that_is_silent() {
    let desired = silent_ports(&[
        (7, &["10.0.0.254", "fd00::fe"]),
        (4, &["10.0.0.192"]),
        (5, &["10.0.0.191"]),
        (6, &["fd00::fe"]),
        (9, &["10.0.1.0", "fd00::fd"]),
    ]);
    let shared = (4, vips(&["10.0.0.192", "10.0.0.254", "fd00::fe"]));
    let others = [(5, vips(&["10.0.0.191"])), (6, vips(&["fd00::fe"])), (9, vips(&["10.0.1.0", "fd00::fd"]))];
    assert_eq!(by_port(&desired), std::iter::once(shared).chain(others).collect::<Vec<_>>());
    let Some(Row::LogicalSwitchPort(port)) = desired.rows.values().next() else { panic!("{desired:?}") };
    assert_eq!(
        (port.r#type.as_str(), port.options.get("disable_arp_nd_rsp").unwrap().as_str()),
        ("", "true")
    );
    let mac = mac_of(Uuid::from_u128(4));
    assert_eq!(port.addresses, [format!("{mac} 10.0.0.192"), format!("{mac} 10.0.0.254 fd00::fe")].into());
    assert_ne!(mac, crate::plan::responder_mac(INSTALLATION, SWITCH));
}

#[test]
fn where_answers_are_addresses_a_load_balancer_has_a_port_that_nothing_binds() {
    let (mut desired, vips) = (Desired::default(), vips(&["10.0.0.8", "fd00::9"]));
    let owner = INSTALLATION.load_balancer(Uuid::from_u128(3));
    reservation(6, &vips).add_port(&mut desired, owner);
    let uuid = Uuid::from_u128(6);
    let Some(Row::LogicalSwitchPort(port)) = desired.rows.get(&uuid) else { panic!("{desired:?}") };
    assert_eq!(port.r#type, "virtual");
    assert_eq!(port.options, Map::from([("virtual-ip".to_owned(), "10.0.0.8".to_owned())]));
    assert_eq!(port.addresses, [format!("{} 10.0.0.8 fd00::9", mac_of(uuid))].into());
}

#[test]
fn only_who_brings_or_takes_a_port_needs_a_plan_of_the_network() {
    let nb = database(&silent_ports(&[(4, &["10.0.0.8"]), (5, &["10.0.0.9"])]));
    let (here, near, far) = (vips(&["10.0.0.9"]), vips(&["10.0.0.10", "fd00::1"]), vips(&["10.0.1.1"]));
    let port = Uuid::from_u128(4);
    let steps = |number, vips, way| reservation(number, vips).steps(way, &nb);
    let (come, go) = (StepOperation::Insert, StepOperation::Delete);
    let address = |way, text: &str| Some(vec![Step::Address(way, port, format!("{} {text}", mac_of(port)))]);
    assert_eq!(steps(5, &here, come), Some(Vec::new()));
    assert_eq!(steps(5, &here, go), address(go, "10.0.0.9"));
    assert_eq!(steps(6, &near, come), address(come, "10.0.0.10 fd00::1"));
    assert_eq!(steps(6, &near, go), Some(Vec::new()));
    assert_eq!(steps(6, &far, go), Some(Vec::new()));
    assert_eq!(steps(6, &far, come), None, "there is no port");
    assert_eq!(steps(3, &near, come), None, "the port is to be this one's");
    assert_eq!(steps(4, &vips(&["10.0.0.8"]), go), None, "the port was this one's");
    let alone = database(&silent_ports(&[(4, &["10.0.0.9"])]));
    assert_eq!(reservation(5, &here).steps(go, &alone), None, "nothing would be left");
    assert!(reservation(5, &here).is_kept(&nb) && !reservation(6, &near).is_kept(&nb));
    let text = |vip: &str| format!("{} {vip}", mac_of(port));
    assert!(reservation(5, &here).is_kept_as(&text("10.0.0.9"), &nb));
    assert!(!reservation(5, &here).is_kept_as(&text("10.0.0.8"), &nb));
}

proptest! {
    /// Steps by which a load balancer comes or goes without a plan of the network lead to what such a plan would.
    #[test]
    fn steps_lead_to_what_the_network_desires(
        numbers in prop::collection::btree_map(0u128..200, (0u8..=255, any::<bool>()), 1..8),
        which in any::<prop::sample::Index>(),
    ) {
        let text = |(host, both): (u8, bool)| {
            let v4 = format!("10.0.0.{host}");
            if both { vec![v4, format!("fd00::{host}")] } else { vec![v4] }
        };
        // No two load balancers of a network have one VIP.
        let mut hosts = BTreeSet::new();
        let numbers = numbers.into_iter().filter(|(_, (host, _))| hosts.insert(*host));
        let all: Vec<(u128, Vec<String>)> = numbers.map(|(number, it)| (number, text(it))).collect();
        let desired = |without: Option<u128>| {
            let reserved = all.iter().filter(|(number, _)| Some(*number) != without).map(|(number, texts)| {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                (Uuid::from_u128(*number), vips(&texts).into_iter().collect())
            });
            let wish = Network {
                installation: INSTALLATION,
                switch: SWITCH,
                form: crate::plan::AnswerForm::Rows,
                vips: BTreeSet::new(),
                addresses: BTreeSet::new(),
                reserved: reserved.collect(),
                node_ports: Vec::new(),
            };
            let mut desired = network(&wish, &Topology::default());
            add_silent_ports(&mut desired, INSTALLATION.network(SWITCH), SWITCH, &wish.reserved);
            desired
        };
        let (number, texts) = which.get(&all);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vips = vips(&texts);
        for (way, before, after) in [
            (StepOperation::Insert, desired(Some(*number)), desired(None)),
            (StepOperation::Delete, desired(None), desired(Some(*number))),
        ] {
            let nb = database(&before);
            let Some(steps) = reservation(*number, &vips).steps(way, &nb) else { continue };
            let mut ports = before.rows;
            for step in steps {
                let Step::Address(operation, port, text) = step else { panic!("{step:?}") };
                let Some(Row::LogicalSwitchPort(port)) = ports.get_mut(&port) else { panic!("{port}") };
                match operation {
                    StepOperation::Insert => prop_assert!(port.addresses.insert(text)),
                    StepOperation::Delete => prop_assert!(port.addresses.remove(&text)),
                }
            }
            prop_assert_eq!(&ports, &after.rows);
            let owner = INSTALLATION.network(SWITCH);
            prop_assert_eq!(diff(owner, &after, &database(&Desired { rows: ports, ..Desired::default() })), vec![]);
        }
    }
}
