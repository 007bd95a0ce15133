//! Streams over a unix socket: what is sent, what is received, and how they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fiberlb_daemon::listen::ConnectionSettings;
use fiberlb_plugin::agents::{Configuration, Listen, Settings};
use fiberlb_proto::agent::v1;
use prost::Message as _;
use tonic::Code;
use uuid::Uuid;
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

use crate::world::{Heard, Node, World, hello};

fn backend(at: u128) -> v1::Backend {
    v1::Backend {
        id: Uuid::from_u128(at).to_string(),
        address: "10.0.0.9:8080".to_owned(),
        monitor_address: "10.0.0.9:8080".to_owned(),
        weight: 1,
        enabled: true,
        ..v1::Backend::default()
    }
}

fn pool(at: u128) -> v1::Pool {
    let backends = (0..5).map(|backend_at| backend(at * 10 + backend_at)).collect();
    v1::Pool { id: Uuid::from_u128(at).to_string(), backends, enabled: true, ..v1::Pool::default() }
}

fn configuration(count: u128) -> Configuration {
    let id = Uuid::from_u128;
    let listener = |at| v1::Listener {
        id: id(at).to_string(),
        pool_id: id(at).to_string(),
        bind_addresses: vec![format!("10.0.0.250:{}", 10_000 + at)],
        enabled: true,
        ..v1::Listener::default()
    };
    Configuration {
        networks: BTreeMap::new(),
        pools: (0..count).map(|at| (id(at), Arc::new(pool(at)))).collect(),
        listeners: (0..count).map(|at| (id(at), Arc::new(listener(at)))).collect(),
    }
}

#[tokio::test]
async fn a_stream_outlives_the_age_and_the_idle_time_of_connections() {
    let directory = tempfile::tempdir().unwrap();
    let connections = ConnectionSettings { age_s: 1, idle_s: 1, ..ConnectionSettings::default() };
    let listen = Listen::Unix(directory.path().join("agents.sock"));
    let mut world = World::start(&Settings { listen, heartbeat_ms: 500, connections, ..Settings::default() });
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    assert!(node.update().await.snapshot_end);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        node.say(FromNode::Heartbeat(v1::Heartbeat {})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.recorder.publish(Some(Arc::new(configuration(1))));
    assert!(!node.update().await.pools.is_empty());
    world.heard_nothing_else();
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts_and_then_only_what_changes() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), None);
    let mut wanted = configuration(1000);
    world.recorder.publish(Some(Arc::new(wanted.clone())));
    let mut node = world.node("n", "a").await.unwrap();
    assert_eq!((node.welcome.version, node.welcome.heartbeat_ms), (1, 60_000));

    let (mut pools, mut listeners, mut revision) = (Vec::new(), Vec::new(), 0);
    loop {
        let update = node.update().await;
        revision += 1;
        assert_eq!(update.revision, revision);
        assert!(update.encoded_len() <= 256 << 10, "{}", update.encoded_len());
        assert!(update.pools.is_empty() || listeners.is_empty(), "pools come before listeners");
        pools.extend(update.pools);
        listeners.extend(update.listeners);
        if update.snapshot_end {
            break;
        }
    }
    assert!(revision > 1, "{revision} updates");
    assert!(pools.iter().eq(wanted.pools.values().map(AsRef::as_ref)));
    assert!(listeners.iter().eq(wanted.listeners.values().map(AsRef::as_ref)));

    let mut changed = pool(7);
    changed.backends.pop();
    wanted.pools.insert(Uuid::from_u128(7), Arc::new(changed.clone()));
    wanted.listeners.remove(&Uuid::from_u128(8));
    world.recorder.publish(Some(Arc::new(wanted)));
    let delta = v1::Update {
        revision: revision + 1,
        pools: vec![changed],
        removed_listener_ids: vec![Uuid::from_u128(8).to_string()],
        ..v1::Update::default()
    };
    assert_eq!(node.update().await, delta);

    assert!(matches!(world.heard().await, Heard::Joined(hello) if hello.node_id == "n"));
    for (acknowledged, settled) in [(revision, false), (revision + 1, true)] {
        node.say(FromNode::Ack(v1::Ack { revision: acknowledged, results: Vec::new() })).await;
        assert_eq!(world.heard().await, Heard::Acknowledged(settled, Vec::new()));
    }
}

#[tokio::test]
async fn no_snapshot_is_sent_before_it_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::unix(directory.path(), Some(50));
    world.recorder.publish(None);
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(node.hear().await, Ok(Some(FromPlugin::Heartbeat(_)))));
    world.recorder.publish(Some(Arc::default()));
    assert_eq!(node.update().await, v1::Update { revision: 1, snapshot_end: true, ..v1::Update::default() });
}

#[tokio::test]
async fn what_the_node_says_arrives_typed() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), None);
    let node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    let id = Uuid::from_u128(5);
    let verdict =
        v1::Verdict { backend_id: id.to_string(), reason: "refused".to_owned(), ..v1::Verdict::default() };
    for (first, more) in [(true, true), (false, false), (false, false)] {
        node.say(FromNode::Verdicts(v1::Verdicts {
            first,
            more,
            verdicts: vec![verdict.clone()],
            inconclusive: Vec::new(),
        }))
        .await;
    }
    assert!(
        matches!(world.heard().await, Heard::Verdicts(true, all) if all.len() == 2 && all[0].backend == id)
    );
    assert!(
        matches!(world.heard().await, Heard::Verdicts(false, all) if all.len() == 1 && all[0].reason == "refused")
    );
    let counters =
        v1::ListenerCounters { listener_id: id.to_string(), bytes_in_total: 9, ..Default::default() };
    // As an older agent sends it, and a newer one.
    let trouble = v1::Trouble { listener_id: id.to_string(), text: "full".to_owned() };
    let troubles = v1::Troubles { troubles: vec![trouble] };
    for troubles in [None, Some(troubles)] {
        node.say(FromNode::Counters(v1::Counters {
            listeners: vec![counters.clone()],
            troubles,
            ..Default::default()
        }))
        .await;
        assert!(
            matches!(world.heard().await, Heard::Counters(all) if all[0].subject == id && all[0].bytes_in_total == 9)
        );
    }
    assert!(
        matches!(world.heard().await, Heard::Troubles(all) if all[0].listener == Some(id) && all[0].text == "full")
    );
    drop(node);
    assert!(matches!(world.heard().await, Heard::Left(_)));
}

#[tokio::test]
async fn a_silent_node_is_let_go_after_four_heartbeats() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), Some(100));
    let (began, mut heartbeats) = (Instant::now(), 0);
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    let status = loop {
        match node.hear().await {
            Ok(Some(FromPlugin::Heartbeat(_))) => heartbeats += 1,
            Ok(other) => assert!(matches!(other, Some(FromPlugin::Update(_))), "{other:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(heartbeats >= 2, "the plugin's own heartbeats came: {heartbeats}");
    assert!(matches!(world.heard().await, Heard::Left(reason) if reason.contains("no message for")));
}

#[tokio::test]
async fn heartbeats_keep_a_stream_alive() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), Some(50));
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    // Far longer than the 200 ms after which a silent node is dropped; each of the plugin's heartbeats is
    // answered.
    for _ in 0..20 {
        assert!(node.hear().await.unwrap().is_some());
        node.say(FromNode::Heartbeat(v1::Heartbeat {})).await;
    }
    world.heard_nothing_else();
}

#[tokio::test]
async fn a_broken_rule_ends_the_stream_and_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::unix(directory.path(), None);
    let mut node = world.node("n", "a").await.unwrap();
    node.say
        .send(v1::NodeMessage { epoch: 1, message: Some(FromNode::Heartbeat(v1::Heartbeat {})) })
        .await
        .unwrap();
    let status = node.ended().await;
    assert_eq!(
        (status.code(), status.message().contains("epoch 1")),
        (Code::InvalidArgument, true),
        "{status}"
    );
    let mut node = world.node("n", "a").await.unwrap();
    node.say(FromNode::Ack(v1::Ack { revision: 99, results: Vec::new() })).await;
    assert_eq!(node.ended().await.code(), Code::InvalidArgument);
    let huge = v1::Result { error: "x".repeat(2 << 20), ..v1::Result::default() };
    let mut node = world.node("n", "a").await.unwrap();
    node.say(FromNode::Ack(v1::Ack { revision: 0, results: vec![huge] })).await;
    assert_eq!(node.ended().await.code(), Code::OutOfRange, "a message above 1 MiB");
}

#[tokio::test]
async fn one_id_is_one_living_process() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::unix(directory.path(), None);
    let mut first = world.node("n", "a").await.unwrap();
    assert_eq!(world.node("n", "b").await.err().unwrap().code(), Code::AlreadyExists);
    let _second = world.node("n", "a").await.unwrap();
    assert_eq!(first.ended().await.code(), Code::Aborted);
}

#[tokio::test]
async fn a_node_whose_configuration_is_withdrawn_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::unix(directory.path(), None);
    let mut node = world.node("n", "a").await.unwrap();
    world.recorder.withdraw();
    assert_eq!(node.ended().await.code(), Code::Unavailable);
    assert!(world.node("n", "b").await.is_ok(), "and may come again, also as another process");
}

#[tokio::test]
async fn a_plugin_that_stops_says_so_and_takes_its_socket_along() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), None);
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    world.stop.send_replace(true);
    let status = node.ended().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the plugin stops"));
    assert!(matches!(world.heard().await, Heard::Left(_)));
    drop(node);
    world.server.await.unwrap();
    assert!(!directory.path().join("agents.sock").exists());
}

#[tokio::test]
async fn a_node_that_does_not_read_costs_no_memory_and_gets_the_newest() {
    const VERSIONS: usize = 200;
    let directory = tempfile::tempdir().unwrap();
    let world = World::unix(directory.path(), None);
    world.recorder.publish(None);
    let mut node = world.node("n", "a").await.unwrap();

    // Each version is 1.6 MB, all of it different from the one before: seven updates.
    let mut alive: Vec<Weak<v1::Pool>> = Vec::new();
    let mut last = Arc::default();
    for version in 0..VERSIONS {
        let mut next = configuration(200);
        for pool in next.pools.values_mut() {
            Arc::make_mut(pool).network_id = format!("{version:8192}");
        }
        alive.extend(next.pools.values().next().map(Arc::downgrade));
        last = Arc::new(next);
        world.recorder.publish(Some(Arc::clone(&last)));
        // Long enough for a server that does not wait for its reader to make updates of each version.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    let held = alive.iter().filter(|pool| pool.upgrade().is_some()).count();
    assert!(held <= 3, "{held} versions are held: the newest, and the one under way");

    let mut has = BTreeMap::new();
    let mut updates = 0;
    while has.values().ne(last.pools.values().map(AsRef::as_ref)) {
        let update = node.update().await;
        updates += 1;
        has.extend(update.pools.into_iter().map(|pool| (pool.id.clone(), pool)));
    }
    assert!(updates < 20, "{updates} updates: what the node had no time for was skipped");
}

#[tokio::test]
async fn nodes_that_can_are_told_whose_connections_are_read_and_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), Some(200));
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    world.recorder.read.send_replace(Arc::new([one, Uuid::from_u128(3)].into()));
    let serving = |ids: &[Uuid]| {
        let listeners = ids.iter().map(|id| (*id, Arc::default())).collect();
        Some(Arc::new(Configuration { listeners, ..Configuration::default() }))
    };
    world.recorder.publish(serving(&[one]));
    let able = v1::Hello { capabilities: vec!["access-log".to_owned()], ..hello("n", "a") };
    let mut node = Node::open_with(world.channel().await, able).await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    assert_eq!(demanded(&mut node).await, [one.to_string()], "what is read already, of its own");
    world.recorder.read.send_replace(Arc::new([one, two].into()));
    world.recorder.publish(serving(&[one, two]));
    assert_eq!(demanded(&mut node).await, [one, two].map(|id| id.to_string()));
    world.recorder.read.send_replace(Arc::default());
    assert_eq!(demanded(&mut node).await, [""; 0]);

    let entry = v1::AccessLogEntry {
        listener_id: one.to_string(),
        client: "[fd00::1]:40000".to_owned(),
        reason: "no_backend".to_owned(),
        project_id: "tenant-a".to_owned(),
        ..v1::AccessLogEntry::default()
    };
    let omitted = v1::OmittedEntries { listener_id: two.to_string(), connections: 3 };
    node.say(FromNode::AccessLog(v1::AccessLog { entries: vec![entry], omitted: vec![omitted] })).await;
    let Heard::AccessLog(report) = world.heard().await else { panic!("no access log") };
    let first = &report.connections[0];
    assert_eq!((first.connection.listener, report.omitted[&two]), (one, 3));
    assert_eq!(first.connection.client, "[fd00::1]:40000".parse().unwrap());
    assert_eq!(first.project, "tenant-a");

    world.recorder.read.send_replace(Arc::new([one].into()));
    assert_eq!(demanded(&mut node).await, [one.to_string()]);
    let mut old = world.node("old", "a").await.unwrap();
    for _ in 0..3 {
        // It may not be silent for long.
        old.say(FromNode::Heartbeat(v1::Heartbeat {})).await;
        let message = old.hear().await.unwrap();
        assert!(matches!(message, Some(FromPlugin::Update(_) | FromPlugin::Heartbeat(_))), "{message:?}");
    }
}

/// The listeners that a node is told of next.
async fn demanded(node: &mut Node) -> Vec<String> {
    loop {
        match node.hear().await.unwrap().expect("the stream goes on") {
            FromPlugin::AccessLogDemand(demand) => return demand.listener_ids,
            FromPlugin::Update(_) | FromPlugin::Heartbeat(_) => {}
            other @ FromPlugin::Welcome(_) => panic!("{other:?}"),
        }
    }
}
