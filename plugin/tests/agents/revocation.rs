//! Certificates that are revoked while the listener runs, and streams that are renewed.

use std::path::Path;
use std::time::{Duration, Instant};

use fiberlb_plugin::agents::Settings;
use fiberlb_plugin::agents::certificates::AgentCaCommand;
use fiberlb_proto::agent::v1;
use tempfile::TempDir;
use tonic::Code;
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

#[tokio::test]
async fn a_stream_is_renewed_over_another_connection_before_it_ends() {
    let dir = ca(&["n"]);
    let ca = dir.path();
    let mut world = World::start(&Settings { stream_age_s: 100, ..with_list(ca) });
    let mut first = Node::open(connection(&world, ca, "n"), "n", "a").await.unwrap();
    assert!((90_000..=100_000).contains(&first.welcome.renew_after_ms), "{:?}", first.welcome);
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    let mut second = Node::open(connection(&world, ca, "n"), "n", "a").await.unwrap();
    let status = first.ended().await;
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(matches!(world.heard().await, Heard::Left(_)));
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    assert!(second.update().await.snapshot_end);
    world.heard_nothing_else();
}

#[tokio::test]
async fn a_stream_that_is_not_renewed_ends() {
    let dir = ca(&["n"]);
    let ca = dir.path();
    let world = World::start(&Settings { stream_age_s: 1, ..with_list(ca) });
    let begun = Instant::now();
    let mut node = Node::open(connection(&world, ca, "n"), "n", "a").await.unwrap();
    let status = node.ended().await;
    assert!(status.code() == Code::Unavailable && status.message().contains("too old"), "{status}");
    assert!(begun.elapsed() > Duration::from_secs(10), "it had its time for that: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_value_beyond_its_bound_ends_the_stream_with_the_name_of_its_field() {
    let (log, _guard) = logs();
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), None);
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    let backend_id = uuid::Uuid::nil().to_string();
    let verdict = v1::Verdict { backend_id, reason: "x".repeat(1_000_000), ..v1::Verdict::default() };
    let verdicts = v1::Verdicts { first: true, verdicts: vec![verdict], ..Default::default() };
    node.say(FromNode::Verdicts(verdicts)).await;
    let status = node.ended().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Verdict.reason has 1000000 bytes"), "{status}");
    assert!(matches!(world.heard().await, Heard::Left(_)));
    world.heard_nothing_else();
    assert!(log.text().lines().all(|line| line.len() < 2000));
}

#[tokio::test]
async fn a_node_cannot_have_served_more_than_it_was_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::unix(directory.path(), None);
    let id = uuid::Uuid::from_u128(7);
    let listener = v1::Listener { id: id.to_string(), generation: 5, ..v1::Listener::default() };
    let configuration = fiberlb_plugin::agents::Configuration {
        listeners: [(id, std::sync::Arc::new(listener))].into(),
        ..Default::default()
    };
    world.recorder.publish(Some(std::sync::Arc::new(configuration)));
    let mut node = world.node("n", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    let revision = node.update().await.revision;
    let ack = |generation| {
        let result = v1::Result {
            kind: v1::result::Kind::Listener.into(),
            id: id.to_string(),
            generation,
            error: String::new(),
        };
        FromNode::Ack(v1::Ack { revision, results: vec![result] })
    };
    node.say(ack(5)).await;
    assert!(matches!(world.heard().await, Heard::Acknowledged(true, _)));
    node.say(ack(6)).await;
    let status = node.ended().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("Result.generation is 6; at most 5"), "{status}");
}
