//! Redirects over mutual TLS, and peers that are no nodes.

use std::path::Path;

use fiberlb_plugin::agents::SessionRoute;
use tonic::Code;
use tonic::transport::Identity;

use crate::pki::{channel, identity, issue, make_ca, world};
use crate::redirect::redirect_of;
use crate::world::{Heard, Node, World};

/// A leader and a follower that knows it, both of the CA in a directory, and a certificate for `node-1`.
fn two(ca: &Path) -> (World, World, Identity) {
    make_ca(ca);
    let node_dir = ca.with_file_name("n1");
    issue(ca, "node-1", &node_dir);
    let (leader, follower) = (world(ca), world(ca));
    follower.route.send_replace(SessionRoute::Leader(leader.address.clone()));
    (leader, follower, identity(&node_dir, "node"))
}

#[tokio::test]
async fn a_redirected_node_shows_the_leader_the_same_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let (mut leader, mut follower, node) = two(&ca);
    let status = Node::open(channel(&follower, &ca, Some(node.clone())), "node-1", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(redirect_of(&status), Some(leader.address.to_string().as_str()));
    follower.heard_nothing_else();

    let _node = Node::open(channel(&leader, &ca, Some(node)), "node-1", "a").await.unwrap();
    assert!(matches!(leader.heard().await, Heard::Joined(hello) if hello.node_id == "node-1"));
}

#[tokio::test]
async fn a_plugins_certificate_opens_no_stream_on_leader_or_follower() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let (mut leader, mut follower, _) = two(&ca);
    for world in [&leader, &follower] {
        let opened = Node::open(channel(world, &ca, Some(identity(&ca, "server"))), "node-1", "a").await;
        let status = opened.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        assert_eq!(redirect_of(&status), None, "it is told nothing else");
    }
    leader.heard_nothing_else();
    follower.heard_nothing_else();
}

#[tokio::test]
async fn a_stranger_is_told_of_no_leader() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (dir.path().join("ca"), dir.path().join("other"));
    let (_leader, mut follower, _) = two(&ca);
    make_ca(&other);
    let stranger = dir.path().join("stranger");
    issue(&other, "node-1", &stranger);
    for shown in [None, Some(identity(&stranger, "node"))] {
        let status = Node::open(channel(&follower, &ca, shown), "node-1", "a").await.err().unwrap();
        assert_eq!(redirect_of(&status), None, "{status}");
    }
    follower.heard_nothing_else();
}
