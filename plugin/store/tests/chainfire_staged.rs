//! Transactions that are larger than the cluster's, on real etcd: seen whole by all, whoever dies.

#![cfg(test)]

#[path = "chainfire_common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chainfire_client::{Client, Config, Operation};
use common::{LARGE, all, compare, etcd, large, open, put, same, soon, writes};
use etcd::Cluster;
use fiberlb_store::{CommitError, Compare, Entry, Revision, Store, Transaction};

/// Environment variable with the cluster that the child writes to.
const ENDPOINTS: &str = "FIBERLB_TEST_ENDPOINTS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_is_one_for_all_plugins_on_the_cluster() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let (one, other) = (open(cluster.endpoints()).await, open(cluster.endpoints()).await);
    let start = soon(other.snapshot("")).await.unwrap().revision();
    let mut watch = soon(other.watch("/fiberlb/", start)).await.unwrap();
    let writer = {
        let one = Arc::clone(&one);
        tokio::spawn(async move {
            let mut revisions = Vec::new();
            for n in 0..6 {
                revisions.push(soon(one.commit(writes(large(&n.to_string())))).await.unwrap());
            }
            revisions
        })
    };
    let mut small = 0;
    while !writer.is_finished() {
        let entries = all(&*other, "/fiberlb/large/").await;
        if !entries.is_empty() {
            assert_eq!(entries.len(), LARGE);
            let (revision, _) = same(entries.iter().map(|entry| (entry.revision, entry.value.clone())));
            let entry = soon(other.get("/fiberlb/large/0350")).await.unwrap().unwrap();
            assert!(entry.revision >= revision);
        }
        soon(other.commit(writes([put("/fiberlb/small", "")]))).await.unwrap();
        small += 1;
    }
    let revisions = writer.await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < revisions.len() {
        let set = soon(watch.next()).await.unwrap();
        match set.changes.len() {
            1 => small -= 1,
            LARGE => seen.push(set.revision),
            other => panic!("{other} changes at once"),
        }
    }
    assert_eq!(seen, revisions);
    while small > 0 {
        assert_eq!(soon(watch.next()).await.unwrap().changes.len(), 1);
        small -= 1;
    }
    assert_eq!(cluster.ctl(&["get", "/fiberlb/large/0123", "--print-value-only"]), "5", "as given");
}

#[tokio::test]
async fn the_revision_of_a_large_transaction_can_be_compared() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let store = open(cluster.endpoints()).await;
    let first = soon(store.commit(writes(large("1")))).await.unwrap();
    let keys = ["/fiberlb/large/0000", "/fiberlb/large/0350", "/fiberlb/large/4499"];
    let guarded = |revision, value: &str| Transaction {
        compares: keys.iter().map(|key| compare(key, revision)).collect(),
        writes: vec![put(keys[0], value), put(keys[2], value)],
    };
    let wrong = soon(store.commit(guarded(Revision(first.0 - 3), "2"))).await;
    assert_eq!(wrong, Err(CommitError::Conflict { keys: keys.map(Into::into).into() }));
    soon(store.close()).await;
    // The record of the transaction is in the cluster, and stays there while keys of it are.
    let store = open(cluster.endpoints()).await;
    soon(store.commit(guarded(first, "2"))).await.unwrap();
    let gone = CommitError::Conflict { keys: vec![keys[0].into(), keys[2].into()] };
    assert_eq!(soon(store.commit(guarded(first, "3"))).await, Err(gone));

    let mut compares: Vec<_> = all(&*store, "/fiberlb/large/")
        .await
        .into_iter()
        .map(|entry| Compare { key: entry.key, revision: entry.revision })
        .collect();
    let rewritten =
        soon(store.commit(Transaction { compares: compares.clone(), writes: large("4") })).await.unwrap();
    let intervals = || cluster.ctl(&["get", "/fiberlb/chainfire/intervals/", "--prefix", "--keys-only"]);
    assert!(rewritten > first);
    compares[300].revision = rewritten;
    let failed = soon(store.commit(Transaction { compares, writes: large("5") })).await;
    match failed {
        Err(CommitError::Conflict { keys }) => assert_eq!(keys.len(), LARGE - 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(intervals().split_whitespace().count(), 2);
    soon(store.close()).await;
    let store = open(cluster.endpoints()).await;
    assert_eq!(intervals().split_whitespace().count(), 1, "what no key needs any more is forgotten");
    assert_eq!(same(all(&*store, "/fiberlb/large/").await.iter().map(|entry| entry.revision)), rewritten);
}

/// State that a writer leaves that dies right after its commit: two chunks, of which none is applied. `chunks`: where
/// they are.
async fn leave_committed(cluster: &Cluster, id: &str, chunks: &str, value: &str) {
    let client = Client::new(Config::new(cluster.endpoints())).unwrap();
    // One write: field 1 its key, field 2 its value.
    let chunk = |key: &str| {
        let field = |tag: u8, bytes: &[u8]| [&[tag, u8::try_from(bytes.len()).unwrap()], bytes].concat();
        field(0x0a, &[field(0x0a, key.as_bytes()), field(0x12, value.as_bytes())].concat())
    };
    let lock = format!(r#"{{"id":"{id}","state":"committed","chunks":2,"next":0}}"#);
    let puts = [
        ("lock".to_owned(), lock.into_bytes()),
        (format!("intervals/{id}"), Vec::new()),
        (format!("{chunks}/00000000"), chunk("/fiberlb/left/1")),
        (format!("{chunks}/00000001"), chunk("/fiberlb/left/2")),
    ];
    let then = puts.map(|(key, value)| Operation::Put {
        key: format!("/fiberlb/chainfire/{key}").into(),
        value,
        lease: None,
    });
    soon(client.transact(chainfire_client::Transaction { then: then.into(), ..Default::default() }))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_dead_writer_committed_is_applied_by_whoever_comes() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let left = |entries: Vec<Entry>| {
        let (value, _) = same(entries.iter().map(|entry| (entry.value.to_vec(), entry.revision)));
        (entries.len(), String::from_utf8(value).unwrap())
    };
    // One that opens the store; of a writer of an earlier release.
    soon(open(cluster.endpoints()).await.close()).await;
    leave_committed(&cluster, "0190163d-8694-739b-aea5-966c26f8ad91", "chunks", "first").await;
    let store = open(cluster.endpoints()).await;
    let snapshot = soon(store.snapshot("")).await.unwrap();
    let mut watch = soon(store.watch("", snapshot.revision())).await.unwrap();
    assert_eq!(left(snapshot.collect().await.unwrap()), (2, "first".into()));
    // One that has it open and does nothing.
    let id = "0190163d-8694-739b-aea5-966c26f8ad92";
    leave_committed(&cluster, id, &format!("stages/{id}/chunks"), "second").await;
    assert_eq!(
        left(all(&*store, "/fiberlb/left/").await),
        (2, "first".into()),
        "not seen before it is whole"
    );
    let set = soon(watch.next()).await.unwrap();
    assert_eq!(set.changes.len(), 2);
    assert_eq!(left(all(&*store, "/fiberlb/left/").await), (2, "second".into()));
    // One that writes.
    let id = "0190163d-8694-739b-aea5-966c26f8ad93";
    leave_committed(&cluster, id, &format!("stages/{id}/chunks"), "third").await;
    let guarded = Transaction {
        compares: vec![compare("/fiberlb/left/1", set.revision)],
        writes: vec![put("/fiberlb/left/1", "lost")],
    };
    let conflict = CommitError::Conflict { keys: vec!["/fiberlb/left/1".into()] };
    assert_eq!(soon(store.commit(guarded)).await, Err(conflict), "it comes after what was committed before");
    assert_eq!(left(all(&*store, "/fiberlb/left/").await), (2, "third".into()));
}

/// Body of the killed process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test below, in a process of its own"]
async fn child() {
    let Ok(endpoints) = std::env::var(ENDPOINTS) else { return };
    let store = open(endpoints.split(',').map(Into::into).collect()).await;
    let head = soon(store.get("/fiberlb/large/0000")).await.unwrap();
    let mut count = head.map_or(0, |head| std::str::from_utf8(&head.value).unwrap().parse().unwrap());
    loop {
        count += 1;
        soon(store.commit(writes(large(&count.to_string())))).await.unwrap();
        std::io::stdout().write_all(format!("\nacknowledged {count}\n").as_bytes()).unwrap();
    }
}

/// Runs the child, lets it live for `life` after its first acknowledgement, and kills it; returns the last
/// count acknowledged.
fn run_and_kill(endpoints: &str, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ENDPOINTS, endpoints)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let acknowledged = |line: &String| line.strip_prefix("acknowledged ").map(|count| count.parse().unwrap());
    let first: u64 = lines.find_map(|line| acknowledged(&line)).expect("the child ended by itself");
    let killer = std::thread::spawn(move || {
        std::thread::park_timeout(life);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let last = lines.filter_map(|line| acknowledged(&line)).last();
    killer.join().unwrap();
    last.unwrap_or(first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_killed_at_any_moment_leaves_all_or_nothing() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let endpoints = cluster.endpoints().join(",");
    // A surviving plugin sees every transaction whole, and applies what the dead one had committed.
    let witness = open(cluster.endpoints()).await;
    let start = soon(witness.snapshot("")).await.unwrap().revision();
    let mut watch = soon(witness.watch("/fiberlb/large/", start)).await.unwrap();
    let mut counted = 0;
    for life in [3, 11, 23, 31, 43, 57, 68, 80] {
        let endpoints = endpoints.clone();
        let child =
            tokio::task::spawn_blocking(move || run_and_kill(&endpoints, Duration::from_millis(life)));
        let acknowledged = soon(child).await.unwrap();
        // Also waits for what the dead writer left.
        soon(witness.commit(writes([put("/fiberlb/small", "")]))).await.unwrap();
        let entries = all(&*witness, "/fiberlb/large/").await;
        assert_eq!(entries.len(), LARGE);
        let count =
            same(entries.iter().map(|entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap()));
        assert!(
            (acknowledged..=acknowledged + 1).contains(&count),
            "{acknowledged} acknowledged, {count} there"
        );
        counted = count;
    }
    for expected in 1..=counted {
        let set = soon(watch.next()).await.unwrap();
        assert_eq!(set.changes.len(), LARGE);
        let value = same(set.changes.iter().map(|change| change.value.clone().unwrap()));
        assert_eq!(&*value, expected.to_string().as_bytes());
    }
}
