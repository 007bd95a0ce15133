//! Lives of the agent, with and without the plugin.

use std::time::Duration;

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::chassis::{Chassis, INSTALLATION};
use crate::configurations::{NODE, backend, check, listener, network, parts, pool, simple, vip};
use crate::traffic::{FarEnd, link, namespace};
use crate::world::{can_run, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_life_serves_without_the_plugin_and_changes_nothing() {
    if !can_run("a_new_life_serves_without_the_plugin_and_changes_nothing") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
    let link_before = chassis.world.run(&format!("ip -o link show {}", far.link));
    chassis.remembers(id).await;
    let database = std::fs::metadata(chassis.world.file("conf.db")).unwrap().len();

    agent.kill();
    far.refuses().await;
    // It is not taken in: it has nothing but its disk.
    let agent = chassis.agent();
    far.answers("one").await;
    let rejected = chassis.plugin.stream().await;
    assert_ne!(rejected.hello.boot_id, session.hello.boot_id);
    drop(rejected);
    agent.stop().await;
    far.refuses().await;

    let _agent = chassis.agent();
    far.answers("one").await;
    assert_eq!(chassis.world.run(&format!("ip -o link show {}", far.link)), link_before);
    assert_eq!(
        std::fs::metadata(chassis.world.file("conf.db")).unwrap().len(),
        database,
        "nothing was written"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_snapshot_lacks_goes_at_its_end_and_not_before() {
    if !can_run("what_the_snapshot_lacks_goes_at_its_end_and_not_before") {
        return;
    }
    let (chassis, a, b) = (Chassis::new().await, Uuid::new_v4(), Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    session.update(simple(a)).await;
    session.snapshot(simple(b)).await;
    let far = FarEnd::of(&chassis.world, b);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
    chassis.remembers(b).await;
    agent.kill();

    let (_agent, mut session) = chassis.joined().await;
    session.update(simple(a)).await;
    far.answers("one").await;
    assert_eq!(chassis.world.namespaces().len(), 2);
    session.snapshot(v1::Update::default()).await;
    assert_eq!(chassis.world.namespaces(), [namespace(a)]);
    assert_eq!(chassis.ports().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_life_remembers_who_was_down() {
    if !can_run("a_new_life_remembers_who_was_down") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    let ([pool_id, listener_id, up], down) = (parts(id), Uuid::new_v4());
    let mut probed = pool(pool_id, id, vec![backend(up, "10.0.0.1:8080"), backend(down, "10.0.0.1:8081")]);
    probed.check = Some(check());
    let update = v1::Update {
        networks: vec![network(id)],
        pools: vec![probed.clone()],
        listeners: vec![listener(listener_id, id, pool_id)],
        ..v1::Update::default()
    };
    session.snapshot(update.clone()).await;
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    let [up, down] = [up, down].map(|id| id.to_string());
    session.until("it is down", |heard| heard.verdicts.get(&down).is_some_and(|(up, _)| !up)).await;
    let remembered = session.heard.verdicts[&down].clone();
    session.until("it is up", |heard| heard.verdicts.get(&up).is_some_and(|(up, _)| *up)).await;
    // From now on nobody probes, so that only memory can tell.
    probed.check.as_mut().unwrap().delay_ms = 3_600_000;
    session.carried_out(v1::Update { pools: vec![probed], ..v1::Update::default() }).await;
    agent.stop().await;

    let agent = chassis.agent();
    let session = chassis.plugin.welcomed(INSTALLATION).await;
    assert_eq!(session.heard.verdicts.get(&down), Some(&remembered), "the first verdicts have it");
    for _ in 0..10 {
        far.answers("one").await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_moved_aside_and_the_agent_starts_empty() {
    if !can_run("a_damaged_file_is_moved_aside_and_the_agent_starts_empty") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    agent.stop().await;
    let file = chassis.world.file("state/configuration");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let (_agent, mut session) = chassis.joined().await;
    assert!(chassis.log().contains("checksum"), "{}", chassis.log());
    // The namespace of the life before is taken over, for it is named like it.
    assert_eq!(chassis.world.namespaces(), [namespace(id)]);
    session.snapshot(simple(id)).await;
    assert_eq!(session.result(id), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_plugin_is_left_and_sought_again() {
    if !can_run("a_silent_plugin_is_left_and_sought_again") {
        return;
    }
    let chassis = Chassis::new().await;
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(v1::Update::default()).await;
    session.until("heartbeats", |heard| heard.heartbeats > 2).await;
    session.fall_silent();
    session.ended().await;
    let again = chassis.plugin.welcomed(INSTALLATION).await;
    assert_eq!(again.hello.boot_id, session.hello.boot_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_stream_hears_again_what_became_of_everything() {
    if !can_run("a_new_stream_hears_again_what_became_of_everything") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    // The same once more: the first stream breaks before the outcome is reported.
    session.update(simple(id)).await;
    drop(session);
    let mut session = chassis.plugin.welcomed(INSTALLATION).await;
    session.snapshot(simple(id)).await;
    let [pool, listener, _] = parts(id);
    session.until("all results", |heard| heard.results.len() == 3).await;
    for id in [id, pool, listener] {
        assert_eq!(session.result(id), Some(""));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_ends_the_stream_and_changes_nothing() {
    if !can_run("a_gap_ends_the_stream_and_changes_nothing") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    session.revision += 1;
    session.update(v1::Update { removed_network_ids: vec![id.to_string()], ..v1::Update::default() }).await;
    session.ended().await;
    let _again = chassis.plugin.welcomed(INSTALLATION).await;
    assert_eq!(chassis.world.namespaces(), [namespace(id)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vip_is_held_told_announced_and_let_go() {
    if !can_run("a_vip_is_held_told_announced_and_let_go") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    assert_eq!(session.hello.held_vip_ids, Vec::<String>::new());
    let with = |held| {
        let vips = vec![vip("10.0.0.9", held), vip("fd00::9", held), vip("10.0.0.8", false)];
        v1::Update { networks: vec![v1::Network { vips, ..network(id) }], ..v1::Update::default() }
    };
    session.snapshot(with(true)).await;
    let addresses =
        || chassis.world.run(&format!("ip netns exec {} ip address show dev tenant0", namespace(id)));
    let text = addresses();
    assert!(
        text.contains("10.0.0.9/32") && text.contains("fd00::9/128") && !text.contains("10.0.0.8"),
        "{text}"
    );
    // The far end learns the neighbour from the announcement alone.
    let far = FarEnd::of(&chassis.world, id);
    chassis.world.run(&format!("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:99 dev {} nud stale", far.link));
    let neighbour = || chassis.world.run(&format!("ip neigh show 10.0.0.9 dev {}", far.link));
    eventually("the announcement is heard", || neighbour().contains(&network(id).mac)).await;

    chassis.remembers(id).await;
    agent.kill();
    // As if another node had had the address before.
    chassis
        .world
        .run(&format!("ip neigh replace {NODE} lladdr 02:00:00:00:00:99 dev {} nud stale", far.link));
    let agent = chassis.agent();
    let mut session = chassis.plugin.welcomed(INSTALLATION).await;
    let mut held = session.hello.held_vip_ids.clone();
    held.sort();
    let mut wanted = ["10.0.0.9", "fd00::9"].map(|address| vip(address, true).id);
    wanted.sort();
    assert_eq!(held, wanted);
    // The plugin gave them to another node meanwhile: its snapshot ends the conflict. For one of them OVN answers since.
    let answered = v1::AnsweredVip { address: "10.0.0.9".to_owned(), mac: "0e:00:00:00:00:77".to_owned() };
    let mut update = with(false);
    update.networks[0].vips.retain(|vip| vip.address != answered.address);
    update.networks[0].answered_vips.push(answered.clone());
    session.snapshot(update).await;
    let neighbour = || chassis.world.run(&format!("ip neigh show 10.0.0.9 dev {}", far.link));
    eventually("the MAC of OVN is announced", || neighbour().contains(&answered.mac)).await;
    let text = addresses();
    assert!(!text.contains("10.0.0.9/32") && !text.contains("fd00::9/128"), "{text}");
    let neighbour = || chassis.world.run(&format!("ip neigh show {NODE} dev {}", far.link));
    eventually("the node's own address is announced", || neighbour().contains(&network(id).mac)).await;
    tokio::time::timeout(Duration::from_secs(20), agent.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_the_next_life_finishes_the_work() {
    if !can_run("killed_at_any_moment_the_next_life_finishes_the_work") {
        return;
    }
    let chassis = Chassis::new().await;
    let old: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
    let new: Vec<Uuid> = (0..6).map(|_| Uuid::new_v4()).collect();
    for (round, milliseconds) in [1, 3, 6, 10, 15, 25, 40, 60].into_iter().enumerate() {
        let (agent, mut session) = chassis.joined().await;
        for id in if round % 2 == 0 { &old } else { &new } {
            session.update(simple(*id)).await;
        }
        session.update(v1::Update { snapshot_end: true, ..v1::Update::default() }).await;
        // At the moment that this round is about.
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        agent.kill();
    }
    let (_agent, mut session) = chassis.joined().await;
    for id in &new {
        session.update(simple(*id)).await;
    }
    session.snapshot(v1::Update::default()).await;
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert!(new.iter().all(|id| session.result(*id) == Some("")), "{:?}", session.heard.results);
    assert_eq!(chassis.world.namespaces(), sorted(new.iter().map(|id| namespace(*id)).collect()));
    assert_eq!(chassis.ports(), sorted(new.iter().map(|id| link(*id)).collect()));
    let links = chassis.world.run("ip -o link show type veth");
    assert_eq!(links.lines().count(), new.len(), "{links}");
    let far = FarEnd::of(&chassis.world, new[3]);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
}
