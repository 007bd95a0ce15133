//! Streams that one plugin relays to another, over unix sockets.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use fiberlb_plugin::agents::{Configuration, Desk};
use fiberlb_proto::agent::v1;
use tempfile::TempDir;
use tonic::Code;
use uuid::Uuid;
use v1::node_message::Message as FromNode;

use crate::wire::Wire;
use crate::world::{Heard, World, eventually};

/// A leader and a follower that relays to it, each in a directory of its own.
struct Two {
    leader: World,
    follower: World,
    _dirs: [TempDir; 2],
}

fn two() -> Two {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [leader, follower] = [0, 1].map(|at: usize| World::unix(dirs[at].path(), None));
    follower.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    Two { leader, follower, _dirs: dirs }
}

fn pools(count: u128, text: &str) -> Configuration {
    let pool = |at| v1::Pool {
        id: Uuid::from_u128(at).to_string(),
        network_id: text.to_owned(),
        ..v1::Pool::default()
    };
    let pools = (0..count).map(|at| (Uuid::from_u128(at), Arc::new(pool(at)))).collect();
    Configuration { pools, ..Configuration::default() }
}

fn verdicts(backend: u128) -> FromNode {
    let verdict =
        v1::Verdict { backend_id: Uuid::from_u128(backend).to_string(), up: true, ..Default::default() };
    FromNode::Verdicts(v1::Verdicts { first: true, more: false, verdicts: vec![verdict] })
}

#[tokio::test]
async fn a_node_of_a_plugin_that_does_not_lead_is_the_leaders() {
    let Two { mut leader, mut follower, _dirs } = two();
    leader.recorder.publish(Some(Arc::new(pools(1, "net"))));
    let mut node = follower.node("n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(hello) if hello.node_id == "n"));
    let update = node.update().await;
    assert_eq!((update.pools[0].network_id.as_str(), update.snapshot_end), ("net", true));
    assert_eq!(follower.metrics.streams.get(), 1);

    node.say(verdicts(5)).await;
    assert!(
        matches!(leader.heard().await, Heard::Verdicts(true, all) if all[0].backend == Uuid::from_u128(5))
    );
    node.say(FromNode::Ack(v1::Ack { revision: 1, results: Vec::new() })).await;
    assert_eq!(leader.heard().await, Heard::Acknowledged(true, Vec::new()));
    leader.recorder.publish(Some(Arc::new(pools(1, "another"))));
    assert_eq!(node.update().await.pools[0].network_id, "another");

    node.close().await;
    assert_eq!(leader.heard().await, Heard::Left("the node closed the stream".to_owned()));
    eventually("nothing is relayed any more", || follower.metrics.streams.get() == 0).await;
    assert_eq!(follower.metrics.failures.get(), 0);
    follower.heard_nothing_else();
}

#[tokio::test]
async fn nodes_follow_when_leadership_moves() {
    let Two { mut leader, mut follower, _dirs } = two();
    let mut at_leader = leader.node("n1", "a").await.unwrap();
    let mut at_follower = follower.node("n2", "a").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(leader.heard().await, Heard::Joined(_)));
    }

    leader.desk.send_replace(Desk::Nobody);
    for node in [&mut at_leader, &mut at_follower] {
        let status = node.ended().await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            status.message().contains("leadership") && status.message().contains("connect again"),
            "{status}"
        );
    }
    for _ in 0..2 {
        assert!(matches!(leader.heard().await, Heard::Left(reason) if reason.contains("leadership")));
    }
    let status = leader.node("n1", "a").await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no plugin leads at the moment"));

    let before = Instant::now();
    follower.desk.send_replace(Desk::Here(follower.recorder.clone()));
    leader.desk.send_replace(Desk::Elsewhere(follower.address.clone()));
    let (one, two) = (leader.node("n1", "a").await.unwrap(), follower.node("n2", "a").await.unwrap());
    for _ in 0..2 {
        assert!(matches!(follower.heard().await, Heard::Joined(_)));
    }
    assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
    leader.heard_nothing_else();
    drop((one, two));
}

#[tokio::test]
async fn a_relay_ends_when_its_plugin_hears_of_another_leader() {
    let Two { mut leader, follower, _dirs } = two();
    let mut node = follower.node("n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(_)));
    let before = Instant::now();
    follower.desk.send_replace(Desk::Here(follower.recorder.clone()));
    assert_eq!(node.ended().await.code(), Code::Unavailable);
    assert!(matches!(leader.heard().await, Heard::Left(_)));
    assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_stream_is_relayed_once() {
    let Two { mut leader, mut follower, _dirs } = two();
    for desk in [Desk::Elsewhere(follower.address.clone()), Desk::Nobody] {
        leader.desk.send_replace(desk);
        let status = follower.node("n", "a").await.err().unwrap();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("does not lead"), "{status}");
    }
    follower.desk.send_replace(Desk::Elsewhere(follower.address.clone()));
    let status = follower.node("n", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition, "a plugin that takes itself for another: {status}");
    leader.heard_nothing_else();
    follower.heard_nothing_else();
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_named_within_a_second() {
    let Two { follower, _dirs: [dir, _other], .. } = two();
    let (nobody, stopped) = (dir.path().join("nobody"), dir.path().join("stopped"));
    // The kernel accepts connections for a stopped process.
    let _stopped = std::os::unix::net::UnixListener::bind(&stopped).unwrap();
    for path in [nobody, stopped] {
        let before = Instant::now();
        let address = format!("unix:{}", path.display());
        follower.desk.send_replace(Desk::Elsewhere(address.parse().unwrap()));
        let status = follower.node("n", "a").await.err().unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(&address), "{status}");
        assert!(before.elapsed() < Duration::from_millis(1900), "it took {:?}", before.elapsed());
    }
    assert_eq!(follower.metrics.failures.get(), 2);
    assert_eq!(follower.metrics.streams.get(), 0);
}

#[tokio::test]
async fn the_end_of_a_leader_is_the_end_of_what_is_relayed_to_it() {
    let Two { mut leader, follower, _dirs: [dir, _other] } = two();
    let (cut, whole) = (dir.path().join("wire"), dir.path().join("agents.sock"));
    let wire = Wire::new(&cut, &whole);
    let address = format!("unix:{}", cut.display());
    follower.desk.send_replace(Desk::Elsewhere(address.parse().unwrap()));
    let mut node = follower.node("n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(_)));
    drop(wire);
    let status = node.ended().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(&address) && status.message().contains("lost"), "{status}");
    assert_eq!(follower.metrics.failures.get(), 1);
    assert!(matches!(leader.heard().await, Heard::Left(_)));

    follower.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    let mut node = follower.node("n", "a").await.unwrap();
    leader.stop.send_replace(true);
    let status = node.ended().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the plugin stops"));
    assert_eq!(follower.metrics.failures.get(), 1, "that is no failure of the relay");
}

#[tokio::test]
async fn a_node_whose_connection_breaks_leaves_the_leader() {
    let Two { mut leader, follower, _dirs: [_other, dir] } = two();
    let (cut, whole) = (dir.path().join("wire"), dir.path().join("agents.sock"));
    let wire = Wire::new(&cut, &whole);
    let node = follower.node_at(&cut, "n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(_)));
    drop(wire);
    assert!(matches!(leader.heard().await, Heard::Left(_)));
    eventually("nothing is relayed any more", || follower.metrics.streams.get() == 0).await;
    drop(node);
}

#[tokio::test]
async fn a_plugin_that_relays_and_stops_says_so_to_both_sides() {
    let Two { mut leader, follower, _dirs } = two();
    let mut node = follower.node("n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(_)));
    follower.stop.send_replace(true);
    let status = node.ended().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the plugin stops"));
    assert!(matches!(leader.heard().await, Heard::Left(_)));
    drop(node);
    follower.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_relayed_node_that_does_not_read_costs_no_memory_and_gets_the_newest() {
    const VERSIONS: usize = 100;
    let Two { leader, follower, _dirs } = two();
    leader.recorder.publish(None);
    let mut node = follower.node("n", "a").await.unwrap();

    // Each version is 1.6 MB, all of it different from the one before: seven updates.
    let mut alive: Vec<Weak<v1::Pool>> = Vec::new();
    let mut last = String::new();
    for version in 0..VERSIONS {
        last = format!("{version:8192}");
        let next = pools(200, &last);
        alive.extend(next.pools.values().next().map(Arc::downgrade));
        leader.recorder.publish(Some(Arc::new(next)));
        // Long enough for a relay that does not wait for its reader to take updates of each version.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
    let held = alive.iter().filter(|pool| pool.upgrade().is_some()).count();
    assert!(held <= 3, "{held} versions are held: the newest, and the one under way");

    let (mut newest, mut updates) = (0, 0);
    while newest < 200 {
        let update = node.update().await;
        updates += 1;
        newest += update.pools.iter().filter(|pool| pool.network_id == last).count();
    }
    assert!(updates < 25, "{updates} updates: what the node had no time for was skipped");
}
