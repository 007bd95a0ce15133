//! One batch: many transactions, judged one after another, made durable together.

use redb::{Database, WriteTransaction};

use super::layout::{self, ENTRIES, Entries, META, META_REVISION};
use crate::transaction::failed_compares;
use crate::{Change, ChangeSet, Revision, Transaction, Value, Write};

/// Result of one transaction of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It changed something, under a revision of its own.
    Changed(ChangeSet),
    /// It only deleted what was absent; the store's revision at that point.
    Unchanged(Revision),
    /// The compares of these keys failed.
    Conflict(Vec<String>),
}

/// A batch that is written but not yet durable.
pub(super) struct Prepared {
    /// To be committed, or aborted if the batch changes nothing.
    pub(super) transaction: WriteTransaction,
    /// One per transaction, in order. They hold once the batch is durable.
    pub(super) outcomes: Vec<Outcome>,
    /// The store's revision once the batch is durable.
    pub(super) revision: Revision,
}

/// Executes `transactions` in order, after the store's revision `current`, without making them durable.
pub(super) fn prepare(
    database: &Database,
    transactions: impl IntoIterator<Item = Transaction>,
    current: Revision,
) -> Result<Prepared, redb::Error> {
    let transaction = database.begin_write()?;
    let mut revision = current;
    let mut outcomes = Vec::new();
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for one in transactions {
            let outcome = apply(&mut entries, one, revision)?;
            if let Outcome::Changed(set) = &outcome {
                revision = set.revision;
            }
            outcomes.push(outcome);
        }
    }
    if revision > current {
        transaction.open_table(META)?.insert(META_REVISION, revision.0)?;
    }
    Ok(Prepared { transaction, outcomes, revision })
}

fn apply(
    entries: &mut Entries<'_>,
    transaction: Transaction,
    current: Revision,
) -> Result<Outcome, redb::StorageError> {
    let failed = failed_compares(&transaction.compares, |key| layout::revision_of(entries, key))?;
    if !failed.is_empty() {
        return Ok(Outcome::Conflict(failed));
    }
    let revision = current.next();
    let mut changes = Vec::with_capacity(transaction.writes.len());
    for one in transaction.writes {
        changes.extend(write(entries, one, revision)?);
    }
    if changes.is_empty() {
        return Ok(Outcome::Unchanged(current));
    }
    Ok(Outcome::Changed(ChangeSet { revision, changes }))
}

fn write(
    entries: &mut Entries<'_>,
    write: Write,
    revision: Revision,
) -> Result<Option<Change>, redb::StorageError> {
    match write {
        Write::Put { key, value } => {
            layout::put(entries, &key, &value, revision)?;
            Ok(Some(Change { key, value: Some(Value::from(value)) }))
        }
        Write::Delete { key } => {
            let was_there = entries.remove(key.as_bytes())?.is_some();
            Ok(was_there.then_some(Change { key, value: None }))
        }
    }
}
