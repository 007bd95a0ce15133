//! Envelope of every stored resource, and its JSON form.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::checksum;
use super::text::is_hidden;
use super::violation::Form;

/// Version of the JSON form of a record. A record of a newer one is refused, never guessed at.
const VERSION: u32 = 1;

/// Origin of a resource, as far as its uniqueness depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The `request_id` of its create call, with a digest of that call's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<(String, String)>,
    /// True when the client chose the id: it is then guarded against a second use in another tree.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chosen_id: bool,
}

/// Stored form of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<T> {
    version: u32,
    /// UUID of the resource.
    pub id: Uuid,
    /// Number of the specification: starts at 1, incremented by each change of `spec`.
    pub generation: u64,
    /// Creation time, in milliseconds since 1970.
    pub created_at: u64,
    /// Time of the last write, in milliseconds since 1970.
    pub updated_at: u64,
    /// Deleted by its owner; removed once OVN has no rows of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
    /// Origin of the resource.
    #[serde(flatten)]
    pub identity: Identity,
    /// Specification, written by its owner.
    pub spec: T,
}

/// A stored value that this version cannot read as a record.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Not JSON of the expected shape.
    #[error("it is not a valid record: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Changed by something else than FiberLB: a fault of the disk, or a hand.
    #[error(
        "it does not have the checksum that it was stored with: it is damaged; restore the store from a backup or an export"
    )]
    Damaged,
    /// Written by a newer FiberLB.
    #[error("it has schema version {0}, this FiberLB reads up to {VERSION}: upgrade before using this store")]
    Newer(u32),
}

impl<T> Record<T> {
    /// A new record, at generation 1.
    pub fn new(id: Uuid, identity: Identity, spec: T) -> Self {
        let now = now_ms();
        Self {
            version: VERSION,
            id,
            generation: 1,
            created_at: now,
            updated_at: now,
            deleting: false,
            identity,
            spec,
        }
    }

    /// The record with another specification, a generation later.
    #[must_use]
    pub fn changed(&self, spec: T) -> Self {
        Self {
            version: VERSION,
            id: self.id,
            generation: self.generation + 1,
            created_at: self.created_at,
            updated_at: now_ms(),
            deleting: self.deleting,
            identity: self.identity.clone(),
            spec,
        }
    }

    /// Identifies one write of this record, also across a deletion and a new record of the same id.
    pub fn etag(&self) -> String {
        let deleting = if self.deleting { "-d" } else { "" };
        format!("{:x}-{:x}{deleting}", self.created_at, self.generation)
    }
}

impl<T: Clone> Record<T> {
    /// The record marked as deleted; as it is if it was before.
    #[must_use]
    pub fn deleted(&self) -> Self {
        if self.deleting {
            return self.clone();
        }
        Self { deleting: true, updated_at: now_ms(), ..self.clone() }
    }
}

impl<T: Serialize + DeserializeOwned> Record<T> {
    /// Its stored form.
    ///
    /// # Errors
    /// None for the specifications of this crate, whose maps all have text keys.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(checksum::add(serde_json::to_vec(self)?))
    }

    /// Reads its stored form.
    ///
    /// # Errors
    /// [`RecordError`] for what is malformed or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct RecordVersion {
            version: u32,
        }
        if !checksum::holds(bytes) {
            return Err(RecordError::Damaged);
        }
        let newer = |version| if version > VERSION { Err(RecordError::Newer(version)) } else { Ok(()) };
        match serde_json::from_slice::<Self>(bytes) {
            Ok(record) => newer(record.version).map(|()| record),
            Err(error) => {
                // A newer record may well have another shape.
                if let Ok(RecordVersion { version }) = serde_json::from_slice(bytes) {
                    newer(version)?;
                }
                Err(error.into())
            }
        }
    }
}

/// Descriptive fields of a resource, set by its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// At most 255 characters; not unique.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// At most 255 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Free-form labels.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

/// Most characters of a name, a description or a tag.
const TEXT: usize = 255;

/// Bytes of an entry of a list beside its text.
const ENTRY_BYTES: usize = 3;

/// Description of a violation of [`is_hidden`].
const HIDDEN: &str =
    "must not contain characters that are not shown: control characters, line separators, direction marks";

impl Common {
    /// Number of bytes of all its texts in an answer.
    pub fn bytes(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| tag.len() + ENTRY_BYTES).sum();
        self.name.len() + self.description.len() + tags
    }

    /// Checks lengths and characters.
    pub fn check(&self, form: &mut Form<'_>) {
        for (field, text) in [("name", &self.name), ("description", &self.description)] {
            let length = text.chars().count();
            if length > TEXT {
                form.invalid(field, format!("at most {TEXT} characters, given {length}"));
            }
            if text.chars().any(is_hidden) {
                form.invalid(field, HIDDEN);
            }
        }
        for length in
            self.tags.iter().map(|tag| tag.chars().count()).filter(|length| !(1..=TEXT).contains(length))
        {
            form.invalid("tags", format!("a tag has 1 to {TEXT} characters, not {length}"));
        }
        if self.tags.iter().any(|tag| tag.chars().any(is_hidden)) {
            form.invalid("tags", HIDDEN);
        }
    }
}

/// Milliseconds since 1970 by the machine's clock; 0 before.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_stored_form() {
        let record = Record::new(Uuid::from_u128(1), Identity::default(), Common::default());
        assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn a_record_with_one_changed_byte_is_refused() {
        let common = Common { name: "10.1.2.111".to_owned(), ..Common::default() };
        let stored = Record::new(Uuid::from_u128(1), Identity::default(), common).encode().unwrap();
        let end = br#"","crc32":"00000000"}"#.len();
        for place in 0..stored.len() - end {
            let mut damaged = stored.clone();
            damaged[place] ^= 1;
            assert!(Record::<Common>::decode(&damaged).is_err(), "{}", String::from_utf8_lossy(&damaged));
        }
    }

    #[test]
    fn a_record_of_an_earlier_release_has_no_checksum() {
        let record = Record::new(Uuid::from_u128(1), Identity::default(), Common::default());
        assert_eq!(Record::decode(&serde_json::to_vec(&record).unwrap()).unwrap(), record);
    }

    #[test]
    fn a_newer_or_broken_record_is_refused() {
        let newer = br#"{"version":2,"something":"else"}"#;
        assert!(matches!(Record::<Common>::decode(newer), Err(RecordError::Newer(2))));
        assert!(matches!(Record::<Common>::decode(b"{}"), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn each_write_has_its_own_etag() {
        let first = Record::new(Uuid::from_u128(1), Identity::default(), Common::default());
        assert_ne!(first.etag(), first.changed(Common::default()).etag());
        assert_ne!(first.etag(), first.deleted().etag());
    }
}
