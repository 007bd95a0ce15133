//! Users of a resource from other aggregates, which keep it from being deleted.
//!
//! Two aggregates have two heads, so that the writers of one do not see those of the other. They meet at one key
//! for each usable resource: it stands as long as the resource does, and its value is the set of users. A write
//! that adds or removes a use compares the revision of this key and puts it anew; the deletion of the resource
//! compares the same revision, at which the set was empty, and deletes the key. Of two such writes that read the
//! same set, the store refuses one, whichever plugins they come from; it reads again, and finds the resource
//! used, or gone. A revision never repeats, so a resource that was deleted and made again is not mistaken for the
//! one before. Other changes of the resource do not touch the key, and collide with none of its users.
//!
//! A key for each use would spare two users of one resource a collision, but a deletion could not compare the
//! absence of keys that it does not know: a store compares single keys. A value of 1 MiB holds about 20,000 users;
//! the store refuses more.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::key::users_key;
use super::{RecordError, checksum};
use fiberlb_store::{Compare, Entry, Revision, Transaction, Write};

/// Version of the stored form of a set of users.
const VERSION: u32 = 1;

/// Resource by its kind's folder and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// First part of the kind's keys in the store.
    pub folder: &'static str,
    /// Id of the resource.
    pub id: Uuid,
}

impl Member {
    /// Key of its users.
    pub fn users_key(&self) -> String {
        users_key(self.folder, self.id)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.folder, self.id)
    }
}

/// Reason why a use cannot begin, or a resource not be deleted.
#[derive(Debug, Error)]
pub enum UserError {
    /// The used resource is not there, or is being deleted.
    #[error("{used} does not exist, or is being deleted")]
    Missing {
        /// Used resource.
        used: Member,
    },
    /// Others use the resource that is to be deleted.
    #[error("{used} cannot be deleted: it is used by {}", by.iter().map(String::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Resource that is to be deleted.
        used: Member,
        /// Its users, as folder and id.
        by: BTreeSet<String>,
    },
    /// The stored set of users cannot be read.
    #[error("the value of {key} cannot be used: {source}")]
    Malformed {
        /// Key of the set.
        key: String,
        /// Defect of its value.
        source: RecordError,
    },
}

/// Stored form of the users of one resource.
#[derive(Serialize, Deserialize)]
struct UserSet {
    version: u32,
    users: BTreeSet<String>,
}

impl UserSet {
    fn encode(users: BTreeSet<String>) -> Result<Vec<u8>, RecordError> {
        Ok(checksum::add(serde_json::to_vec(&Self { version: VERSION, users })?))
    }

    fn decode(bytes: &[u8]) -> Result<BTreeSet<String>, RecordError> {
        if !checksum::holds(bytes) {
            return Err(RecordError::Damaged);
        }
        let set: Self = serde_json::from_slice(bytes)?;
        if set.version > VERSION { Err(RecordError::Newer(set.version)) } else { Ok(set.users) }
    }
}

/// Change of the users of one resource by one write.
#[derive(Debug, Default)]
pub struct UserChange {
    /// The resource is of the written aggregate, and could be used before.
    pub(super) was_usable: bool,
    /// The resource is of the written aggregate, and can be used after.
    pub(super) is_usable: bool,
    removed: BTreeSet<Member>,
    added: BTreeSet<Member>,
}

impl UserChange {
    /// Removes a user.
    pub(super) fn remove(&mut self, user: Member) {
        self.removed.insert(user);
    }

    /// Adds a user, after all were removed that have changed.
    pub(super) fn add(&mut self, user: Member) {
        if !self.removed.remove(&user) {
            self.added.insert(user);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.was_usable == self.is_usable && self.removed.is_empty() && self.added.is_empty()
    }

    /// Joins the change to the transaction of the write. `stored` is the present entry of the users' key.
    ///
    /// # Errors
    /// [`UserError`]: the write would leave a use of what is not there.
    pub fn join(
        &self,
        used: Member,
        stored: Option<&Entry>,
        transaction: &mut Transaction,
    ) -> Result<(), UserError> {
        let key = used.users_key();
        let (begins, ends) = (self.is_usable && !self.was_usable, self.was_usable && !self.is_usable);
        let stored = stored.filter(|_| !begins);
        if stored.is_none() && !begins {
            return if self.added.is_empty() { Ok(()) } else { Err(UserError::Missing { used }) };
        }
        let malformed = |source| UserError::Malformed { key: key.clone(), source };
        let by = self.applied_to(stored).map_err(malformed)?;
        let revision = stored.map_or(Revision::ZERO, |entry| entry.revision);
        transaction.compares.push(Compare { key: key.clone(), revision });
        transaction.writes.push(match (ends, by.is_empty()) {
            (true, false) => return Err(UserError::InUse { used, by }),
            (true, true) => Write::Delete { key },
            (false, _) => Write::Put { value: UserSet::encode(by).map_err(malformed)?, key },
        });
        Ok(())
    }

    /// The users after the change.
    fn applied_to(&self, stored: Option<&Entry>) -> Result<BTreeSet<String>, RecordError> {
        let mut users = stored.map_or(Ok(BTreeSet::new()), |entry| UserSet::decode(&entry.value))?;
        self.removed.iter().for_each(|user| {
            users.remove(&user.to_string());
        });
        users.extend(self.added.iter().map(Member::to_string));
        Ok(users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_a_checksum_and_those_of_an_earlier_release_none() {
        let users = BTreeSet::from(["loadbalancers/1".to_owned(), "loadbalancers/2".to_owned()]);
        let mut stored = UserSet::encode(users.clone()).unwrap();
        assert_eq!(UserSet::decode(&stored).unwrap(), users);
        let at = stored.windows(2).position(|pair| pair == b"/1").unwrap();
        stored[at + 1] = b'3';
        assert!(matches!(UserSet::decode(&stored), Err(RecordError::Damaged)));
        assert_eq!(UserSet::decode(br#"{"version":1,"users":["a/1"]}"#).unwrap().len(), 1);
    }
}
