//! Certificates that are revoked while the listener runs.

use std::path::Path;
use std::time::Instant;

use fiberlb_plugin::agents::Settings;
use fiberlb_plugin::agents::certificates::AgentCaCommand;
use fiberlb_proto::agent::v1;
use tempfile::TempDir;
use tonic::transport::Channel;
use v1::node_message::Message as FromNode;

use crate::pki::{channel, identity, issue, make_ca, settings};
use crate::world::{Heard, Node, World, logs};

/// A CA in a directory with certificates of these nodes, and a list that has the certificate of another one.
fn ca(nodes: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_ca(dir.path());
    for node in nodes.iter().chain(&["gone"]) {
        issue(dir.path(), node, &dir.path().join(node));
    }
    revoke(dir.path(), "gone");
    dir
}

fn revoke(ca: &Path, node: &str) {
    let certificates = vec![ca.join(node).join("node.pem")];
    AgentCaCommand::Revoke { dir: ca.to_owned(), serials: Vec::new(), certificates }.run().unwrap();
}

fn with_list(ca: &Path) -> Settings {
    Settings { client_crl: Some(ca.join("crl.pem")), ..settings(ca) }
}

fn connection(world: &World, ca: &Path, node: &str) -> Channel {
    channel(world, ca, Some(identity(&ca.join(node), "node")))
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_its_open_stream_ends() {
    let (log, _guard) = logs();
    let dir = ca(&["good", "stolen"]);
    let ca = dir.path();
    let mut world = World::start(&with_list(ca));
    assert!(Node::open(connection(&world, ca, "gone"), "gone", "a").await.is_err());
    let mut good = Node::open(connection(&world, ca, "good"), "good", "a").await.unwrap();
    let mut stolen = Node::open(connection(&world, ca, "stolen"), "stolen", "a").await.unwrap();
    for _ in 0..2 {
        assert!(matches!(world.heard().await, Heard::Joined(_)));
    }

    revoke(ca, "stolen");
    let revoked = Instant::now();
    stolen.ended().await;
    println!("the stream ended {:.2?} after the list was replaced", revoked.elapsed());
    assert!(matches!(world.heard().await, Heard::Left(_)));
    log.until("certificate was revoked").await;
    assert!(log.text().contains("CN=stolen"), "{}", log.text());
    assert!(Node::open(connection(&world, ca, "stolen"), "stolen", "b").await.is_err());
    world.heard_nothing_else();

    assert!(good.update().await.snapshot_end, "others go on");
    world.recorder.publish(Some(Default::default()));
    good.say(FromNode::Heartbeat(v1::Heartbeat {})).await;
    assert!(Node::open(connection(&world, ca, "good"), "good", "a").await.is_ok(), "and may come again");
}

#[tokio::test]
async fn a_list_that_cannot_be_used_changes_nothing() {
    let (log, _guard) = logs();
    let dir = ca(&["good", "stolen"]);
    let ca = dir.path();
    let list = ca.join("crl.pem");
    let world = World::start(&with_list(ca));
    let good = Node::open(connection(&world, ca, "good"), "good", "a").await.unwrap();
    for (content, why) in [
        ("nothing", "there is no revocation list in it"),
        ("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", "crl.pem cannot be used"),
    ] {
        std::fs::write(&list, content).unwrap();
        log.until(why).await;
        assert!(Node::open(connection(&world, ca, "gone"), "gone", "a").await.is_err(), "it stays revoked");
    }
    assert!(!good.say.is_closed());
    let error = World::refused(&with_list(ca)).to_string();
    assert!(error.contains("crl.pem cannot be used"), "{error}");
    std::fs::remove_file(&list).unwrap();
    revoke(ca, "stolen");
    log.until("usable again").await;
    assert!(Node::open(connection(&world, ca, "stolen"), "stolen", "a").await.is_err());
}

#[tokio::test]
async fn a_list_of_another_ca_revokes_nothing_and_is_told_of() {
    let (log, _guard) = logs();
    let (dir, other) = (ca(&["good"]), ca(&[]));
    std::fs::copy(other.path().join("crl.pem"), dir.path().join("crl.pem")).unwrap();
    let world = World::start(&with_list(dir.path()));
    log.until("of none of the CAs of nodes").await;
    assert!(Node::open(connection(&world, dir.path(), "good"), "good", "a").await.is_ok());
}
