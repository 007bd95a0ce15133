//! Content of the store, read and sorted so that parents are applied before their children.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::resources::{Key, PREFIX, is_name_key, parse_head, parse_status, parse_status_part};
use fiberlb_store::{Revision, Store, StoreError, Value};

/// All stored content that the model is built from, at one revision.
pub(super) struct Stored {
    /// By the depth of their kinds: parents before what stands below them.
    pub(super) records: BTreeMap<usize, Vec<(Key, Value)>>,
    pub(super) heads: Vec<(Uuid, Revision)>,
    pub(super) statuses: Vec<(Uuid, Value)>,
    pub(super) status_parts: Vec<(Uuid, u16, Value)>,
    /// Keys that are claimed for a creation, with the revision of the last one.
    pub(super) claims: HashMap<String, Revision>,
    pub(super) revision: Revision,
}

impl Stored {
    /// Reads a snapshot of the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut snapshot = store.snapshot(PREFIX).await?;
        let revision = snapshot.revision();
        let (records, heads) = (BTreeMap::new(), Vec::new());
        let (statuses, status_parts, claims) = (Vec::new(), Vec::new(), HashMap::new());
        let mut stored = Self { records, heads, statuses, status_parts, claims, revision };
        while let Some(chunk) = snapshot.next().await? {
            for entry in chunk {
                if let Some(id) = parse_head(&entry.key) {
                    stored.heads.push((id, entry.revision));
                } else if let Some(id) = parse_status(&entry.key) {
                    stored.statuses.push((id, entry.value));
                } else if let Some((id, part)) = parse_status_part(&entry.key) {
                    stored.status_parts.push((id, part, entry.value));
                } else if is_name_key(&entry.key) {
                    stored.claims.insert(entry.key, entry.revision);
                } else if let Some(key) = Key::parse(&entry.key) {
                    stored.records.entry(key.kind().depth()).or_default().push((key, entry.value));
                }
            }
        }
        Ok(stored)
    }
}
