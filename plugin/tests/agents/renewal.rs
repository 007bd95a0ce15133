//! Certificates that are replaced while the listener runs.

use std::path::Path;

use fiberlb_plugin::agents::Settings;
use tempfile::TempDir;
use tonic::transport::Identity;

use crate::pki::{channel, identity, issue, make_ca, replace_server, world};
use crate::world::{Heard, Node, World, logs};

/// A CA in a directory, and a certificate of it for `node-1`.
fn ca() -> (TempDir, Identity) {
    let dir = tempfile::tempdir().unwrap();
    make_ca(dir.path());
    let node_dir = dir.path().join("n1");
    issue(dir.path(), "node-1", &node_dir);
    let node = identity(&node_dir, "node");
    (dir, node)
}

async fn connects(world: &World, ca: &Path, node: &Identity) -> bool {
    Node::open(channel(world, ca, Some(node.clone())), "node-1", "a").await.is_ok()
}

fn copy(name: &str, from: &Path, to: &Path) {
    std::fs::copy(from.join(name), to.join(name)).unwrap();
}

#[tokio::test]
async fn new_connections_use_renewed_files_and_old_streams_go_on() {
    let (log, _guard) = logs();
    let ((old, old_node), (new, new_node)) = (ca(), ca());
    let mut world = world(old.path());
    let mut established =
        Node::open(channel(&world, old.path(), Some(old_node.clone())), "node-1", "a").await.unwrap();
    assert!(matches!(world.heard().await, Heard::Joined(_)));
    assert!(!connects(&world, new.path(), &new_node).await);

    let trusted_before = tempfile::tempdir().unwrap();
    copy("ca.pem", old.path(), trusted_before.path());
    for name in ["server.key", "server.pem", "ca.pem"] {
        copy(name, new.path(), old.path());
    }
    log.until("reloaded certificates").await;
    assert!(!connects(&world, trusted_before.path(), &old_node).await, "the CA is another one");
    world.recorder.publish(Some(Default::default()));
    assert!(established.update().await.snapshot_end);
    drop(established);
    assert!(matches!(world.heard().await, Heard::Left(_)));
    assert!(connects(&world, new.path(), &new_node).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_change_nothing_and_are_tried_again() {
    let (log, _guard) = logs();
    let ((mine, node), (other, _)) = (ca(), ca());
    let world = world(mine.path());
    let file = |name: &str| mine.path().join(name);
    let keep = ["server.pem", "server.key", "ca.pem"].map(|name| (name, std::fs::read(file(name)).unwrap()));
    let restore = || keep.iter().for_each(|(name, content)| std::fs::write(file(name), content).unwrap());
    let half = |name| std::fs::read(file(name)).map(|content| content[..content.len() / 2].to_vec()).unwrap();

    let breaks: [(&str, Vec<u8>, &str); 5] = [
        ("server.pem", half("server.pem"), "server.pem cannot be used"),
        ("server.key", Vec::new(), "server.key cannot be used"),
        ("ca.pem", b"nothing".to_vec(), "ca.pem cannot be used: there is no certificate"),
        ("ca.pem", half("ca.pem"), "ca.pem cannot be used"),
        (
            "server.key",
            std::fs::read(other.path().join("server.key")).unwrap(),
            "not the key of the certificate",
        ),
    ];
    for (name, content, reason) in breaks {
        std::fs::write(file(name), content).unwrap();
        log.until(reason).await;
        assert!(log.text().contains(&file(name).display().to_string()), "{}", log.text());
        let trusted = tempfile::tempdir().unwrap();
        std::fs::write(trusted.path().join("ca.pem"), &keep[2].1).unwrap();
        assert!(connects(&world, trusted.path(), &node).await, "what was read before stays in force");
        restore();
    }
    log.until("usable again").await;
    std::fs::remove_file(file("server.key")).unwrap();
    log.until("cannot read").await;
    assert!(log.text().contains("server.key"), "{}", log.text());
    replace_server(mine.path(), 365);
    log.until("reloaded certificates").await;
    assert!(connects(&world, mine.path(), &node).await);
}

#[tokio::test]
async fn certificates_that_have_expired_or_soon_will_are_told_of() {
    for (days, words) in [(9, "has expired"), (12, "expires soon")] {
        let (log, _guard) = logs();
        let (mine, node) = ca();
        replace_server(mine.path(), days);
        let world = world(mine.path());
        log.until(words).await;
        let text = log.text();
        let line = text.lines().find(|line| line.contains("server.pem")).unwrap();
        assert!(line.contains(words) && line.contains("+00:00"), "file and date: {text}");
        assert_eq!(connects(&world, mine.path(), &node).await, days == 12);
        replace_server(mine.path(), 365);
        log.until("reloaded certificates").await;
        assert!(connects(&world, mine.path(), &node).await);
    }
}

#[tokio::test]
async fn a_plugin_does_not_start_with_files_that_cannot_be_used() {
    let (mine, _) = ca();
    std::fs::write(mine.path().join("ca.pem"), "nothing").unwrap();
    let settings = Settings {
        listen: "tcp:127.0.0.1:0".parse().unwrap(),
        tls_certificate: Some(mine.path().join("server.pem")),
        tls_key: Some(mine.path().join("server.key")),
        client_ca: Some(mine.path().join("ca.pem")),
        ..Settings::default()
    };
    let error = World::refused(&settings).to_string();
    assert!(error.contains("ca.pem cannot be used: there is no certificate in it"), "{error}");
}
