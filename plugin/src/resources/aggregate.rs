//! Aggregates: groups of records that are written as one, in one transaction that compares their common head.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::RecordError;
use super::users::{Member, UserChange};
use fiberlb_store::{Compare, Revision, Transaction, Write};

/// Group of records under one head, such as a [`Tree`](super::Tree).
pub trait Aggregate: Send + Sync + 'static {
    /// Name of the id in the values of guards.
    const ID_FIELD: &'static str;

    /// Key that every write to the aggregate compares and puts. It serializes them across all plugins.
    fn head_key(id: Uuid) -> String;
    /// Keys that others put beside the records, and that are removed with the last record.
    fn keys_beside(_id: Uuid) -> Vec<String> {
        Vec::new()
    }

    /// Id, unique among the aggregates of its kind.
    fn id(&self) -> Uuid;
    /// Revision of the head: of the last write to any part.
    fn head(&self) -> Revision;
    /// Sets the revision of the head, once it is written.
    fn set_head(&mut self, head: Revision);
    /// Records that `other` lacks or has otherwise, parents before what stands below them.
    ///
    /// # Errors
    /// A record that cannot be encoded.
    fn changed(&self, other: Option<&Self>) -> Result<Vec<Part>, RecordError>;
}

/// Record of an aggregate, as it is stored.
#[derive(Debug)]
pub struct Part {
    /// Kind and id.
    pub member: Member,
    /// Key of the record.
    pub key: String,
    /// Stored form of the record.
    pub value: Vec<u8>,
    /// Keys that are put with the record, only where absent, and so are unique.
    pub guards: Vec<String>,
    /// Keys that earlier releases put as guards.
    pub former_guards: Vec<String>,
    /// True if members of other aggregates may use it now: of a usable kind, and not being deleted.
    pub is_usable: bool,
    /// Usable members of other aggregates that it uses; none if it is being deleted.
    pub uses: BTreeSet<Member>,
}

/// Difference between two states of one aggregate.
pub struct Changes<'a, A> {
    before: Option<&'a A>,
    after: Option<&'a A>,
    /// Records before that are changed or removed after.
    old: Vec<Part>,
    /// Records after that are changed or added.
    new: Vec<Part>,
}

impl<'a, A: Aggregate> Changes<'a, A> {
    /// Compares two states; `None`: there is no such aggregate.
    ///
    /// # Errors
    /// A record that cannot be encoded.
    pub fn between(before: Option<&'a A>, after: Option<&'a A>) -> Result<Self, RecordError> {
        let parts = |one: Option<&A>, other| one.map_or(Ok(Vec::new()), |one| one.changed(other));
        Ok(Self { before, after, old: parts(before, after)?, new: parts(after, before)? })
    }

    /// Returns true if there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }

    /// Changes of the users of members, here and in other aggregates.
    pub fn users(&self) -> BTreeMap<Member, UserChange> {
        let mut users: BTreeMap<Member, UserChange> = BTreeMap::new();
        for part in &self.old {
            part.uses.iter().for_each(|used| users.entry(*used).or_default().remove(part.member));
            if part.is_usable {
                users.entry(part.member).or_default().was_usable = true;
            }
        }
        for part in &self.new {
            part.uses.iter().for_each(|used| users.entry(*used).or_default().add(part.member));
            if part.is_usable {
                users.entry(part.member).or_default().is_usable = true;
            }
        }
        users.retain(|_, change| !change.is_empty());
        users
    }

    /// The transaction without the changes of [`Self::users`], which depend on the store.
    pub fn transaction(self) -> Transaction {
        let mut transaction = Transaction::default();
        let Some(one) = self.before.or(self.after).filter(|_| !self.is_empty()) else { return transaction };
        let (id, remains) = (one.id(), self.after.is_some());
        let guards = [&self.old, &self.new].map(|parts| guards(parts));
        let former: BTreeSet<String> =
            self.old.iter().flat_map(|part| part.former_guards.iter().cloned()).collect();
        write_records(&self.old, self.new, &mut transaction);
        transaction.writes.extend(former.into_iter().map(|key| Write::Delete { key }));
        write_guards(guards, A::ID_FIELD, id, &mut transaction);
        let head = self.before.map_or(Revision::ZERO, A::head);
        transaction.compares.push(Compare { key: A::head_key(id), revision: head });
        if remains {
            transaction.writes.push(Write::Put { key: A::head_key(id), value: br#"{"version":1}"#.to_vec() });
        } else {
            let keys = std::iter::once(A::head_key(id)).chain(A::keys_beside(id));
            transaction.writes.extend(keys.map(|key| Write::Delete { key }));
        }
        transaction
    }
}

fn guards(parts: &[Part]) -> BTreeSet<String> {
    parts.iter().flat_map(|part| part.guards.iter().cloned()).collect()
}

fn write_records(old: &[Part], new: Vec<Part>, transaction: &mut Transaction) {
    let kept: BTreeSet<String> = new.iter().map(|part| part.key.clone()).collect();
    transaction.writes.extend(new.into_iter().map(|Part { key, value, .. }| Write::Put { key, value }));
    let gone = old.iter().map(|part| part.key.clone()).filter(|key| !kept.contains(key));
    transaction.writes.extend(gone.map(|key| Write::Delete { key }));
}

fn write_guards([old, new]: [BTreeSet<String>; 2], id_field: &str, id: Uuid, transaction: &mut Transaction) {
    for key in new.difference(&old) {
        transaction.compares.push(Compare { key: key.clone(), revision: Revision::ZERO });
        let value = format!(r#"{{"version":1,"{id_field}":"{id}"}}"#).into_bytes();
        transaction.writes.push(Write::Put { key: key.clone(), value });
    }
    transaction.writes.extend(old.difference(&new).map(|key| Write::Delete { key: key.clone() }));
}
