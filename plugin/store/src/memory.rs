//! A store that lives in memory, for tests: everything is gone with the process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{self, BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};

use super::history::{History, HistoryLimits};
use super::transaction::failed_compares;
use super::{
    Change, ChangeSet, CommitError, Compare, Entry, Revision, Snapshot, Store, StoreError, Transaction,
    Value, Watch, WatchError, Write,
};

/// Entries of one snapshot chunk.
const CHUNK_ENTRIES: usize = 512;

/// A [`Store`] in memory. Everything it does is done at once, so its futures never wait, save watches.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<Contents>,
    history: Arc<History>,
}

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<String, (Value, Revision)>,
    revision: Revision,
    closed: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.history.close();
    }
}

impl MemoryStore {
    /// An empty store with the default history.
    pub fn new() -> Self {
        Self::with_history(HistoryLimits::default())
    }

    /// An empty store that keeps as much history as `limits` say.
    pub fn with_history(limits: HistoryLimits) -> Self {
        Self { state: Mutex::default(), history: History::new(limits, Revision::ZERO) }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Contents) -> T) -> Result<T, StoreError> {
        let state = self.lock();
        if state.closed { Err(StoreError::Closed) } else { Ok(read(&state)) }
    }

    fn commit_now(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.validate()?;
        let mut state = self.lock();
        if state.closed {
            return Err(CommitError::Unavailable("it is closed".into()));
        }
        state.check(&transaction.compares)?;
        let changes = state.apply(transaction.writes);
        if changes.is_empty() {
            return Ok(state.revision);
        }
        // Published under the lock: change sets come in revision order.
        self.history.publish([ChangeSet { revision: state.revision, changes }]);
        Ok(state.revision)
    }
}

impl Contents {
    fn check(&self, compares: &[Compare]) -> Result<(), CommitError> {
        let failed = failed_compares(compares, |key| {
            Ok::<_, Infallible>(self.entries.get(key).map_or(Revision::ZERO, |(_, revision)| *revision))
        });
        match failed {
            Ok(keys) if keys.is_empty() => Ok(()),
            Ok(keys) => Err(CommitError::Conflict { keys }),
            Err(never) => match never {},
        }
    }

    /// Makes the writes under the next revision and returns their changes; if there are none, the revision
    /// stays.
    fn apply(&mut self, writes: Vec<Write>) -> Vec<Change> {
        let revision = self.revision.next();
        let changes: Vec<_> = writes.into_iter().filter_map(|write| self.write(write, revision)).collect();
        if !changes.is_empty() {
            self.revision = revision;
        }
        changes
    }

    fn write(&mut self, write: Write, revision: Revision) -> Option<Change> {
        match write {
            Write::Put { key, value } => {
                let value = Value::from(value);
                self.entries.insert(key.clone(), (Arc::clone(&value), revision));
                Some(Change { key, value: Some(value) })
            }
            Write::Delete { key } => self.entries.remove(&key).map(|_| Change { key, value: None }),
        }
    }

    fn entries_of(&self, prefix: &str) -> Vec<Entry> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| entry(key, stored))
            .collect()
    }
}

fn entry(key: &str, (value, revision): &(Value, Revision)) -> Entry {
    Entry { key: key.to_owned(), value: Arc::clone(value), revision: *revision }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let found = self.read(|state| state.entries.get(key).map(|stored| entry(key, stored)));
        future::ready(found).boxed()
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let snapshot = self.read(|state| {
            let entries = stream::iter(state.entries_of(prefix));
            Snapshot::new(state.revision, entries.chunks(CHUNK_ENTRIES).map(Ok).boxed())
        });
        future::ready(snapshot).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        future::ready(self.commit_now(transaction)).boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        let watch =
            if self.lock().closed { Err(WatchError::Closed) } else { self.history.watch(prefix, after) };
        future::ready(watch).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.lock().closed = true;
        self.history.close();
        future::ready(()).boxed()
    }
}
