//! The values that go into a [`Store`](super::Store) and come out of it.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};

use super::error::{StoreError, WatchError};
use super::revision::Revision;

/// Bytes of a value, shared between the store's history and all watchers.
pub type Value = Arc<[u8]>;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The transaction that put this value.
    pub revision: Revision,
}

/// One write of a [`Transaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets `key` to `value`, whether it was there or not. Makes a new revision of the key even if the value
    /// is the same.
    Put {
        /// 1 to [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES) bytes.
        key: String,
        /// At most [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES) bytes.
        value: Vec<u8>,
    },
    /// Removes `key`. Absent: nothing happens.
    Delete {
        /// 1 to [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES) bytes.
        key: String,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// Bytes of its key and value.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// Condition of a [`Transaction`]: `key` was last changed by `revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key that is looked at.
    pub key: String,
    /// The revision it must have; [`Revision::ZERO`]: it must be absent.
    pub revision: Revision,
}

/// Writes that happen together, if all compares hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Conditions of the writes. Empty: they always happen.
    pub compares: Vec<Compare>,
    /// At least one; each key at most once.
    pub writes: Vec<Write>,
}

/// Change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None`: it was deleted.
    pub value: Option<Value>,
}

/// All changes of one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet {
    /// The transaction's revision.
    pub revision: Revision,
    /// In the order of the transaction's writes, each key once. Deletes of absent keys are left out.
    pub changes: Vec<Change>,
}

/// Entries at one revision, handed out in chunks so that memory stays bounded.
pub struct Snapshot {
    revision: Revision,
    chunks: BoxStream<'static, Result<Vec<Entry>, StoreError>>,
}

impl Snapshot {
    /// A snapshot of `revision` whose entries come from `chunks`, in key order over all chunks.
    pub(crate) fn new(
        revision: Revision,
        chunks: BoxStream<'static, Result<Vec<Entry>, StoreError>>,
    ) -> Self {
        Self { revision, chunks: chunks.fuse().boxed() }
    }

    /// The revision that the entries belong to. Watch from here to miss nothing.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The next entries in key order, never an empty chunk; `None` after the last.
    ///
    /// # Errors
    /// The store could not be read on; the snapshot is then incomplete and must be dropped.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, StoreError> {
        self.chunks.next().await.transpose()
    }

    /// All remaining entries at once, for callers that know they are few.
    ///
    /// # Errors
    /// As [`Snapshot::next`].
    pub async fn collect(mut self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        while let Some(chunk) = self.next().await? {
            entries.extend(chunk);
        }
        Ok(entries)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("revision", &self.revision).finish_non_exhaustive()
    }
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    changes: BoxStream<'static, Result<Arc<ChangeSet>, WatchError>>,
}

impl Watch {
    /// A watch that yields `changes`, and [`WatchError::Closed`] when they end.
    pub(crate) fn new(changes: BoxStream<'static, Result<Arc<ChangeSet>, WatchError>>) -> Self {
        Self { changes: changes.fuse().boxed() }
    }

    /// The next change set. Waits until there is one. Cancel safe: nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if the caller was too slow and history was dropped before it was read;
    /// [`WatchError::Closed`] when the store is closed and everything before has been handed out. No
    /// change set follows an error.
    pub async fn next(&mut self) -> Result<Arc<ChangeSet>, WatchError> {
        self.changes.next().await.unwrap_or(Err(WatchError::Closed))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
