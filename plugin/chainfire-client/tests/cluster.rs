//! The client against real etcd.

#![cfg(test)]

mod etcd;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chainfire_client::{
    Answer, Batch, Client, Compare, Config, Credentials, Error, Event, Operation, Range, Transaction, Watch,
};
use etcd::Cluster;

const PATIENCE: Duration = Duration::from_secs(30);

/// `future`, which must not hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

fn client(cluster: &Cluster) -> Client {
    Client::new(Config::new(cluster.endpoints())).unwrap()
}

/// A cluster with so many members, and a client; `None` where etcd is not installed.
fn cluster_of(members: usize) -> Option<(Cluster, Client)> {
    let cluster = etcd::is_installed().then(|| Cluster::start(members))?;
    let client = client(&cluster);
    Some((cluster, client))
}

fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into(), lease: None }
}

async fn value(client: &Client, key: &str) -> Option<String> {
    soon(client.get(key)).await.unwrap().map(|entry| String::from_utf8(entry.value).unwrap())
}

async fn next(watch: &mut Watch) -> Batch {
    soon(watch.next()).await.unwrap()
}

#[tokio::test]
async fn keys_are_put_read_and_removed() {
    let Some((cluster, client)) = cluster_of(1) else { return };
    let first = client.put("/a", "1").await.unwrap();
    let second = client.put("/a", "2").await.unwrap();
    assert_eq!(second, first + 1);
    let entry = client.get("/a").await.unwrap().unwrap();
    assert_eq!((entry.create_revision, entry.revision, &*entry.value), (first, second, &b"2"[..]));
    let past = client.range(Range::key("/a").at(first)).await.unwrap();
    assert_eq!(past.entries[0].value, b"1");
    assert_eq!(cluster.ctl(&["get", "/a", "--print-value-only"]), "2");
    assert_eq!(client.delete("/a").await.unwrap(), second + 1);
    assert_eq!(client.get("/a").await.unwrap(), None);
    assert_eq!(client.delete("/a").await.unwrap(), second + 1, "nothing to delete, nothing changed");
}

#[tokio::test]
async fn a_transaction_takes_one_branch() {
    let Some((_cluster, client)) = cluster_of(1) else { return };
    let transaction = |revision| Transaction {
        compares: vec![Compare { key: b"/a".to_vec(), revision }],
        then: vec![put("/a", "1"), put("/b", "1"), Operation::Delete(Range::prefix("/old/"))],
        otherwise: vec![Operation::Get(Range::key("/a"))],
    };
    client.put("/old/1", "").await.unwrap();
    let done = client.transact(transaction(0)).await.unwrap();
    assert_eq!((done.succeeded, done.answers), (true, vec![Answer::Put, Answer::Put, Answer::Deleted(1)]));
    let refused = client.transact(transaction(0)).await.unwrap();
    assert!(!refused.succeeded && refused.revision == done.revision);
    match &refused.answers[..] {
        [Answer::Got(page)] => assert_eq!(page.entries[0].revision, done.revision),
        other => panic!("{other:?}"),
    }
    assert!(client.transact(transaction(done.revision)).await.unwrap().succeeded);
    let many = Transaction { then: vec![put("/x", ""); 4097], ..Transaction::default() };
    assert!(matches!(client.transact(many).await, Err(Error::TooLarge(_))));
    let twice = Transaction { then: vec![put("/x", "1"), put("/x", "2")], ..Transaction::default() };
    assert!(matches!(client.transact(twice).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn a_transaction_of_thousands_of_operations_is_one() {
    let Some((_cluster, client)) = cluster_of(1) else { return };
    client.put("/a", "1").await.unwrap();
    for compares in [1, 64, 100, 127] {
        let most = chainfire_client::max_operations(compares);
        let key = |n: usize| format!("/many/{n:04}");
        let guards = (0..compares).map(|n| Compare { key: format!("/none/{n}").into(), revision: 0 });
        let compares: Vec<_> = guards.collect();
        let write = |then| Transaction { compares: compares.clone(), then, otherwise: Vec::new() };
        let put = client.transact(write((0..most).map(|n| put(&key(n), "v")).collect())).await.unwrap();
        assert_eq!(put.answers, vec![Answer::Put; most]);
        let looks = (0..most).map(|n| Operation::Get(Range::key(key(n)).keys_only())).collect();
        let missing = vec![Compare { key: b"/a".to_vec(), revision: 0 }];
        let read = Transaction { compares: missing, then: Vec::new(), otherwise: looks };
        let read = client.transact(read).await.unwrap();
        let found: Vec<_> = read
            .answers
            .into_iter()
            .map(|answer| match answer {
                Answer::Got(page) => (page.entries[0].key.clone(), page.entries[0].revision),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected: Vec<_> = (0..most).map(|n| (key(n).into_bytes(), put.revision)).collect();
        assert_eq!(found, expected);
        let delete = write((0..most).map(|n| Operation::Delete(Range::key(key(n)))).collect());
        assert_eq!(client.transact(delete).await.unwrap().answers, vec![Answer::Deleted(1); most]);
    }
}

#[tokio::test]
async fn pages_are_of_one_revision_whatever_their_weight() {
    let Some((_cluster, client)) = cluster_of(1) else { return };
    for chunk in 0..20 {
        let then = (0..100).map(|n| put(&format!("/small/{chunk:02}{n:02}"), "old")).collect();
        client.transact(Transaction { then, ..Transaction::default() }).await.unwrap();
    }
    for n in 0..80 {
        client.put(format!("/large/{n:02}"), vec![b'v'; 1024 * 1024]).await.unwrap();
    }
    let mut pages = client.pages(Range::prefix("/"));
    let first = soon(pages.next()).await.unwrap().unwrap();
    client.put("/small/0000", "new").await.unwrap();
    client.put("/zzz", "new").await.unwrap();
    let (mut keys, mut revision) = (first.entries, first.revision);
    while let Some(page) = soon(pages.next()).await.unwrap() {
        revision = revision.max(page.revision);
        keys.extend(page.entries);
    }
    assert_eq!(keys.len(), 2080);
    assert!(keys.is_sorted_by(|a, b| a.key < b.key));
    assert!(keys.iter().all(|entry| entry.value != b"new"), "what came later is not seen");
    assert_eq!(soon(pages.next()).await, Ok(None));
    let mut only_keys = client.pages(Range::prefix("").keys_only());
    assert!(
        soon(only_keys.next()).await.unwrap().unwrap().entries.iter().all(|entry| entry.value.is_empty())
    );
}

#[tokio::test]
async fn a_watch_shows_transactions_whole_and_in_order() {
    let Some((_cluster, client)) = cluster_of(1) else { return };
    let first = client.put("/a", "1").await.unwrap();
    client.put("/elsewhere", "1").await.unwrap();
    let then =
        vec![put("/b", "1"), Operation::Delete(Range::key("/a")), put("/elsewhere", "2"), put("/aa", "1")];
    let second = client.transact(Transaction { then, ..Transaction::default() }).await.unwrap().revision;
    let mut watch = client.watch(&Range::prefix("/"), first + 2);
    let batch = next(&mut watch).await;
    let keys: Vec<_> = batch.events.iter().map(|event| std::str::from_utf8(event.key()).unwrap()).collect();
    assert_eq!((batch.revision, keys), (second, vec!["/b", "/a", "/elsewhere", "/aa"]));
    assert_eq!(batch.events[1], Event::Delete { key: b"/a".to_vec() });
    let mut watch = client.watch(&Range::prefix("/a"), 0);
    assert_eq!(next(&mut watch).await.revision, first);
    assert_eq!(next(&mut watch).await.events.len(), 2);
    let waiting = tokio::spawn(async move { next(&mut watch).await.revision });
    assert_eq!(client.put("/a/b", "").await.unwrap(), soon(waiting).await.unwrap());
}

#[tokio::test]
async fn a_watch_reads_a_history_larger_than_a_message() {
    let Some((_cluster, client)) = cluster_of(1) else { return };
    let mut revisions = Vec::new();
    for _ in 0..80 {
        revisions.push(client.put("/large", vec![b'v'; 1024 * 1024]).await.unwrap());
    }
    let mut watch = client.watch(&Range::key("/large"), 1);
    for revision in revisions {
        assert_eq!(next(&mut watch).await.revision, revision);
    }
}

#[tokio::test]
async fn what_is_compacted_is_said_with_the_oldest_revision() {
    let Some((cluster, client)) = cluster_of(1) else { return };
    let first = client.put("/a", "1").await.unwrap();
    let second = client.put("/a", "2").await.unwrap();
    client.put("/a", "3").await.unwrap();
    cluster.ctl(&["compact", &second.to_string()]);
    let error = soon(client.watch(&Range::key("/a"), first).next()).await.unwrap_err();
    assert_eq!(error, Error::Compacted { oldest: second });
    assert_eq!(next(&mut client.watch(&Range::key("/a"), second)).await.revision, second);
    let past = client.range(Range::key("/a").at(first)).await;
    assert!(matches!(past, Err(Error::Compacted { .. })), "{past:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_passes_leader_changes_without_gap_or_double() {
    if !etcd::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let client = client(&cluster);
    let mut watch = client.watch(&Range::prefix("/n/"), 1);
    let (mut written, mut unknown) = (BTreeMap::new(), 0);
    for n in 0..60 {
        if n % 20 == 10 {
            let leader = cluster.leader();
            cluster.kill(leader);
            if n > 20 {
                cluster.restart(leader);
            } else {
                cluster.restart(leader);
                cluster.await_leader();
            }
        }
        match soon(client.put(format!("/n/{n}"), "1")).await {
            Ok(revision) => drop(written.insert(format!("/n/{n}"), revision)),
            Err(Error::Unknown(_)) => unknown += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let last = loop {
        if let Ok(revision) = soon(client.put("/n/last", "1")).await {
            break revision;
        }
    };
    let mut seen = BTreeMap::new();
    loop {
        let batch = next(&mut watch).await;
        let key = String::from_utf8(batch.events[0].key().to_vec()).unwrap();
        assert_eq!(batch.events.len(), 1);
        assert!(seen.values().max() < Some(&batch.revision), "revisions grow");
        assert!(seen.insert(key, batch.revision).is_none() || batch.revision == last);
        if batch.revision == last {
            break;
        }
    }
    let lost: Vec<_> = written.iter().filter(|(key, revision)| seen.get(*key) != Some(revision)).collect();
    assert!(lost.is_empty(), "acknowledged and not seen: {lost:?}");
    assert!(seen.len() - 1 <= written.len() + unknown, "something was written twice");
}

#[tokio::test]
async fn a_lease_holds_its_keys_while_its_owner_lives() {
    if !etcd::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(1);
    let client = client(&cluster);
    let mut lease = client.lease(Duration::from_secs(1)).await.unwrap();
    let bound = |key: &str, lease| Transaction {
        then: vec![Operation::Put { key: key.into(), value: Vec::new(), lease }],
        ..Transaction::default()
    };
    client.transact(bound("/held", Some(lease.id()))).await.unwrap();
    client.transact(bound("/freed", Some(lease.id()))).await.unwrap();
    client.transact(bound("/freed", None)).await.unwrap();
    let lost = tokio::time::timeout(lease.ttl() * 3, lease.lost()).await;
    assert!(lost.is_err(), "it is kept alive for longer than it lives by itself");
    assert_eq!(client.get("/held").await.unwrap().unwrap().lease, Some(lease.id()));
    let id = lease.id();
    soon(lease.revoke()).await.unwrap();
    assert_eq!(value(&client, "/held").await, None);
    assert!(value(&client, "/freed").await.is_some());
    assert_eq!(client.transact(bound("/late", Some(id))).await, Err(Error::LeaseGone));

    let abandoned = client.lease(Duration::from_secs(1)).await.unwrap();
    let mut watch = client.watch(&Range::key("/abandoned"), 1);
    client.transact(bound("/abandoned", Some(abandoned.id()))).await.unwrap();
    drop(abandoned);
    next(&mut watch).await;
    assert!(matches!(next(&mut watch).await.events[0], Event::Delete { .. }));

    let mut cut_off = client.lease(Duration::from_secs(1)).await.unwrap();
    cluster.kill(0);
    soon(cut_off.lost()).await;
}

#[tokio::test]
async fn a_wrong_endpoint_is_named_and_a_right_one_beside_it_serves() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let nobody = format!("{}:1", etcd::first_host());
    let config = Config { timeout: Duration::from_millis(500), ..Config::new([nobody.clone()]) };
    let error = soon(Client::new(config).unwrap().put("/a", "1")).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(text) if text.contains(&nobody)), "{error}");
    let both = [nobody].into_iter().chain(cluster.endpoints());
    soon(Client::new(Config::new(both)).unwrap().put("/a", "1")).await.unwrap();
}

#[tokio::test]
async fn users_are_checked_and_tokens_renewed() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    for arguments in [
        &["user", "add", "root:r"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "alice:secret"],
        &["role", "add", "writer"],
        &["role", "grant-permission", "writer", "--prefix=true", "readwrite", "/mine/"],
        &["user", "grant-role", "alice", "writer"],
        &["auth", "enable"],
    ] {
        cluster.ctl(arguments);
    }
    let with = |user: &str, password: &str| {
        let credentials = Some(Credentials { user: user.into(), password: password.into() });
        Client::new(Config { credentials, ..Config::new(cluster.endpoints()) }).unwrap()
    };
    let wrong = soon(with("alice", "guess").get("/mine/a")).await;
    assert_eq!(wrong, Err(Error::Credentials("alice".into())));
    let error = soon(client(&cluster).get("/mine/a")).await.unwrap_err();
    assert!(matches!(error, Error::Denied(_)), "{error}");

    let alice = with("alice", "secret");
    soon(alice.put("/mine/a", "1")).await.unwrap();
    assert!(matches!(soon(alice.put("/other", "1")).await, Err(Error::Denied(_))));
    assert!(matches!(soon(alice.watch(&Range::key("/other"), 1).next()).await, Err(Error::Denied(_))));
    let mut watch = alice.watch(&Range::prefix("/mine/"), 1);
    next(&mut watch).await;
    // A new password, though it is the same, ends all tokens of the user.
    let passwd = ["--user", "root:r", "user", "passwd", "alice", "--interactive=false"];
    cluster.ctl_with(&passwd, "secret\n");
    soon(alice.put("/mine/a", "2")).await.unwrap();
    next(&mut watch).await;
}

#[tokio::test]
async fn a_lost_majority_is_said_in_time() {
    if !etcd::is_installed() {
        return;
    }
    let mut cluster = Cluster::start(3);
    let timeout = Duration::from_secs(3);
    let client = Client::new(Config { timeout, ..Config::new(cluster.endpoints()) }).unwrap();
    client.put("/a", "1").await.unwrap();
    let leader = cluster.leader();
    cluster.kill(leader);
    cluster.kill((leader + 1) % 3);
    // The member that is left notices after a while that it is alone.
    let began = tokio::time::Instant::now();
    loop {
        let before = tokio::time::Instant::now();
        let read = client.get("/a").await.unwrap_err();
        assert!(before.elapsed() < timeout + Duration::from_millis(500), "{:?}", before.elapsed());
        match read {
            Error::NoLeader(_) => break,
            Error::Deadline { .. } => assert!(began.elapsed() < Duration::from_secs(60), "{read}"),
            _ => panic!("{read}"),
        }
    }
    let write = soon(client.put("/a", "2")).await.unwrap_err();
    assert!(matches!(write, Error::NoLeader(_)), "the member knows by now that it is alone: {write}");
    cluster.restart(leader);
    cluster.await_leader();
    assert_eq!(value(&client, "/a").await.unwrap(), "1", "a refused write was not carried out");
}
