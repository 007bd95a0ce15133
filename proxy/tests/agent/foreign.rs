//! Foreign objects are not touched.

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::chassis::Chassis;
use crate::configurations::simple;
use crate::traffic::{link, namespace};
use crate::world::can_run;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_links_and_ports_of_others_stay() {
    if !can_run("namespaces_links_and_ports_of_others_stay") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let world = &chassis.world;
    let other_network = Uuid::new_v4().simple().to_string();
    let foreign =
        ["qdhcp-1".to_owned(), format!("fiberlb-00000000-{other_network}"), format!("{}-x", namespace(id))];
    for name in &foreign {
        world.run(&format!("ip netns add {name}"));
    }
    world.run("ip link add flb00000000000 type veth peer name far0");
    world.run("ip link add tap0 type veth peer name far1");
    chassis.vsctl("add-port br-int tap0 -- set interface tap0 external_ids:iface-id=vm-1");
    let owner = format!("fiberlb/{}/network/{}", Uuid::new_v4(), Uuid::new_v4());
    chassis.vsctl(&format!(
        "add-port br-int flb00000000000 -- set port flb00000000000 external_ids:fiberlb\\:owner={owner}"
    ));

    let (agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let removed_network_ids = vec![id.to_string()];
    session.carried_out(v1::Update { removed_network_ids, ..v1::Update::default() }).await;
    let mut wanted = foreign.to_vec();
    wanted.sort();
    assert_eq!(world.namespaces(), wanted);
    assert_eq!(chassis.ports(), ["flb00000000000", "tap0"]);
    assert!(!world.try_run(&format!("ip link show {}", link(id))).0);
    assert!(world.try_run("ip link show flb00000000000").0);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_somebody_else_in_our_place_is_told_and_stays() {
    if !can_run("a_port_of_somebody_else_in_our_place_is_told_and_stays") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let name = link(id);
    chassis.vsctl(&format!("add-port br-int {name} -- set interface {name} external_ids:iface-id=vm-1"));
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let error = session.result(id).unwrap();
    assert!(error.contains(&name) && error.contains("not FiberLB's"), "{error}");
    assert_eq!(chassis.iface_ids(), ["vm-1"]);
}
