//! Conformance suite of [`Store`]. Each backing runs the same cases.
//!
//! A new backing implements [`Backing`] and names itself in a `conformance!` and an `exports!` line; one that keeps its data
//! over a restart adds a `durable!` line.

mod cases;
pub(crate) mod chainfire;
mod durable;
mod exports;
mod model;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{
    ChangeSet, Compare, EmbeddedOptions, EmbeddedStore, Entry, HistoryLimits, MemoryStore, Revision, Store,
    Transaction, Watch, Write,
};

/// Longer than anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of store, and the place where one lives.
trait Backing: Send + Sync {
    /// Returns true if this machine has what the store needs; else prints SKIPPED.
    fn is_here() -> bool {
        true
    }

    /// A place with no store in it.
    fn new() -> Self;

    /// The store of this place.
    fn open(&self, history: HistoryLimits) -> Arc<dyn Store>;

    /// The revision of the store before its first transaction.
    fn start(&self) -> Revision {
        Revision::ZERO
    }
}

struct Memory;

impl Backing for Memory {
    fn new() -> Self {
        Self
    }

    fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        Arc::new(MemoryStore::with_history(history))
    }
}

struct Embedded {
    directory: tempfile::TempDir,
}

impl Embedded {
    fn path(&self) -> PathBuf {
        self.directory.path().join("plugin.redb")
    }
}

impl Backing for Embedded {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        let options = EmbeddedOptions { history, ..EmbeddedOptions::default() };
        Arc::new(EmbeddedStore::open_with(self.path(), options).unwrap())
    }
}

macro_rules! cases {
    ($module:ident of $list:ident runs $backing:ty: $($case:ident)*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if <$backing as super::Backing>::is_here() {
                    super::$list::$case(&<$backing as super::Backing>::new()).await;
                }
            })*
        }
    };
}

macro_rules! conformance {
    ($module:ident, $backing:ty) => {
        cases! { $module of cases runs $backing:
            a_new_store_is_empty
            what_was_put_is_there_with_its_revision
            a_delete_removes_and_may_miss
            revisions_grow_with_each_change_and_only_then
            keys_of_one_transaction_share_its_revision
            a_compare_holds_or_nothing_happens
            all_failed_compares_are_named
            a_wrong_transaction_is_refused
            the_largest_key_and_value_fit
            a_snapshot_stays_as_it_was
            a_snapshot_has_its_prefix_only_in_key_order
            a_snapshot_under_writes_shows_whole_transactions
            a_watch_begins_at_any_kept_revision
            a_watch_shows_a_transaction_at_once
            a_watch_sees_its_prefix_only
            a_watch_waits_for_what_comes
            a_snapshot_and_a_watch_from_it_miss_nothing
            a_dropped_wait_loses_nothing
            old_history_is_compacted
            a_slow_watch_is_told_and_holds_nobody_up
            the_newest_change_set_is_kept_however_large
            a_revision_of_the_future_is_refused
            concurrent_increments_are_all_counted
            ten_thousand_writes_are_one_transaction
            a_closed_store_ends_watches_and_refuses
            a_dropped_store_ends_watches
        }
    };
}

macro_rules! exports {
    ($module:ident, $backing:ty) => {
        cases! { $module of exports runs $backing:
            an_export_comes_back_whole
            an_import_respects_what_is_there
            a_bad_export_changes_nothing
        }
    };
}

macro_rules! durable {
    ($module:ident, $backing:ty) => {
        cases! { $module of durable runs $backing:
            what_was_committed_is_there_after_a_reopen
            revisions_go_on_after_a_reopen
            a_watch_from_before_the_reopen_is_compacted
            what_was_handed_over_is_done_before_the_close
        }
    };
}

conformance!(memory, super::Memory);
conformance!(embedded, super::Embedded);
conformance!(chainfire_store, super::chainfire::ChainFire);
exports!(memory_exports, super::Memory);
exports!(embedded_exports, super::Embedded);
exports!(chainfire_exports, super::chainfire::ChainFire);
durable!(embedded_durable, super::Embedded);
durable!(chainfire_durable, super::chainfire::ChainFire);

#[test]
fn memory_does_what_the_model_does() {
    model::check::<Memory>(200, false);
}

#[test]
fn embedded_does_what_the_model_does() {
    model::check::<Embedded>(40, true);
}

#[test]
fn chainfire_does_what_the_model_does() {
    if <chainfire::ChainFire as Backing>::is_here() {
        model::check::<chainfire::ChainFire>(8, true);
    }
}

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.into() }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn compare(key: &str, revision: Revision) -> Compare {
    Compare { key: key.into(), revision }
}

fn writes(writes: impl Into<Vec<Write>>) -> Transaction {
    Transaction { compares: Vec::new(), writes: writes.into() }
}

async fn commit(store: &dyn Store, changes: impl Into<Vec<Write>>) -> Revision {
    soon(store.commit(writes(changes))).await.unwrap()
}

async fn all(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    soon(store.snapshot(prefix)).await.unwrap().collect().await.unwrap()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    all(store, prefix).await.into_iter().map(|entry| entry.key).collect()
}

async fn next(watch: &mut Watch) -> Arc<ChangeSet> {
    soon(watch.next()).await.unwrap()
}

/// Awaits `future`, which must not hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}
