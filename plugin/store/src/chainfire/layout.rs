//! Keys of the store in the cluster, and those of its own machinery.
//!
//! | key | what |
//! |---|---|
//! | `DOMAIN/chainfire/format` | version of this layout, JSON |
//! | `DOMAIN/chainfire/stages/ID/chunks/N` | writes of a staged transaction |
//! | `DOMAIN/chainfire/stages/ID/owner` | exists as long as the writer that prepares it lives |
//! | `DOMAIN/chainfire/lock` | exists while a staged transaction is committed and applied; nobody else writes then |
//! | `DOMAIN/chainfire/intervals/ID` | made when it was committed, put again when it was applied |
//! | `DOMAIN/chainfire/chunks/N` | writes of a transaction that an earlier release staged |

use chainfire_client::{Client, Compare, Operation, Range, Transaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{CommitError, StoreError, Transaction as StoreTransaction, Write};
use super::errors;

/// The newest version of the layout that this program knows.
const VERSION: u64 = 1;

/// Names of keys.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    domain: String,
    own: String,
}

#[derive(Serialize, Deserialize)]
struct Format {
    version: u64,
}

impl Layout {
    pub(super) fn new(domain: String) -> Self {
        let own = format!("{domain}chainfire/");
        Self { domain, own }
    }

    fn format(&self) -> String {
        format!("{}format", self.own)
    }

    pub(super) fn lock(&self) -> String {
        format!("{}lock", self.own)
    }

    /// Everything that is staged.
    pub(super) fn stages(&self) -> String {
        format!("{}stages/", self.own)
    }

    /// All of one staged transaction.
    pub(super) fn stage(&self, id: Uuid) -> Range {
        Range::prefix(format!("{}{id}/", self.stages()))
    }

    pub(super) fn owner(&self, id: Uuid) -> String {
        format!("{}{id}/owner", self.stages())
    }

    pub(super) fn chunk(&self, id: Uuid, number: u32) -> String {
        format!("{}{id}/chunks/{number:08}", self.stages())
    }

    /// Chunks as an earlier release staged them, one transaction at a time.
    pub(super) fn earlier_chunks(&self) -> Range {
        Range::prefix(format!("{}chunks/", self.own))
    }

    pub(super) fn earlier_chunk(&self, number: u32) -> String {
        format!("{}chunks/{number:08}", self.own)
    }

    /// Staged transaction that a key belongs to.
    pub(super) fn stage_of(&self, key: &[u8]) -> Option<Uuid> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.stages())?;
        rest.split('/').next()?.parse().ok()
    }

    pub(super) fn intervals(&self) -> Range {
        Range::prefix(format!("{}intervals/", self.own))
    }

    pub(super) fn interval(&self, id: Uuid) -> String {
        format!("{}intervals/{id}", self.own)
    }

    /// Everything of the store, with its machinery.
    pub(super) fn all(&self) -> Range {
        Range::prefix(self.domain.clone())
    }

    pub(super) fn is_interval(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.own.as_bytes()).is_some_and(|rest| rest.starts_with(b"intervals/"))
    }

    /// The key as the store's callers know it; `None`: not one of theirs.
    pub(super) fn data<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        if !key.starts_with(self.domain.as_bytes()) || key.starts_with(self.own.as_bytes()) {
            return None;
        }
        let text = std::str::from_utf8(key);
        if text.is_err() {
            tracing::warn!(key = %String::from_utf8_lossy(key), "ignored key that is not UTF-8 text: not FiberLB's");
        }
        text.ok()
    }

    /// The part of the domain whose keys start with `prefix`; `None`: there is none.
    pub(super) fn range(&self, prefix: &str) -> Option<Range> {
        if prefix.starts_with(&self.domain) {
            Some(Range::prefix(prefix))
        } else {
            self.domain.starts_with(prefix).then(|| self.all())
        }
    }

    /// Checks that all keys of a transaction are the callers'.
    pub(super) fn check(&self, transaction: &StoreTransaction) -> Result<(), CommitError> {
        let compared = transaction.compares.iter().map(|compare| compare.key.as_str());
        let mut keys = compared.chain(transaction.writes.iter().map(Write::key));
        match keys.find(|key| self.data(key.as_bytes()).is_none()) {
            Some(key) => Err(CommitError::Invalid(format!(
                "key {key:?} is not one of this store: its keys start with {:?}, and not with {:?}",
                self.domain, self.own
            ))),
            None => Ok(()),
        }
    }
}

/// Rejects a store written by a newer program; marks a new one.
pub(super) async fn check_format(client: &Client, layout: &Layout, name: &str) -> Result<(), StoreError> {
    let key = layout.format();
    let mark = Transaction {
        compares: vec![Compare { key: key.clone().into(), revision: 0 }],
        then: vec![Operation::Put {
            key: key.clone().into(),
            value: format!("{{\"version\":{VERSION}}}").into_bytes(),
            lease: None,
        }],
        otherwise: Vec::new(),
    };
    let Some(entry) = client.get(key.clone()).await.map_err(|error| errors::store(&error))? else {
        client.transact(mark).await.map_err(|error| errors::store(&error))?;
        return Ok(());
    };
    match serde_json::from_slice::<Format>(&entry.value) {
        Ok(Format { version }) if version <= VERSION => Ok(()),
        Ok(Format { version }) => {
            Err(StoreError::NewerFormat { path: name.to_owned(), found: version, known: VERSION })
        }
        Err(error) => {
            Err(StoreError::Damaged { path: name.to_owned(), reason: format!("the value of {key}: {error}") })
        }
    }
}
