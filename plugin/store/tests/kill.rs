//! kill -9 of a process that commits: what it acknowledged is there afterwards, and no transaction is there in part.
//!
//! The process is this test binary itself, started again with [`STORE`] set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fiberlb_store::{Compare, EmbeddedStore, Revision, Store, StoreError, Transaction, Write};

/// Environment variable with the store that the child writes.
const STORE: &str = "FIBERLB_TEST_STORE";

const ROUNDS: u64 = 20;
const WRITERS: u64 = 4;
const KEYS_EACH: u64 = 6;

/// Body of the killed process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests below, in a process of its own"]
async fn child() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let store = Arc::new(EmbeddedStore::open(path).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move { commit_for_ever(&*store, writer).await });
    }
    writers.join_next().await.unwrap().unwrap();
}

async fn commit_for_ever(store: &dyn Store, writer: u64) {
    let (mut count, mut revision) = counter(store, writer).await;
    loop {
        count += 1;
        revision = store.commit(transaction(writer, count, revision)).await.unwrap();
        // One write, so that no line is torn save by the kill.
        std::io::stdout().write_all(format!("\nacknowledged {writer} {count}\n").as_bytes()).unwrap();
    }
}

fn counter_key(writer: u64) -> String {
    format!("/counter/{writer}")
}

async fn counter(store: &dyn Store, writer: u64) -> (u64, Revision) {
    let entry = store.get(&counter_key(writer)).await.unwrap();
    entry.map_or((0, Revision::ZERO), |entry| {
        (std::str::from_utf8(&entry.value).unwrap().parse().unwrap(), entry.revision)
    })
}

/// The `count`th transaction of `writer`: some keys, and its counter, which was last changed by `revision`.
fn transaction(writer: u64, count: u64, revision: Revision) -> Transaction {
    let keys = (0..KEYS_EACH)
        .map(|n| Write::Put { key: format!("/t/{writer}/{count}/{n}"), value: vec![b'v'; 400] });
    let counter = Write::Put { key: counter_key(writer), value: count.to_string().into() };
    let compares = vec![Compare { key: counter_key(writer), revision }];
    Transaction { compares, writes: keys.chain([counter]).collect() }
}

/// Runs the child until it has acknowledged `kill_after` transactions, and kills it; returns the last count
/// of each writer.
fn run_and_kill(path: &Path, kill_after: u64) -> BTreeMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut acknowledged = BTreeMap::new();
    let mut seen = 0;
    while seen < kill_after {
        seen += u64::from(note(&mut acknowledged, &lines.next().expect("the child ended by itself")));
    }
    child.kill().unwrap();
    // Output from before its death counts as well.
    lines.for_each(|line| {
        note(&mut acknowledged, &line);
    });
    assert!(!child.wait().unwrap().success());
    acknowledged
}

/// Records an acknowledgement; returns false if `line` is none.
fn note(acknowledged: &mut BTreeMap<u64, u64>, line: &str) -> bool {
    let Some(numbers) = line.strip_prefix("acknowledged ") else { return false };
    let Some((writer, count)) = numbers.split_once(' ') else { return false };
    acknowledged.insert(writer.parse().unwrap(), count.parse().unwrap());
    true
}

async fn check(store: &dyn Store, acknowledged: &BTreeMap<u64, u64>) {
    let mut expected = Vec::new();
    for writer in 0..WRITERS {
        let (count, _) = counter(store, writer).await;
        let promised = acknowledged.get(&writer).copied().unwrap_or(0);
        assert!(count >= promised, "writer {writer}: acknowledged {promised}, has {count}");
        assert!(count <= promised + 1 || promised == 0, "writer {writer}: one was under way at most");
        expected.extend(
            (1..=count).flat_map(|count| (0..KEYS_EACH).map(move |n| format!("/t/{writer}/{count}/{n}"))),
        );
    }
    let entries = store.snapshot("/t/").await.unwrap().collect().await.unwrap();
    assert!(entries.iter().all(|entry| entry.value.len() == 400));
    expected.sort();
    let keys: Vec<_> = entries.into_iter().map(|entry| entry.key).collect();
    assert!(keys == expected, "each transaction is there wholly or not at all, and none is missing");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    for round in 0..ROUNDS {
        let acknowledged = run_and_kill(&path, round * round % 97);
        let store = EmbeddedStore::open(&path).unwrap();
        check(&store, &acknowledged).await;
        store.close().await;
    }
}

#[tokio::test]
async fn another_process_cannot_have_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = EmbeddedStore::open(&path).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(STORE, &path)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let locked = format!("{:?}", StoreError::Locked { path: path.display().to_string() });
    assert!(said.contains(&locked), "{said}");
    store.close().await;
}
