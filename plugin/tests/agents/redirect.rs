//! Nodes that a follower redirects to the leader, over unix sockets.

use std::time::{Duration, Instant};

use fiberlb_plugin::agents::SessionRoute;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::world::{Heard, World};

/// A leader and a follower that knows it, each in a directory of its own.
struct Two {
    leader: World,
    follower: World,
    _dirs: [TempDir; 2],
}

fn two() -> Two {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [leader, follower] = [0, 1].map(|at: usize| World::unix(dirs[at].path(), None));
    follower.route.send_replace(SessionRoute::Leader(leader.address.clone()));
    Two { leader, follower, _dirs: dirs }
}

/// Address that a status redirects to.
pub(crate) fn redirect_of(status: &Status) -> Option<&str> {
    status.metadata().get("fiberlb-leader").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_follower_names_the_leader_and_takes_no_stream() {
    let Two { mut leader, mut follower, _dirs } = two();
    let status = follower.node("n", "a").await.err().unwrap();
    // Agents of older releases try their next plugin on it.
    assert_eq!(status.code(), Code::Unavailable);
    let address = leader.address.to_string();
    assert_eq!(redirect_of(&status), Some(address.as_str()));
    assert!(status.message().contains(&address), "{status}");
    follower.heard_nothing_else();
    leader.heard_nothing_else();

    let _node = leader.node("n", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(hello) if hello.node_id == "n"));
}

#[tokio::test]
async fn a_plugin_that_knows_no_leader_redirects_to_nobody() {
    let Two { mut follower, _dirs, .. } = two();
    follower.route.send_replace(SessionRoute::NoLeader);
    let status = follower.node("n", "a").await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "no plugin leads at the moment"));
    assert_eq!(redirect_of(&status), None);
    follower.heard_nothing_else();
}

#[tokio::test]
async fn nodes_follow_when_leadership_moves() {
    let Two { mut leader, mut follower, _dirs } = two();
    let mut node = leader.node("n1", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(_)));

    let before = Instant::now();
    leader.route.send_replace(SessionRoute::NoLeader);
    let status = node.ended().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("leadership") && status.message().contains("connect again"),
        "{status}"
    );
    assert!(matches!(leader.heard().await, Heard::Left(reason) if reason.contains("leadership")));

    follower.route.send_replace(SessionRoute::Local(follower.recorder.clone()));
    leader.route.send_replace(SessionRoute::Leader(follower.address.clone()));
    let status = leader.node("n1", "a").await.err().unwrap();
    assert_eq!(redirect_of(&status), Some(follower.address.to_string().as_str()));
    let _node = follower.node("n1", "a").await.unwrap();
    assert!(matches!(follower.heard().await, Heard::Joined(_)));
    assert!(before.elapsed() < Duration::from_secs(1), "it took {:?}", before.elapsed());
    leader.heard_nothing_else();
}
