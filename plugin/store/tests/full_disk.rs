//! A store on a file system that is really full: a small tmpfs in a mount namespace of its own.
//!
//! The test starts its own binary again inside the namespace, with [`DIRECTORY`] set. Nothing is mounted
//! outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use fiberlb_store::{CommitError, EmbeddedStore, Revision, Store, Transaction, Write};

/// Environment variable with the child's small file system.
const DIRECTORY: &str = "FIBERLB_TEST_FULL_DISK";

/// Mounts 2 MiB on $0 and becomes the rest of the command.
const MOUNT: &str = r#"mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@""#;

fn put(key: &str) -> Transaction {
    Transaction {
        compares: Vec::new(),
        writes: vec![Write::Put { key: key.into(), value: vec![b'v'; 10_000] }],
    }
}

async fn count(store: &dyn Store) -> usize {
    store.snapshot("").await.unwrap().collect().await.unwrap().len()
}

/// Commits until the disk is full; returns the number of commits.
async fn fill(store: &dyn Store) -> usize {
    for n in 0..1000 {
        match store.commit(put(&format!("/{n}"))).await {
            Ok(_) => {}
            Err(CommitError::Full(_)) => return n,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("2 MiB hold 10 MB")
}

async fn commit_when_room(store: &dyn Store, key: &str) -> Revision {
    loop {
        match store.commit(put(key)).await {
            Ok(revision) => return revision,
            Err(CommitError::Full(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Body of the child, on the small file system.
#[tokio::test]
#[ignore = "started by the test below, on a file system of its own"]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let ballast = directory.join("ballast");
    std::fs::write(&ballast, vec![1; 1024 * 1024]).unwrap();
    let store = EmbeddedStore::open(directory.join("store")).unwrap();
    let filled = fill(&store).await;
    assert!(filled > 0);
    assert_eq!(count(&store).await, filled, "it stays readable");

    std::fs::remove_file(&ballast).unwrap();
    commit_when_room(&store, "/more").await;
    assert_eq!(count(&store).await, filled + 1);
    store.close().await;
    let store = EmbeddedStore::open(directory.join("store")).unwrap();
    assert_eq!(count(&store).await, filled + 1);
    store.close().await;
}

/// Runs `command` in a mount namespace, as root of it, with the small file system mounted on `directory`.
fn run(directory: &Path, command: &Path, arguments: &[&str]) -> io::Result<Output> {
    Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT])
        .args([directory, command])
        .args(arguments)
        .env(DIRECTORY, directory)
        .output()
}

#[test]
fn a_really_full_disk_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    match run(directory.path(), Path::new("true"), &[]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return println!("skipped: no mount namespace: {}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => return println!("skipped: unshare cannot be run: {error}"),
    }
    let this = std::env::current_exe().unwrap();
    let output = run(directory.path(), &this, &["--exact", "child", "--ignored", "--nocapture"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
