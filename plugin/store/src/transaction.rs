//! Validation of transactions, and their failed compares. Pure.

use std::collections::HashSet;

use super::error::CommitError;
use super::revision::Revision;
use super::types::{Compare, Transaction, Write};

/// Most bytes of one key. Keys are paths of ids; a longer one is a mistake of the caller.
pub const MAX_KEY_BYTES: usize = 1024;

/// Most bytes of one value: 1 MiB, so that each value fits into one request of etcd (1.5 MiB by default).
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

impl Transaction {
    /// Checks everything that needs no look-up in the store.
    ///
    /// # Errors
    /// [`CommitError::Invalid`] with the reason: no writes, a key written twice, an empty or too long key, a
    /// too long value.
    pub fn validate(&self) -> Result<(), CommitError> {
        if self.writes.is_empty() {
            return Err(CommitError::Invalid("it has no writes".into()));
        }
        self.compares.iter().try_for_each(|compare| check_key(&compare.key))?;
        self.writes.iter().try_for_each(check_write)?;
        check_distinct(&self.writes)
    }
}

fn check_distinct(writes: &[Write]) -> Result<(), CommitError> {
    let mut seen = HashSet::with_capacity(writes.len());
    match writes.iter().find(|write| !seen.insert(write.key())) {
        Some(write) => Err(CommitError::Invalid(format!("it writes key {:?} twice", write.key()))),
        None => Ok(()),
    }
}

fn check_write(write: &Write) -> Result<(), CommitError> {
    check_key(write.key())?;
    match write {
        Write::Put { key, value } if value.len() > MAX_VALUE_BYTES => Err(CommitError::Invalid(format!(
            "the value of key {key:?} has {} bytes, at most {MAX_VALUE_BYTES} are allowed",
            value.len()
        ))),
        Write::Put { .. } | Write::Delete { .. } => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), CommitError> {
    if key.is_empty() {
        return Err(CommitError::Invalid("a key is empty".into()));
    }
    if key.len() > MAX_KEY_BYTES {
        let start: String = key.chars().take(64).collect();
        return Err(CommitError::Invalid(format!(
            "the key that begins with {start:?} has {} bytes, at most {MAX_KEY_BYTES} are allowed",
            key.len()
        )));
    }
    Ok(())
}

/// The keys of `compares` that do not have the revision they should, where `revision_of` looks a key's
/// revision up ([`Revision::ZERO`]: absent).
pub(super) fn failed_compares<E>(
    compares: &[Compare],
    mut revision_of: impl FnMut(&str) -> Result<Revision, E>,
) -> Result<Vec<String>, E> {
    let mut failed = Vec::new();
    for compare in compares {
        if revision_of(&compare.key)? != compare.revision {
            failed.push(compare.key.clone());
        }
    }
    Ok(failed)
}
