//! Changes made by hand are repaired.

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::chassis::Chassis;
use crate::configurations::simple;
use crate::traffic::{FarEnd, link, namespace};
use crate::world::{can_run, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_was_removed_by_hand_is_made_anew_while_others_go_on() {
    if !can_run("a_namespace_that_was_removed_by_hand_is_made_anew_while_others_go_on") {
        return;
    }
    let (chassis, a, b) = (Chassis::new().await, Uuid::new_v4(), Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.update(simple(a)).await;
    session.snapshot(simple(b)).await;
    let far = FarEnd::of(&chassis.world, b);
    let _other = far.backend(8080, "other");
    far.answers("other").await;
    let going_on = far.connect("10.0.0.250:10000".parse().unwrap()).await.unwrap();

    // Begins with its number, which a new link does not have.
    let look = || chassis.world.try_run(&format!("ip -o link show {}", link(a)));
    let number = |text: &str| text.split(':').next().unwrap_or_default().to_owned();
    let before = number(&look().1);
    chassis.world.run(&format!("ip netns delete {}", namespace(a)));
    eventually("the namespace is made anew", || {
        let (is_there, text) = look();
        is_there && number(&text) != before && chassis.world.namespaces().contains(&namespace(a))
    })
    .await;
    let far_a = FarEnd::of(&chassis.world, a);
    let _backend = far_a.backend(8080, "one");
    far_a.answers("one").await;
    far.answers("other").await;
    assert!(going_on.take_error().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_or_port_that_was_removed_by_hand_is_put_back() {
    if !can_run("a_link_or_port_that_was_removed_by_hand_is_put_back") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    chassis.vsctl(&format!("del-port br-int {}", link(id)));
    eventually("the port is back", || chassis.ports() == [link(id)]).await;
    eventually("with its name", || chassis.iface_ids() == [format!("port-{id}")]).await;

    chassis.world.run(&format!("ip link delete {}", link(id)));
    eventually("the link is back", || chassis.world.try_run(&format!("ip link show {}", link(id))).0).await;
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_the_way_is_told_and_healed() {
    if !can_run("what_stands_in_the_way_is_told_and_healed") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    chassis.vsctl("del-br br-int");
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let error = session.result(id).unwrap();
    assert!(error.contains("br-int"), "{error}");
    // There are sockets all the same.
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
    chassis.vsctl("add-br br-int");
    let network = id.to_string();
    session.until("it is healed", |heard| heard.results.get(&network).is_some_and(String::is_empty)).await;
    assert_eq!(chassis.ports(), [link(id)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_open_vswitch_all_else_goes_on_and_it_is_caught_up_with() {
    if !can_run("without_open_vswitch_all_else_goes_on_and_it_is_caught_up_with") {
        return;
    }
    let (mut chassis, a, b) = (Chassis::new().await, Uuid::new_v4(), Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(a)).await;
    chassis.kill_database();
    let gone = v1::Update { removed_network_ids: vec![a.to_string()], ..simple(b) };
    session.carried_out(gone).await;
    let error = session.result(b).unwrap();
    assert!(error.contains("Open vSwitch"), "{error}");
    let far = FarEnd::of(&chassis.world, b);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;

    chassis.start_database().await;
    let network = b.to_string();
    session.until("it is healed", |heard| heard.results.get(&network).is_some_and(String::is_empty)).await;
    assert_eq!(chassis.ports(), [link(b)]);
    assert_eq!(chassis.world.namespaces(), [namespace(b)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cleanup_removes_all_of_ours() {
    if !can_run("cleanup_removes_all_of_ours") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    session.update(v1::Update::default()).await;
    let cleanup = || {
        let mut command = chassis.world.command(env!("CARGO_BIN_EXE_fiberlb-proxy"));
        command.arg("cleanup");
        chassis.settings(&mut command);
        command.output().unwrap()
    };
    let refused = String::from_utf8(cleanup().stderr).unwrap();
    assert!(refused.contains("another agent"), "{refused}");
    agent.stop().await;
    chassis.world.run("ip netns add foreign");
    let output = cleanup();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(chassis.world.namespaces(), ["foreign"]);
    assert_eq!(chassis.ports(), Vec::<String>::new());
    assert!(!chassis.world.try_run(&format!("ip link show {}", link(id))).0);
}
