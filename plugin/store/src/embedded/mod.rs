//! The default store: one local file, kept by redb.
//!
//! One thread writes. It takes all queued transactions and makes them durable together, with one fsync;
//! meanwhile the next ones queue up. Each transaction is judged on its own and has a revision of its own.
//! Reads use redb's snapshots and wait for no writer.
//!
//! redb commits in one phase: pages, then the byte that makes them current, then one fsync. If the machine fails before
//! that fsync is over, a checksum (XXH3, not cryptographic) over all pages of the commit tells whether they are whole.
//! Committing in two phases (`set_two_phase_commit`), with an fsync before the byte, does not rely on it. It is for
//! databases whose attacker can choose what is written to the byte, so that the checksum of a torn commit is right, and can
//! crash the machine in just that moment: a crash of the process alone leaves no commit torn. Here callers choose a few
//! fields of JSON values that have checksums of their own, next to ids, times and revisions of the plugin's, and the cost is
//! high: one client writes 2 to 4 times fewer transactions a second, 16 clients half of them. So it is off. Who wants
//! neither uses a cluster.
//!
//! This module knows neither what keys mean nor who its callers are. One process opens the file at a time.

mod batch;
mod file;
mod layout;
mod open;
mod panics;
mod read;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{mpsc, oneshot, watch};

use super::history::{History, HistoryLimits};
use super::{CommitError, Entry, Revision, Snapshot, Store, StoreError, Transaction, Watch, WatchError};
use read::FileReader;
use writer::Job;

/// Transactions that may be queued for the writer; more wait in their callers.
const QUEUE_TRANSACTIONS: usize = 4096;

/// Memory settings of an [`EmbeddedStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Bytes of the file that are cached in memory at most, half of them for pages about to be written.
    pub cache_bytes: usize,
    /// Limits of the history for watches.
    pub history: HistoryLimits,
}

impl Default for EmbeddedOptions {
    /// 16 MiB of cache, which is enough to serve writes (the rest of the plugin reads its own model), and the
    /// default history.
    fn default() -> Self {
        Self { cache_bytes: 16 * 1024 * 1024, history: HistoryLimits::default() }
    }
}

/// A [`Store`] in one local file.
///
/// Needs a tokio runtime for its calls. [`Store::close`] releases the file when it returns; a store that is
/// dropped instead completes the queued transactions and then releases the file, in the background.
#[derive(Debug)]
pub struct EmbeddedStore {
    reader: FileReader,
    history: Arc<History>,
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    /// Disconnected when the writer thread has ended.
    writer_alive: watch::Receiver<()>,
}

impl EmbeddedStore {
    /// Opens the store in the file `path`, with the default options. Blocks while the file is read and, after
    /// a crash, repaired.
    ///
    /// A file that is absent or empty becomes a new store, readable by its owner alone.
    ///
    /// # Errors
    /// [`StoreError`] with what to do. The content of a file that is not a FiberLB store stays unchanged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, EmbeddedOptions::default())
    }

    /// As [`EmbeddedStore::open`], with options.
    ///
    /// # Errors
    /// As [`EmbeddedStore::open`].
    pub fn open_with(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self, StoreError> {
        let source = open::Source::file(path.as_ref(), options.cache_bytes);
        Self::start(source, options.history)
    }

    fn start(source: open::Source, limits: HistoryLimits) -> Result<Self, StoreError> {
        let opened = source.open()?;
        let history = History::new(limits, opened.revision);
        let reader = FileReader::new(source.name(), opened.database);
        let (queue, jobs) = mpsc::channel(QUEUE_TRANSACTIONS);
        let (alive, writer_alive) = watch::channel(());
        writer::WriterThread::new(
            source,
            opened.faults,
            opened.revision,
            reader.clone(),
            Arc::clone(&history),
        )
        .spawn(jobs, alive)?;
        Ok(Self { reader, history, queue: Mutex::new(Some(queue)), writer_alive })
    }

    fn queue(&self) -> Option<mpsc::Sender<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn enqueue(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.validate()?;
        let closed = || CommitError::Unavailable("it is closed".into());
        let queue = self.queue().ok_or_else(closed)?;
        let (answer, answered) = oneshot::channel();
        queue.send(Job { transaction, answer }).await.map_err(|_| closed())?;
        drop(queue);
        answered.await.unwrap_or_else(|_| Err(CommitError::Unknown("the store's writer ended".into())))
    }

    async fn shut(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut alive = self.writer_alive.clone();
        while alive.changed().await.is_ok() {}
    }
}

impl Store for EmbeddedStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.reader.clone().get(key.to_owned()).boxed()
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.reader.clone().snapshot(prefix.to_owned()).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.enqueue(transaction).boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let watch = match self.queue() {
            Some(_) => self.history.watch(prefix, after),
            None => Err(WatchError::Closed),
        };
        futures_util::future::ready(watch).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shut().boxed()
    }
}
