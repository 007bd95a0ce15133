//! Streams that one plugin relays to another over mutual TLS, and peers that only pretend to.

use std::path::{Path, PathBuf};

use fiberlb_plugin::agents::Desk;
use fiberlb_proto::agent::v1;
use tempfile::TempDir;
use tonic::transport::Identity;
use tonic::{Code, Request, Status};
use v1::agent_service_client::AgentServiceClient;
use v1::node_message::Message as FromNode;

use crate::pki::{channel, identity, issue, make_ca, replace_server, world};
use crate::world::{Heard, Node, World, hello};

/// A leader and a follower that relays to it, both of one CA, and a certificate for `node-1`.
struct Two {
    leader: World,
    follower: World,
    ca: PathBuf,
    node: Identity,
    _dir: TempDir,
}

fn two() -> Two {
    let dir = tempfile::tempdir().unwrap();
    let (ca, node_dir) = (dir.path().join("ca"), dir.path().join("n1"));
    make_ca(&ca);
    issue(&ca, "node-1", &node_dir);
    let (leader, follower) = (world(&ca), world(&ca));
    follower.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    Two { leader, follower, node: identity(&node_dir, "node"), ca, _dir: dir }
}

#[tokio::test]
async fn a_relayed_node_is_who_its_certificate_says() {
    let Two { mut leader, follower, ca, node, _dir } = two();
    let connect = || channel(&follower, &ca, Some(node.clone()));
    let status = Node::open(connect(), "node-2", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("node-2") && status.message().contains("node-1"), "{status}");
    leader.heard_nothing_else();

    let mut relayed = Node::open(connect(), "node-1", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(hello) if hello.node_id == "node-1"));
    assert!(relayed.update().await.snapshot_end);
    // The same process connects to the leader itself: there is one node.
    let direct = Node::open(channel(&leader, &ca, Some(node)), "node-1", "a").await.unwrap();
    assert_eq!(relayed.ended().await.code(), Code::Aborted);
    assert!(matches!(leader.heard().await, Heard::Left(_)));
    assert!(matches!(leader.heard().await, Heard::Joined(_)));
    drop(direct);
}

/// Opens a stream with the marks of a relayed one.
async fn pretend(world: &World, ca: &Path, identity: Identity, marks: &[(&'static str, &str)]) -> Status {
    let first = v1::NodeMessage { epoch: 0, message: Some(FromNode::Hello(hello("node-2", "a"))) };
    let mut request = Request::new(tokio_stream::once(first));
    for (name, value) in marks {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    let answer = AgentServiceClient::new(channel(world, ca, Some(identity))).session(request).await;
    let Ok(answer) = answer else { return answer.err().unwrap() };
    match answer.into_inner().message().await {
        Ok(_) => Status::ok(""),
        Err(status) => status,
    }
}

#[tokio::test]
async fn only_a_plugin_speaks_for_nodes() {
    let Two { mut leader, mut follower, ca, node, _dir } = two();
    let (by, of) = (("fiberlb-relayed-by", "https://a:1"), ("fiberlb-relayed-node", "node-2"));
    for world in [&leader, &follower] {
        for marks in [&[of][..], &[by, of], &[by]] {
            let status = pretend(world, &ca, node.clone(), marks).await;
            assert_eq!(status.code(), Code::PermissionDenied, "{marks:?}: {status}");
        }
    }
    let plugin = || identity(&ca, "server");
    for marks in [&[][..], &[by]] {
        let status = pretend(&leader, &ca, plugin(), marks).await;
        assert_eq!(status.code(), Code::PermissionDenied, "a plugin that does not say for whom: {status}");
    }
    leader.heard_nothing_else();
    follower.heard_nothing_else();
    assert_eq!(pretend(&leader, &ca, plugin(), &[by, of]).await.code(), Code::Ok);
    assert!(matches!(leader.heard().await, Heard::Joined(hello) if hello.node_id == "node-2"));
    let status = pretend(&follower, &ca, plugin(), &[by, of]).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "relayed twice: {status}");
}

#[tokio::test]
async fn a_plugin_without_the_right_certificate_says_which_one_it_needs() {
    let Two { mut leader, ca, node, _dir, .. } = two();
    replace_server(&ca, 365);
    let older = world(&ca);
    older.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    let status = Node::open(channel(&older, &ca, Some(node.clone())), "node-1", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("agent-ca server"), "{status}");

    let dir = tempfile::tempdir().unwrap();
    let plain = World::unix(dir.path(), None);
    plain.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    let status = plain.node("node-1", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("without TLS"), "{status}");

    let other = tempfile::tempdir().unwrap();
    let theirs = other.path().join("ca");
    make_ca(&theirs);
    issue(&theirs, "node-1", &other.path().join("n1"));
    let stranger = world(&theirs);
    stranger.desk.send_replace(Desk::Elsewhere(leader.address.clone()));
    let shown = identity(&other.path().join("n1"), "node");
    let status = Node::open(channel(&stranger, &theirs, Some(shown)), "node-1", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("certificate"), "{status}");
    leader.heard_nothing_else();
}
