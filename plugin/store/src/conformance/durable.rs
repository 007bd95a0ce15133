//! Cases that hold for stores that keep their data over a restart.

use super::super::WatchError;
use super::*;

fn open(backing: &impl Backing) -> Arc<dyn Store> {
    backing.open(HistoryLimits::default())
}

pub(super) async fn what_was_committed_is_there_after_a_reopen(backing: &impl Backing) {
    let store = open(backing);
    commit(&*store, (0..1000).map(|n| put(&format!("/{n}"), "1")).collect::<Vec<_>>()).await;
    commit(&*store, [delete("/7"), put("/8", "2")]).await;
    let before = all(&*store, "").await;
    soon(store.close()).await;
    assert_eq!(all(&*open(backing), "").await, before);
}

pub(super) async fn revisions_go_on_after_a_reopen(backing: &impl Backing) {
    let mut last = backing.start();
    for _ in 0..3 {
        let store = open(backing);
        assert_eq!(soon(store.snapshot("")).await.unwrap().revision(), last);
        let revision = commit(&*store, [put("/a", "1")]).await;
        assert!(revision > last);
        last = revision;
        soon(store.close()).await;
    }
}

pub(super) async fn a_watch_from_before_the_reopen_is_compacted(backing: &impl Backing) {
    let store = open(backing);
    let first = commit(&*store, [put("/a", "1")]).await;
    let second = commit(&*store, [put("/a", "2")]).await;
    soon(store.close()).await;
    let store = open(backing);
    let error = soon(store.watch("", first)).await.unwrap_err();
    assert_eq!(error, WatchError::Compacted { oldest: second });
    let mut watch = soon(store.watch("", second)).await.unwrap();
    let third = commit(&*store, [put("/a", "3")]).await;
    assert_eq!(next(&mut watch).await.revision, third);
}

pub(super) async fn what_was_handed_over_is_done_before_the_close(backing: &impl Backing) {
    let store = open(backing);
    let mut commits = tokio::task::JoinSet::new();
    for n in 0..100 {
        let store = Arc::clone(&store);
        commits.spawn(async move { store.commit(writes([put(&format!("/{n}"), "1")])).await.is_ok() });
    }
    assert!(soon(commits.join_next()).await.unwrap().unwrap());
    soon(store.close()).await;
    let acknowledged = 1 + soon(commits.join_all()).await.into_iter().filter(|done| *done).count();
    assert_eq!(all(&*open(backing), "").await.len(), acknowledged);
}
