//! Two aggregates of these tests alone: a project with certificates, and a site whose frontends use them.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::resources::{Identity, Member, Part, Record};

/// Kind of the records of a group.
pub(super) trait Spec:
    Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    const FOLDER: &'static str;
    const IS_USABLE: bool;
    fn uses(&self) -> Option<Member>;
}

/// Certificate of a project.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Certificate {
    pub(super) chain: String,
}

impl Spec for Certificate {
    const FOLDER: &'static str = "certificates";
    const IS_USABLE: bool = true;
    fn uses(&self) -> Option<Member> {
        None
    }
}

/// Frontend of a site.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Frontend {
    pub(super) certificate: Option<Uuid>,
}

impl Spec for Frontend {
    const FOLDER: &'static str = "frontends";
    const IS_USABLE: bool = false;
    fn uses(&self) -> Option<Member> {
        self.certificate.map(|id| Member { folder: Certificate::FOLDER, id })
    }
}

/// Aggregate of records of one kind.
pub(super) struct Group<T> {
    pub(super) id: Uuid,
    pub(super) head: Revision,
    pub(super) records: BTreeMap<Uuid, Record<T>>,
}

pub(super) type Project = Group<Certificate>;
pub(super) type Site = Group<Frontend>;

impl<T: Spec> Group<T> {
    fn folder(id: Uuid) -> String {
        format!("/fiberlb/{}/{id}/", T::FOLDER)
    }

    /// The group with a record added or replaced; `None`: removed.
    pub(super) fn with(before: Option<&Self>, id: Uuid, record: Uuid, spec: Option<T>) -> Self {
        let mut records = before.map_or_else(BTreeMap::new, |group| group.records.clone());
        let old = records.remove(&record);
        if let Some(spec) = spec {
            let new = || Record::new(record, Identity::default(), spec.clone());
            records.insert(record, old.map_or_else(new, |old| old.changed(spec.clone())));
        }
        Self { id, head: Revision::ZERO, records }
    }
}

impl<T: Spec> Aggregate for Group<T> {
    const ID_FIELD: &'static str = "group_id";

    fn head_key(id: Uuid) -> String {
        format!("/fiberlb/heads/{}/{id}", T::FOLDER)
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn head(&self) -> Revision {
        self.head
    }

    fn set_head(&mut self, head: Revision) {
        self.head = head;
    }

    fn changed(&self, other: Option<&Self>) -> Result<Vec<Part>, RecordError> {
        let is_changed = |record: &&Record<T>| {
            other.and_then(|other| other.records.get(&record.id)).is_none_or(|other| other != *record)
        };
        let part = |record: &Record<T>| {
            Ok(Part {
                member: Member { folder: T::FOLDER, id: record.id },
                key: format!("{}{}", Self::folder(self.id), record.id),
                value: record.encode()?,
                guards: Vec::new(),
                former_guards: Vec::new(),
                is_usable: T::IS_USABLE && !record.deleting,
                uses: record.spec.uses().filter(|_| !record.deleting).into_iter().collect(),
            })
        };
        self.records.values().filter(is_changed).map(part).collect()
    }
}

/// The groups as they are in the store.
pub(super) struct Groups(pub(super) Arc<MemoryStore>);

impl<T: Spec> AggregateSource<Group<T>> for Groups {
    fn current(&self, id: Uuid) -> Option<Arc<Group<T>>> {
        let head = self.0.get(&Group::<T>::head_key(id)).now_or_never()?.ok()?;
        let entries = self.0.snapshot(&Group::<T>::folder(id)).now_or_never()?.ok()?.collect();
        let records = entries.now_or_never()?.ok()?.into_iter().map(|entry| {
            let record: Record<T> = Record::decode(&entry.value).unwrap();
            (record.id, record)
        });
        Some(Arc::new(Group { id, head: head?.revision, records: records.collect() }))
    }

    fn claimed(&self, _key: &str) -> Revision {
        Revision::ZERO
    }

    async fn reached(&self, _revision: Revision) {}
}
