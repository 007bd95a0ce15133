//! Errors of a store, in words that tell the operator what to do.

use super::revision::Revision;

/// The store cannot be opened or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store file is in use by another process.
    #[error(
        "the store {path} is in use by another process: two plugins cannot share one store file; stop the other one or give this one its own file"
    )]
    Locked {
        /// The store file.
        path: String,
    },
    /// The file is something else than a FiberLB store.
    #[error(
        "{path} is not a FiberLB store ({reason}); it was not touched: move it away or configure another path"
    )]
    Foreign {
        /// The file.
        path: String,
        /// Reason why it is not a store.
        reason: String,
    },
    /// The store was written by a newer plugin.
    #[error(
        "the store {path} has format version {found}, this plugin knows up to {known}: run the newer plugin, or import an export into a new store"
    )]
    NewerFormat {
        /// The store file.
        path: String,
        /// The version it has.
        found: u64,
        /// The newest version that this program can read.
        known: u64,
    },
    /// The process may not read and write the store file.
    #[error(
        "no permission to read and write the store {path}: run the plugin as the file's owner, or change the owner or mode"
    )]
    Permission {
        /// The store file.
        path: String,
    },
    /// The directory of the store file is not there.
    #[error("the directory {directory} of the store does not exist: make it, or configure another path")]
    DirectoryMissing {
        /// The missing directory.
        directory: String,
    },
    /// The stored data contradicts itself.
    #[error(
        "the store {path} is damaged ({reason}): restore it from an export or a backup; do not delete the file, it may still be of use"
    )]
    Damaged {
        /// The store file.
        path: String,
        /// The contradiction that was found.
        reason: String,
    },
    /// The disk has no room for the store to be opened.
    #[error("no room on the disk of the store ({0}): free some")]
    Full(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The store cannot be read now.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
}

/// A transaction was not applied, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Compares did not hold. Nothing was written.
    #[error("changed by somebody else meanwhile: {}", .keys.join(", "))]
    Conflict {
        /// The keys whose compare failed, in the order of the compares.
        keys: Vec<String>,
    },
    /// The transaction itself is wrong; it would fail on every store. Nothing was written.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// No room on the disk. Nothing was written; retry when there is room.
    #[error("no room on the disk of the store ({0}): free some; reads go on meanwhile")]
    Full(String),
    /// The store takes no writes now. Nothing was written.
    #[error("the store takes no writes: {0}")]
    Unavailable(String),
    /// The transaction may or may not be applied; read the keys after a reopen to find out.
    #[error("it is unknown whether the transaction was written: {0}")]
    Unknown(String),
}

/// A watch could not begin, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History no longer reaches back: take a new snapshot and watch from its revision (resync).
    #[error("changes up to revision {oldest} are no longer kept: take a new snapshot")]
    Compacted {
        /// The oldest revision from which a watch could begin at the moment of the error.
        oldest: Revision,
    },
    /// The requested revision lies in the future: the caller's state comes from another store.
    #[error(
        "revision {after} is newer than the store's {current}: the state of the watcher belongs to another store"
    )]
    Future {
        /// The requested revision.
        after: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The store cannot be reached.
    #[error("the store cannot be watched: {0}")]
    Unavailable(String),
}
