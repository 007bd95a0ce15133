//! Layout of a store inside its file.
//!
//! Two tables: `entries` maps a key to its revision (8 bytes, big endian) followed by its value, so that a
//! compare and a read are one look-up; `meta` holds the format version and the store's revision.

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, TableHandle};

use crate::{Entry, Revision, Value};

/// Version of this layout. A store with a newer one is refused.
pub(super) const FORMAT: u64 = 1;

/// Keys and values. Bytes rather than text: redb then compares them without checking UTF-8 at each step.
pub(super) const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

/// Metadata of the whole store.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("fiberlb-store");

/// [`META`]'s key of the layout version.
pub(super) const META_FORMAT: &str = "format";

/// [`META`]'s key of the revision of the newest transaction.
pub(super) const META_REVISION: &str = "revision";

const REVISION_BYTES: usize = size_of::<u64>();

/// Table `entries`, opened for writing.
pub(super) type Entries<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A stored value that is too short to hold its revision.
#[derive(Debug)]
pub(super) struct Malformed;

/// Puts `value` under `key` with `revision`.
pub(super) fn put(
    entries: &mut Entries<'_>,
    key: &str,
    value: &[u8],
    revision: Revision,
) -> Result<(), redb::StorageError> {
    let mut stored = entries.insert_reserve(key.as_bytes(), REVISION_BYTES + value.len())?;
    if let Some((head, tail)) = stored.as_mut().split_first_chunk_mut() {
        *head = revision.0.to_be_bytes();
        tail.copy_from_slice(value);
    }
    Ok(())
}

/// The revision of `key`, [`Revision::ZERO`] if it is absent.
pub(super) fn revision_of(entries: &Entries<'_>, key: &str) -> Result<Revision, redb::StorageError> {
    let Some(stored) = entries.get(key.as_bytes())? else { return Ok(Revision::ZERO) };
    split(stored.value())
        .map(|(revision, _)| revision)
        .map_err(|Malformed| redb::StorageError::Corrupted(format!("the value of {key:?} has no revision")))
}

/// The entry that is stored as `key` and `stored`.
pub(super) fn entry(key: &[u8], stored: &[u8]) -> Result<Entry, Malformed> {
    let (revision, value) = split(stored)?;
    let key = std::str::from_utf8(key).map_err(|_| Malformed)?.to_owned();
    Ok(Entry { key, value: Value::from(value), revision })
}

fn split(stored: &[u8]) -> Result<(Revision, &[u8]), Malformed> {
    let (revision, value) = stored.split_first_chunk().ok_or(Malformed)?;
    Ok((Revision(u64::from_be_bytes(*revision)), value))
}

/// Content of a file, according to its tables.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// No tables at all: new, or its creation was interrupted.
    Nothing,
    /// A FiberLB store with this layout version and revision.
    Store {
        /// Layout version.
        format: u64,
        /// Revision of the newest transaction.
        revision: Revision,
    },
    /// Tables of something else.
    Foreign(String),
}

/// Inspects the content of a database.
pub(super) fn inspect(transaction: &ReadTransaction) -> Result<Content, TableError> {
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => return without_meta(transaction),
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(error) => return Ok(Content::Foreign(error.to_string())),
    };
    let read = |key| -> Result<Option<u64>, TableError> { Ok(meta.get(key)?.map(|stored| stored.value())) };
    Ok(match (read(META_FORMAT)?, read(META_REVISION)?) {
        (Some(format), revision) => {
            Content::Store { format, revision: Revision(revision.unwrap_or_default()) }
        }
        (None, _) => Content::Foreign("it has no format version".into()),
    })
}

fn without_meta(transaction: &ReadTransaction) -> Result<Content, TableError> {
    let tables = transaction.list_tables()?.map(|table| table.name().to_owned());
    let multimaps =
        transaction.list_multimap_tables()?.map(|table| redb::MultimapTableHandle::name(&table).to_owned());
    let names: Vec<_> = tables.chain(multimaps).take(8).collect();
    if names.is_empty() {
        return Ok(Content::Nothing);
    }
    Ok(Content::Foreign(format!("a redb database with the tables {}", names.join(", "))))
}
