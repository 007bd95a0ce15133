//! Cases that hold for every store.

use tokio::task::JoinSet;

use super::super::{CommitError, MAX_KEY_BYTES, MAX_VALUE_BYTES, StoreError, WatchError};
use super::*;

fn open(backing: &impl Backing) -> Arc<dyn Store> {
    backing.open(HistoryLimits::default())
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entry = soon(store.get(key)).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn refusal(store: &dyn Store, transaction: Transaction) -> CommitError {
    soon(store.commit(transaction)).await.unwrap_err()
}

/// Key and value of each change; `-`: deleted.
fn changes(set: &ChangeSet) -> Vec<(&str, &str)> {
    set.changes.iter().map(|change| (&*change.key, text(change.value.as_deref()))).collect()
}

fn text(value: Option<&[u8]>) -> &str {
    value.map_or("-", |value| std::str::from_utf8(value).unwrap())
}

pub(super) async fn a_new_store_is_empty(backing: &impl Backing) {
    let store = open(backing);
    assert_eq!(soon(store.get("/a")).await, Ok(None));
    let mut snapshot = soon(store.snapshot("")).await.unwrap();
    assert_eq!(snapshot.revision(), backing.start());
    assert_eq!(snapshot.next().await, Ok(None));
    assert_eq!(snapshot.next().await, Ok(None), "the end stays the end");
}

pub(super) async fn what_was_put_is_there_with_its_revision(backing: &impl Backing) {
    let store = open(backing);
    let first = commit(&*store, [put("/a", "1"), put("/b", "1")]).await;
    let second = commit(&*store, [put("/a", "2")]).await;
    let a = soon(store.get("/a")).await.unwrap().unwrap();
    assert_eq!((&*a.key, &*a.value, a.revision), ("/a", &b"2"[..], second));
    assert_eq!(soon(store.get("/b")).await.unwrap().unwrap().revision, first, "untouched");
    assert_eq!(soon(store.get("/")).await, Ok(None), "a prefix is not a key");
    let same = commit(&*store, [put("/a", "2")]).await;
    assert_eq!(soon(store.get("/a")).await.unwrap().unwrap().revision, same, "the same value is a change");
}

pub(super) async fn a_delete_removes_and_may_miss(backing: &impl Backing) {
    let store = open(backing);
    commit(&*store, [put("/a", "1"), put("/b", "1")]).await;
    commit(&*store, [delete("/a"), delete("/none")]).await;
    assert_eq!(keys(&*store, "").await, ["/b"]);
    assert_eq!(soon(store.get("/a")).await, Ok(None));
}

pub(super) async fn revisions_grow_with_each_change_and_only_then(backing: &impl Backing) {
    let store = open(backing);
    let mut last = backing.start();
    for _ in 0..10 {
        let revision = commit(&*store, [put("/a", "1")]).await;
        assert!(revision > last);
        assert_eq!(commit(&*store, [delete("/none")]).await, revision, "nothing changed");
        last = revision;
    }
    refusal(
        &*store,
        Transaction { compares: vec![compare("/a", Revision::ZERO)], writes: vec![delete("/a")] },
    )
    .await;
    assert_eq!(soon(store.snapshot("")).await.unwrap().revision(), last);
}

pub(super) async fn keys_of_one_transaction_share_its_revision(backing: &impl Backing) {
    let store = open(backing);
    let revision = commit(&*store, [put("/a", "1"), put("/b", "1"), put("/c", "1")]).await;
    assert!(all(&*store, "").await.iter().all(|entry| entry.revision == revision));
}

pub(super) async fn a_compare_holds_or_nothing_happens(backing: &impl Backing) {
    let store = open(backing);
    let guarded = |compares: &[Compare], value| Transaction {
        compares: compares.to_vec(),
        writes: vec![put("/a", value), put("/b", value)],
    };
    let absent = [compare("/a", Revision::ZERO)];
    let first = soon(store.commit(guarded(&absent, "1"))).await.unwrap();
    let conflict = CommitError::Conflict { keys: vec!["/a".into()] };
    assert_eq!(refusal(&*store, guarded(&absent, "2")).await, conflict);
    assert_eq!(refusal(&*store, guarded(&[compare("/a", Revision(first.0 + 1))], "2")).await, conflict);
    assert_eq!(value(&*store, "/b").await.unwrap(), "1", "no write of a failed transaction is seen");
    let second = soon(store.commit(guarded(&[compare("/a", first)], "2"))).await.unwrap();
    assert!(second > first);
    assert_eq!(refusal(&*store, guarded(&[compare("/a", first)], "3")).await, conflict, "used up");
    commit(&*store, [delete("/a")]).await;
    assert_eq!(refusal(&*store, guarded(&[compare("/a", second)], "3")).await, conflict, "deleted");
    soon(store.commit(guarded(&absent, "4"))).await.unwrap();
    assert_eq!(value(&*store, "/b").await.unwrap(), "4");
}

pub(super) async fn all_failed_compares_are_named(backing: &impl Backing) {
    let store = open(backing);
    let revision = commit(&*store, [put("/a", "1"), put("/b", "1")]).await;
    let compares = vec![
        compare("/b", Revision::ZERO),
        compare("/a", revision),
        compare("/none", revision),
        compare("/other", Revision::ZERO),
    ];
    let error = refusal(&*store, Transaction { compares, writes: vec![put("/c", "1")] }).await;
    assert_eq!(error, CommitError::Conflict { keys: vec!["/b".into(), "/none".into()] });
}

pub(super) async fn a_wrong_transaction_is_refused(backing: &impl Backing) {
    let store = open(backing);
    let long_key = "k".repeat(MAX_KEY_BYTES + 1);
    let long_value = "v".repeat(MAX_VALUE_BYTES + 1);
    let wrong = [
        (writes([]), "no writes"),
        (writes([put("/a", "1"), delete("/a")]), "\"/a\" twice"),
        (writes([put("", "1")]), "key is empty"),
        (writes([put(&long_key, "1")]), "at most 1024"),
        (writes([put("/a", &long_value)]), "at most 1048576"),
        (
            Transaction { compares: vec![compare("", Revision::ZERO)], writes: vec![put("/a", "1")] },
            "key is empty",
        ),
    ];
    for (transaction, words) in wrong {
        match refusal(&*store, transaction).await {
            CommitError::Invalid(reason) => assert!(reason.contains(words), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(all(&*store, "").await.is_empty());
}

pub(super) async fn the_largest_key_and_value_fit(backing: &impl Backing) {
    let store = open(backing);
    let (key, long) = ("é".repeat(MAX_KEY_BYTES / 2), "v".repeat(MAX_VALUE_BYTES));
    commit(&*store, [put(&key, &long), put("/empty", "")]).await;
    assert_eq!(value(&*store, &key).await.unwrap(), long);
    assert_eq!(value(&*store, "/empty").await.unwrap(), "");
}

pub(super) async fn a_snapshot_stays_as_it_was(backing: &impl Backing) {
    let store = open(backing);
    let revision =
        commit(&*store, (0..2000).map(|n| put(&format!("/{n:04}"), "old")).collect::<Vec<_>>()).await;
    let mut snapshot = soon(store.snapshot("")).await.unwrap();
    let first = snapshot.next().await.unwrap().unwrap();
    assert!(first.len() < 2000, "chunks bound the memory");
    commit(&*store, (0..2000).map(|n| put(&format!("/{n:04}"), "new")).collect::<Vec<_>>()).await;
    commit(&*store, [delete("/1999"), put("/2000", "new")]).await;
    assert_eq!(snapshot.revision(), revision);
    let rest = snapshot.collect().await.unwrap();
    let entries: Vec<_> = first.into_iter().chain(rest).collect();
    assert_eq!(entries.len(), 2000);
    assert!(entries.iter().all(|entry| &*entry.value == b"old" && entry.revision == revision));
}

pub(super) async fn a_snapshot_has_its_prefix_only_in_key_order(backing: &impl Backing) {
    let store = open(backing);
    commit(&*store, ["/b/2", "/c", "/b", "/b/1", "/a", "/b/é", "/b0"].map(|key| put(key, "1"))).await;
    assert_eq!(keys(&*store, "/b/").await, ["/b/1", "/b/2", "/b/é"]);
    assert_eq!(keys(&*store, "/b").await, ["/b", "/b/1", "/b/2", "/b/é", "/b0"]);
    assert_eq!(keys(&*store, "").await.len(), 7);
    assert!(keys(&*store, "/d").await.is_empty());
}

pub(super) async fn a_snapshot_under_writes_shows_whole_transactions(backing: &impl Backing) {
    let store = open(backing);
    let pair = |n: u64| [put("/a", &n.to_string()), put("/z", &n.to_string())];
    commit(&*store, (0..1500).map(|n| put(&format!("/m{n:04}"), "filler")).collect::<Vec<_>>()).await;
    commit(&*store, pair(0)).await;
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 1..200 {
                commit(&*store, pair(n)).await;
            }
        })
    };
    while !writer.is_finished() {
        let snapshot = soon(store.snapshot("")).await.unwrap();
        let revision = snapshot.revision();
        let entries = snapshot.collect().await.unwrap();
        let (first, last) = (&entries[0], &entries[entries.len() - 1]);
        assert_eq!((first.revision, last.revision), (revision, revision));
        assert_eq!(first.value, last.value);
    }
    writer.await.unwrap();
}

pub(super) async fn a_watch_begins_at_any_kept_revision(backing: &impl Backing) {
    let store = open(backing);
    let mut revisions = vec![backing.start()];
    for n in 0..20 {
        revisions.push(commit(&*store, [put("/a", &n.to_string())]).await);
    }
    for (index, after) in revisions.iter().enumerate() {
        let mut watch = soon(store.watch("", *after)).await.unwrap();
        for revision in &revisions[index + 1..] {
            assert_eq!(next(&mut watch).await.revision, *revision);
        }
    }
}

pub(super) async fn a_watch_shows_a_transaction_at_once(backing: &impl Backing) {
    let store = open(backing);
    commit(&*store, [put("/a", "1"), put("/b", "1")]).await;
    commit(&*store, [put("/c", "2"), delete("/none"), delete("/a"), put("/b", "2")]).await;
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    assert_eq!(changes(&*next(&mut watch).await), [("/a", "1"), ("/b", "1")]);
    assert_eq!(changes(&*next(&mut watch).await), [("/c", "2"), ("/a", "-"), ("/b", "2")]);
}

pub(super) async fn a_watch_sees_its_prefix_only(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("/b/", backing.start())).await.unwrap();
    commit(&*store, [put("/a/1", "1"), put("/b/1", "1"), put("/b", "1"), put("/b/2", "1")]).await;
    commit(&*store, [put("/a/1", "2")]).await;
    let third = commit(&*store, [delete("/b/2"), delete("/a/1")]).await;
    assert_eq!(changes(&*next(&mut watch).await), [("/b/1", "1"), ("/b/2", "1")]);
    let set = next(&mut watch).await;
    assert_eq!((changes(&set), set.revision), (vec![("/b/2", "-")], third), "the second is left out");
}

pub(super) async fn a_watch_waits_for_what_comes(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    let waiting = tokio::spawn(async move { next(&mut watch).await.revision });
    assert_eq!(commit(&*store, [put("/a", "1")]).await, soon(waiting).await.unwrap());
}

pub(super) async fn a_snapshot_and_a_watch_from_it_miss_nothing(backing: &impl Backing) {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let store = open(backing);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for n in 0..EACH {
                commit(&*store, [put(&format!("/{writer}/{n}"), "1")]).await;
            }
        });
    }
    let mut joins = 0;
    while !writers.is_empty() || joins == 0 {
        let snapshot = soon(store.snapshot("")).await.unwrap();
        let mut watch = soon(store.watch("", snapshot.revision())).await.unwrap();
        let mut seen = snapshot.collect().await.unwrap().len();
        while seen < WRITERS * EACH {
            seen += next(&mut watch).await.changes.len();
        }
        assert_eq!(seen, WRITERS * EACH);
        joins += 1;
        while writers.try_join_next().is_some() {}
    }
}

pub(super) async fn a_dropped_wait_loses_nothing(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    for n in 0..50 {
        let wait = tokio::time::timeout(Duration::ZERO, watch.next());
        assert!(wait.await.is_err(), "nothing has happened yet");
        let revision = commit(&*store, [put("/a", &n.to_string())]).await;
        assert_eq!(next(&mut watch).await.revision, revision);
    }
}

pub(super) async fn old_history_is_compacted(backing: &impl Backing) {
    let store = backing.open(HistoryLimits { sets: 4, bytes: usize::MAX });
    let mut revisions = Vec::new();
    for n in 0..10 {
        revisions.push(commit(&*store, [put("/a", &n.to_string())]).await);
    }
    let error = soon(store.watch("", revisions[4])).await.unwrap_err();
    assert_eq!(error, WatchError::Compacted { oldest: revisions[5] });
    let mut watch = soon(store.watch("", revisions[5])).await.unwrap();
    assert_eq!(next(&mut watch).await.revision, revisions[6]);
}

pub(super) async fn a_slow_watch_is_told_and_holds_nobody_up(backing: &impl Backing) {
    let store = backing.open(HistoryLimits { sets: usize::MAX, bytes: 100 });
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    for _ in 0..20 {
        commit(&*store, [put("/a", "ten bytes.")]).await;
    }
    assert!(matches!(soon(watch.next()).await, Err(WatchError::Compacted { .. })));
    assert_eq!(soon(watch.next()).await, Err(WatchError::Closed), "a broken watch does not go on");
}

pub(super) async fn the_newest_change_set_is_kept_however_large(backing: &impl Backing) {
    let store = backing.open(HistoryLimits { sets: 0, bytes: 0 });
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    let first = commit(&*store, [put("/a", "1")]).await;
    assert_eq!(next(&mut watch).await.revision, first);
}

pub(super) async fn a_revision_of_the_future_is_refused(backing: &impl Backing) {
    let store = open(backing);
    let current = commit(&*store, [put("/a", "1")]).await;
    let after = Revision(current.0 + 1);
    let error = soon(store.watch("", after)).await.unwrap_err();
    assert_eq!(error, WatchError::Future { after, current });
}

pub(super) async fn concurrent_increments_are_all_counted(backing: &impl Backing) {
    const TASKS: u64 = 8;
    const EACH: u64 = 40;
    let store = open(backing);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for _ in 0..EACH {
                while !increment(&*store).await {}
            }
        });
    }
    soon(tasks.join_all()).await;
    assert_eq!(value(&*store, "/counter").await.unwrap(), (TASKS * EACH).to_string());
}

async fn increment(store: &dyn Store) -> bool {
    let entry = soon(store.get("/counter")).await.unwrap();
    let (count, revision) = entry.map_or((0, Revision::ZERO), |entry| {
        (std::str::from_utf8(&entry.value).unwrap().parse::<u64>().unwrap(), entry.revision)
    });
    let transaction = Transaction {
        compares: vec![compare("/counter", revision)],
        writes: vec![put("/counter", &(count + 1).to_string())],
    };
    match soon(store.commit(transaction)).await {
        Ok(_) => true,
        Err(CommitError::Conflict { keys }) if keys == ["/counter"] => false,
        Err(error) => panic!("{error}"),
    }
}

pub(super) async fn ten_thousand_writes_are_one_transaction(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    let many: Vec<_> = (0..10_000).map(|n| put(&format!("/many/{n}"), &"v".repeat(400))).collect();
    let revision = commit(&*store, many).await;
    assert_eq!(all(&*store, "/many/").await.len(), 10_000);
    let set = next(&mut watch).await;
    assert_eq!((set.revision, set.changes.len()), (revision, 10_000));
    commit(&*store, (0..10_000).map(|n| delete(&format!("/many/{n}"))).collect::<Vec<_>>()).await;
    assert!(all(&*store, "").await.is_empty());
}

pub(super) async fn a_closed_store_ends_watches_and_refuses(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    let mut snapshot = soon(store.snapshot("")).await.unwrap();
    let revision = commit(&*store, [put("/a", "1")]).await;
    soon(store.close()).await;
    soon(store.close()).await;
    assert_eq!(next(&mut watch).await.revision, revision, "what was committed is still handed out");
    assert_eq!(soon(watch.next()).await, Err(WatchError::Closed));
    assert_eq!(soon(store.get("/a")).await, Err(StoreError::Closed));
    assert_eq!(soon(store.snapshot("")).await.unwrap_err(), StoreError::Closed);
    assert_eq!(soon(store.watch("", revision)).await.unwrap_err(), WatchError::Closed);
    assert!(matches!(refusal(&*store, writes([put("/a", "2")])).await, CommitError::Unavailable(_)));
    assert!(matches!(soon(snapshot.next()).await, Ok(None) | Err(StoreError::Closed)));
}

pub(super) async fn a_dropped_store_ends_watches(backing: &impl Backing) {
    let store = open(backing);
    let mut watch = soon(store.watch("", backing.start())).await.unwrap();
    drop(store);
    assert_eq!(soon(watch.next()).await, Err(WatchError::Closed));
}
