//! Reads of the embedded store: single entries and snapshots.

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::stream::{self, StreamExt};
use redb::{Database, OwnedRange, ReadableDatabase, ReadableTable};

use super::layout::{self, ENTRIES, META, META_REVISION};
use crate::{Entry, Revision, Snapshot, StoreError};

/// A snapshot chunk ends at this number of entries...
const CHUNK_ENTRIES: usize = 512;

/// ...or after this many bytes of values.
const CHUNK_BYTES: usize = 256 * 1024;

/// Reads a database, which the writer may replace or close.
#[derive(Clone)]
pub(super) struct FileReader {
    name: Arc<str>,
    /// `Err`: why the file is not open. Locked for a read, so that closing waits for reads.
    database: Arc<RwLock<Result<Database, StoreError>>>,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FileReader {
    /// Reads `database`, which is called `name` in messages.
    pub(super) fn new(name: Arc<str>, database: Database) -> Self {
        Self { name, database: Arc::new(RwLock::new(Ok(database))) }
    }

    /// Uses the database. Blocks while it is being replaced.
    ///
    /// # Errors
    /// The reason why it is not open.
    pub(super) fn with<T>(&self, use_it: impl FnOnce(&Database) -> T) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().map(use_it).map_err(Clone::clone)
    }

    /// Returns true if there is a database to read.
    pub(super) fn is_open(&self) -> bool {
        self.with(|_| ()).is_ok()
    }

    /// Takes the database away from all readers, waiting for reads in progress, and puts another in its
    /// place, or the reason why there is none.
    pub(super) fn exchange(&self, with: impl FnOnce(Option<Database>) -> Result<Database, StoreError>) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *database, Err(StoreError::Closed));
        *database = with(old.ok());
    }

    /// The entry of `key`.
    pub(super) async fn get(self, key: String) -> Result<Option<Entry>, StoreError> {
        self.blocking(move |reader| reader.read(|database| get(database, &key))).await
    }

    /// The entries whose key starts with `prefix`, at the revision of the newest commit.
    pub(super) async fn snapshot(self, prefix: String) -> Result<Snapshot, StoreError> {
        let start = prefix.clone();
        let begun = self.clone().blocking(move |reader| reader.read(|database| begin(database, &start)));
        let (revision, range) = begun.await?;
        let chunks = stream::unfold(Some(range), move |range| {
            let (reader, prefix) = (self.clone(), prefix.clone());
            async move {
                let range = range?;
                let chunk = reader.blocking(move |reader| reader.chunk(range, &prefix)).await;
                match chunk {
                    Ok((entries, _)) if entries.is_empty() => None,
                    Ok((entries, rest)) => Some((Ok(entries), rest)),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Ok(Snapshot::new(revision, chunks.boxed()))
    }

    fn chunk(&self, mut range: Entries, prefix: &str) -> Result<(Vec<Entry>, Option<Entries>), StoreError> {
        self.read(|_| {
            let mut entries = Vec::new();
            let mut bytes = 0;
            while entries.len() < CHUNK_ENTRIES && bytes < CHUNK_BYTES {
                let Some(entry) = next_inside(&mut range, prefix)? else { return Ok((entries, None)) };
                bytes += entry.value.len();
                entries.push(entry);
            }
            Ok((entries, Some(range)))
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(read)?.map_err(|error| self.explain(error))
    }

    async fn blocking<T: Send + 'static>(
        self,
        read: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let name = Arc::clone(&self.name);
        let done = tokio::task::spawn_blocking(move || read(&self)).await;
        done.unwrap_or_else(|error| {
            // A read that panics has met pages that redb trusted and should not have.
            Err(StoreError::Damaged { path: name.to_string(), reason: error.to_string() })
        })
    }

    fn explain(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::DatabaseClosed => StoreError::Closed,
            redb::Error::Corrupted(reason) => StoreError::Damaged { path: self.name.to_string(), reason },
            redb::Error::PreviousIo => StoreError::Unavailable(format!(
                "{}: its disk failed before; check the disk and restart the plugin",
                self.name
            )),
            error => StoreError::Unavailable(format!("{}: {error}", self.name)),
        }
    }
}

type Entries = OwnedRange<&'static [u8], &'static [u8]>;

fn get(database: &Database, key: &str) -> Result<Option<Entry>, redb::Error> {
    let entries = database.begin_read()?.open_table(ENTRIES)?;
    let stored = entries.get_owned(key.as_bytes())?;
    stored.map(|stored| entry(key.as_bytes(), stored.value())).transpose()
}

fn begin(database: &Database, prefix: &str) -> Result<(Revision, Entries), redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let revision =
        ReadableTable::get(&meta, META_REVISION)?.map_or(Revision::ZERO, |stored| Revision(stored.value()));
    let range = transaction.open_table(ENTRIES)?.range_owned(prefix.as_bytes()..)?;
    Ok((revision, range))
}

fn next_inside(range: &mut Entries, prefix: &str) -> Result<Option<Entry>, redb::Error> {
    let Some(next) = range.next() else { return Ok(None) };
    let (key, stored) = next?;
    if !key.value().starts_with(prefix.as_bytes()) {
        return Ok(None);
    }
    entry(key.value(), stored.value()).map(Some)
}

fn entry(key: &[u8], stored: &[u8]) -> Result<Entry, redb::Error> {
    layout::entry(key, stored).map_err(|layout::Malformed| {
        redb::Error::Corrupted(format!("the entry {:?} makes no sense", String::from_utf8_lossy(key)))
    })
}
