use super::*;
use crate::{LoadBalancerGroup, LogicalRouter, LogicalRouterPort};
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

const INSTALLATION: Installation = Installation(Uuid::from_u128(1));
const SWITCH: Uuid = Uuid::from_u128(5);
const ROW: Uuid = Uuid::from_u128(6);

fn put(nb: &mut Northbound, uuid: Uuid, row: &Row) {
    let columns = match row {
        Row::LoadBalancer(row) => row.to_row(),
        Row::LoadBalancerGroup(row) => row.to_row(),
        Row::LogicalRouter(row) => row.to_row(),
        Row::LogicalRouterPort(row) => row.to_row(),
        other => panic!("{other:?}"),
    };
    let (table, change) = (row.table().name().to_owned(), RowChange::Insert(columns));
    nb.apply(vec![RowUpdate { table, uuid, change }]).unwrap();
}

fn vips() -> [IpAddr; 2] {
    ["10.0.0.8", "fd00::9"].map(|vip| vip.parse().unwrap())
}

fn answered(vips: &[IpAddr]) -> Answered<'_> {
    Answered { installation: INSTALLATION, switch: SWITCH, row: ROW, vips }
}

#[test]
fn an_element_of_networks_is_a_vip_or_is_not() {
    for vip in vips() {
        assert_eq!(vip_of(&host(vip)), Some(vip));
    }
    for other in ["169.254.77.1/0", "fe80::77/0", "10.0.0.9/24", "10.0.0.9", "fd00:0::9/128", "x/32", ""] {
        assert_eq!(vip_of(other), None, "{other}");
    }
}

#[test]
fn a_responder_gets_and_loses_the_addresses_of_vips_that_come_and_go_and_no_others() {
    let port = Responder::of(INSTALLATION, SWITCH).router_port;
    let (vips, mut nb) = (vips(), Northbound::default());
    let answered = answered(&vips);
    assert_eq!(answered.steps(StepOperation::Insert, &nb), []);

    let networks = ["169.254.77.1/0", "10.0.0.8/32"].map(str::to_owned).into();
    let row = LogicalRouterPort { networks, ..Default::default() };
    put(&mut nb, port, &Row::LogicalRouterPort(row));
    assert_eq!(answered.addresses(&nb).collect::<Vec<_>>(), vips[..1]);
    let network = |way, text: &str| [Step::Network(way, port, text.to_owned())];
    let (come, go) = (StepOperation::Insert, StepOperation::Delete);
    assert_eq!(answered.steps(come, &nb), network(come, "fd00::9/128"));
    assert_eq!(answered.steps(go, &nb), network(go, "10.0.0.8/32"));
}

#[test]
fn a_row_answers_when_it_has_the_vips_and_the_responder_has_its_group() {
    let vips = vips();
    let (group, router) =
        (Network::answers(INSTALLATION, SWITCH), Responder::of(INSTALLATION, SWITCH).router);
    let mut desired = Desired::default();
    answered(&vips).add_row(&mut desired, INSTALLATION.load_balancer(Uuid::from_u128(7)), "web");
    let Some(Row::LoadBalancer(whole)) = desired.rows.get(&ROW) else { panic!("{desired:?}") };
    assert!(whole.vips.values().all(String::is_empty) && whole.options.is_empty());
    assert_eq!(desired.members.iter().map(|member| member.row).collect::<Vec<_>>(), [group]);
    let mut half = whole.clone();
    half.vips = half.vips.into_iter().skip(1).collect();
    for (row, members, groups, answers) in [
        (whole, vec![ROW], vec![group], true),
        (&half, vec![ROW], vec![group], false),
        (whole, vec![], vec![group], false),
        (whole, vec![ROW], vec![], false),
    ] {
        let mut nb = Northbound::default();
        put(&mut nb, ROW, &Row::LoadBalancer(row.clone()));
        let load_balancer = members.into_iter().collect();
        let row = LoadBalancerGroup { load_balancer, ..Default::default() };
        put(&mut nb, group, &Row::LoadBalancerGroup(row));
        let load_balancer_group = groups.into_iter().collect();
        let row = LogicalRouter { load_balancer_group, ..Default::default() };
        put(&mut nb, router, &Row::LogicalRouter(row));
        assert_eq!(answered(&vips).is_answered_by_row(&nb), answers);
    }
    assert!(!answered(&vips).is_answered_by_row(&Northbound::default()));
}
