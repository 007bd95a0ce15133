//! The ChainFire store on real etcd: leaders that die, lost history, and the errors that operators see.

#![cfg(test)]

#[path = "chainfire_common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chainfire_client::{Config, Credentials};
use common::{LARGE, all, compare, etcd, large, open, put, soon, writes};
use etcd::Cluster;
use fiberlb_store::{
    ChainFireOptions, ChainFireStore, CommitError, EmbeddedStore, Entry, ImportMode, Revision, Store,
    StoreError, Transaction, Watch, WatchError, export, import,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_killed_under_commits_lose_and_double_nothing() {
    if !etcd::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let store = open(cluster.endpoints()).await;
    let start = soon(store.snapshot("")).await.unwrap().revision();
    let watch = soon(store.watch("/fiberlb/n/", start)).await.unwrap();
    let end = Instant::now() + Duration::from_secs(8);
    let writers: Vec<_> =
        (0..4).map(|writer| tokio::spawn(commit_until(Arc::clone(&store), writer, end))).collect();
    while Instant::now() < end {
        let leader = cluster.leader();
        cluster.kill(leader);
        cluster.await_leader();
        cluster.restart(leader);
        while cluster.try_ctl(&["endpoint", "health"]).0.eq(&false) && Instant::now() < end {}
    }
    cluster.await_leader();
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), 0);
    for writer in writers {
        let (some, lost) = soon(writer).await.unwrap();
        acknowledged.extend(some);
        unknown += lost;
    }
    let last = soon(store.commit(writes([put("/fiberlb/n/last", "")]))).await.unwrap();
    let seen = keys_until(watch, last).await;
    eprintln!("{} acknowledged, {unknown} unknown, {} seen", acknowledged.len(), seen.len());
    assert!(!acknowledged.is_empty());
    let lost: Vec<_> =
        acknowledged.iter().filter(|(key, revision)| seen.get(*key) != Some(revision)).collect();
    assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
    assert!(seen.len() <= acknowledged.len() + unknown, "there is more than was written");
    let stored: BTreeMap<_, _> =
        all(&*store, "/fiberlb/n/").await.into_iter().map(|entry| (entry.key, entry.revision)).collect();
    assert!(seen.iter().all(|(key, revision)| stored.get(key) == Some(revision)), "watch and snapshot agree");
    assert_eq!(stored.len(), seen.len() + 1);
}

/// Puts keys, each once; returns the revisions of the acknowledged ones, and how many have an unknown
/// outcome.
async fn commit_until(
    store: Arc<ChainFireStore>,
    writer: u32,
    end: Instant,
) -> (BTreeMap<String, Revision>, usize) {
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), 0);
    for n in 0.. {
        if Instant::now() >= end {
            break;
        }
        let key = format!("/fiberlb/n/{writer}/{n}");
        let once = Transaction { compares: vec![compare(&key, Revision::ZERO)], writes: vec![put(&key, "")] };
        match soon(store.commit(once)).await {
            Ok(revision) => drop(acknowledged.insert(key, revision)),
            Err(CommitError::Unknown(_)) => unknown += 1,
            Err(CommitError::Unavailable(_)) => {}
            Err(error) => {
                panic!("{error}: a key that is put once was there, so that something was done twice")
            }
        }
    }
    (acknowledged, unknown)
}

/// Changes that a watch shows before `last`.
async fn keys_until(mut watch: Watch, last: Revision) -> BTreeMap<String, Revision> {
    let mut seen = BTreeMap::new();
    loop {
        let set = soon(watch.next()).await.unwrap();
        if set.revision == last {
            return seen;
        }
        assert!(seen.values().max() < Some(&set.revision));
        for change in &set.changes {
            assert_eq!(seen.insert(change.key.clone(), set.revision), None, "{} came twice", change.key);
        }
    }
}

/// A connection to the cluster that can be cut.
struct Way {
    address: String,
    open: watch::Sender<bool>,
}

impl Way {
    async fn to(target: String) -> Self {
        let listener = TcpListener::bind((etcd::first_host(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let (target, mut is_open) = (target.clone(), is_open.clone());
                tokio::spawn(async move {
                    if *is_open.borrow_and_update() {
                        let mut outer = TcpStream::connect(target).await.unwrap();
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                            _ = is_open.changed() => {}
                        }
                    }
                });
            }
        });
        Self { address, open }
    }
}

#[tokio::test]
async fn what_was_compacted_before_it_was_read_ends_the_watch() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let way = Way::to(cluster.endpoints().remove(0)).await;
    let store = open(vec![way.address.clone()]).await;
    let first = soon(store.commit(writes([put("/fiberlb/a", "1")]))).await.unwrap();
    let mut watch = soon(store.watch("", first)).await.unwrap();
    way.open.send_replace(false);
    cluster.ctl(&["put", "/fiberlb/a", "2"]);
    cluster.ctl(&["put", "/fiberlb/a", "3"]);
    let last = first.0 + 2;
    cluster.ctl(&["compact", &last.to_string()]);
    way.open.send_replace(true);
    let error = soon(watch.next()).await.unwrap_err();
    assert_eq!(error, WatchError::Compacted { oldest: Revision(last) });
    // It goes on from a new snapshot.
    let snapshot = soon(store.snapshot("")).await.unwrap();
    let mut watch = soon(store.watch("", snapshot.revision())).await.unwrap();
    assert_eq!(&*snapshot.collect().await.unwrap()[0].value, b"3");
    let next = soon(store.commit(writes([put("/fiberlb/a", "4")]))).await.unwrap();
    assert_eq!(soon(watch.next()).await.unwrap().revision, next);
    let error = soon(store.watch("", Revision(next.0 + 100))).await.unwrap_err();
    assert!(matches!(error, WatchError::Future { .. }), "{error}");
}

#[tokio::test]
async fn an_operator_is_told_what_is_wrong() {
    if !etcd::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let timeout = Duration::from_secs(2);
    let config = Config { timeout, ..Config::new(cluster.endpoints()) };
    let refused = |config: Config| async {
        soon(ChainFireStore::open(ChainFireOptions::new(config))).await.unwrap_err()
    };
    let nobody = format!("{}:1", etcd::first_host());
    let error = refused(Config { endpoints: vec![nobody.clone()], ..config.clone() }).await.to_string();
    assert!(error.contains(&nobody) && error.contains("check the addresses"), "{error}");

    let store = soon(ChainFireStore::open(ChainFireOptions::new(config.clone()))).await.unwrap();
    let outside = soon(store.commit(writes([put("/elsewhere", "1")]))).await.unwrap_err();
    assert!(matches!(&outside, CommitError::Invalid(text) if text.contains("/fiberlb/")), "{outside}");
    cluster.ctl(&["put", "/fiberlb/chainfire/lock", "broken by hand"]);
    let error = soon(store.commit(writes([put("/fiberlb/a", "1")]))).await.unwrap_err().to_string();
    assert!(error.contains("/fiberlb/chainfire/lock") && error.contains("changed from outside"), "{error}");
    assert!(matches!(refused(config.clone()).await, StoreError::Damaged { .. }));
    cluster.ctl(&["del", "/fiberlb/chainfire/lock"]);
    soon(store.commit(writes([put("/fiberlb/a", "1")]))).await.unwrap();

    cluster.ctl(&["put", "/fiberlb/chainfire/format", "{\"version\":9}"]);
    let newer = refused(config.clone()).await;
    assert!(matches!(newer, StoreError::NewerFormat { found: 9, known: 1, .. }), "{newer}");
    cluster.ctl(&["put", "/fiberlb/chainfire/format", "{\"version\":1}"]);

    for arguments in
        [&["user", "add", "root:r"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        cluster.ctl(arguments);
    }
    let credentials = |password: &str| Some(Credentials { user: "root".into(), password: password.into() });
    let wrong = refused(Config { credentials: credentials("guess"), ..config.clone() }).await.to_string();
    assert!(wrong.contains("\"root\"") && wrong.contains("password"), "{wrong}");
    let nobody = refused(config.clone()).await.to_string();
    assert!(nobody.contains("asks for user and password"), "{nobody}");

    let config = Config { credentials: credentials("r"), ..config };
    let store = soon(ChainFireStore::open(ChainFireOptions::new(config))).await.unwrap();
    let leader = cluster.leader_as(&["--user", "root:r"]);
    cluster.kill(leader);
    cluster.kill((leader + 1) % 3);
    let before = Instant::now();
    let error = soon(store.get("/fiberlb/a")).await.unwrap_err().to_string();
    // Which of the ways to say it depends on how far the call came.
    assert!(error.contains("majority of") && before.elapsed() < timeout * 2, "{error}");
    let error = soon(store.commit(writes([put("/fiberlb/a", "2")]))).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable(_) | CommitError::Unknown(_)), "{error}");
}

#[tokio::test]
async fn a_store_moves_to_the_embedded_one_and_back_whole() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let directory = tempfile::tempdir().unwrap();
    let (there, back) = (directory.path().join("there.jsonl"), directory.path().join("back.jsonl"));
    let store = open(cluster.endpoints()).await;
    cluster.ctl(&["put", "/another/application", "untouched"]);
    soon(store.commit(writes(large("{\"version\":1}")))).await.unwrap();
    soon(store.commit(writes([put("/fiberlb/a", "text")]))).await.unwrap();
    let contents =
        |entries: Vec<Entry>| entries.into_iter().map(|entry| (entry.key, entry.value)).collect::<Vec<_>>();
    let before = contents(all(&*store, "").await);
    assert_eq!(soon(export(&*store, &there, &[])).await.unwrap().keys as usize, LARGE + 1);

    let embedded = EmbeddedStore::open(directory.path().join("store.redb")).unwrap();
    soon(import(&embedded, &there, ImportMode::IntoEmpty, "/fiberlb/leader")).await.unwrap();
    assert_eq!(contents(all(&embedded, "").await), before);
    soon(export(&embedded, &back, &[])).await.unwrap();
    soon(store.commit(writes([put("/fiberlb/a", "changed"), put("/fiberlb/more", "")]))).await.unwrap();
    let summary = soon(import(&*store, &back, ImportMode::Replace, "/fiberlb/leader")).await.unwrap();
    assert_eq!((summary.keys as usize, summary.removed), (LARGE + 1, 1));
    assert_eq!(contents(all(&*store, "").await), before);
    assert_eq!(cluster.ctl(&["get", "/another/application", "--print-value-only"]), "untouched");
}
