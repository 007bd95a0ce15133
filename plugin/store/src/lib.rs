//! FiberLB's store: durable keys and values with one revision, compare-and-swap transactions,
//! consistent snapshots and a gapless change stream.
//!
//! One trait, [`Store`], is what its users see. Its backings are [`MemoryStore`] (tests),
//! [`EmbeddedStore`] (one local file) and [`ChainFireStore`] (a replicated cluster). The trait requires no
//! more than etcd's v3 API can give, so that a replicated store fits behind it: revisions grow but may have
//! gaps, and a key is compared by its revision only.
//!
//! This crate knows keys and bytes. It does not know load balancers, what a key means, or who may write it.

mod chainfire;
#[cfg(test)]
mod conformance;
mod dump;
mod election;
mod embedded;
mod error;
mod export;
mod history;
mod import;
mod memory;
mod revision;
#[cfg(any(test, feature = "test-support"))]
mod shared;
mod transaction;
mod types;

pub use chainfire::{ChainFireOptions, ChainFireStore};
pub use dump::LineError;
pub use election::{Election, LEASE_TTL, Leadership, Term};
pub use embedded::{EmbeddedOptions, EmbeddedStore};
pub use error::{CommitError, StoreError, WatchError};
pub use export::{ExportError, ExportSummary, export};
pub use history::HistoryLimits;
pub use import::{ImportError, ImportMode, ImportSummary, import};
pub use memory::MemoryStore;
pub use revision::Revision;
#[cfg(any(test, feature = "test-support"))]
pub use shared::{SharedStore, StoreFault};
pub use transaction::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
pub use types::{Change, ChangeSet, Compare, Entry, Snapshot, Transaction, Value, Watch, Write};

use std::path::Path;

use futures_util::future::BoxFuture;

/// A versioned key-value store with atomic transactions and a change stream.
///
/// Keys are text, values are bytes. All implementations pass one conformance suite.
pub trait Store: Send + Sync + 'static {
    /// The entry of `key`, or `None` if the key is absent. Sees every acknowledged transaction.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// All entries whose key starts with `prefix` (`""`: all), as they were at one revision, in key order.
    ///
    /// The entries come in chunks; later transactions are neither seen nor blocked.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>>;

    /// Applies `transaction` atomically, and returns when it is durable.
    ///
    /// Returns the transaction's own revision, greater than any before. A transaction that changes nothing
    /// (it only deletes absent keys) makes no revision: the store's current one is returned, and no
    /// [`ChangeSet`] is published. Dropping the future does not cancel the transaction.
    ///
    /// # Errors
    /// [`CommitError`] tells whether the transaction was applied: only `Unknown` leaves that open.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>>;

    /// Every [`ChangeSet`] with a revision greater than `after`, in order and without gaps, reduced to the
    /// keys that start with `prefix`. A change set without such a key is left out.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if history no longer reaches back to `after`: take a new snapshot and watch
    /// from its revision. [`WatchError::Future`] if `after` is not a revision of this store.
    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>>;

    /// Election among the processes on this store; `None`: this is the only one.
    fn election(&self) -> Option<&dyn Election> {
        None
    }

    /// Completes the transactions in progress, ends all watches and releases the resources. Later calls fail.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The directory in which the file `path` is.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
