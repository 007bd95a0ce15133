//! Description of a kind of resource: one `impl Resource` per kind, in the kind's own file.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::kinds::InTree;
use super::tree::TreeLookup;
use super::users::Member;
use super::violation::Form;
use super::{Common, Key, Kind};

/// Bytes of a resource in an answer beside texts and lists: ids, numbers, its status.
pub(super) const FIXED_BYTES: usize = 1024;

/// Use of one resource by another one of the same tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Path of the field that names the used resource.
    pub field: Cow<'static, str>,
    /// Role of the used resource, such as "the default pool".
    pub role: &'static str,
    /// Kind of the used resource.
    pub kind: Kind,
    /// Id of the used resource.
    pub id: Uuid,
}

/// Description of a kind of resource.
pub trait Resource:
    InTree + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Kind of the parent; `None` for the root of a tree.
    const PARENT: Option<Kind>;
    /// Field that holds the parent's id; empty for a root.
    const PARENT_FIELD: &'static str = "";

    /// Fields that cannot be changed.
    const IMMUTABLE: &'static [&'static str];

    /// Id of the parent; `None` for the root of a tree.
    fn parent(&self) -> Option<Uuid>;
    /// Name, description and tags.
    fn common(&self) -> &Common;

    /// Most bytes of it in an answer, about: of what has one size, and of all that its owner chose the size of.
    fn bytes(&self) -> usize {
        FIXED_BYTES + self.common().bytes()
    }

    /// Text that tells it apart below its parent, whether it has a name or not; `None`: only the id does.
    fn place(&self) -> Option<String> {
        None
    }

    /// Key of its record in the store.
    fn key(&self, id: Uuid) -> Key {
        Key::Child { kind: Self::KIND, parent: self.parent().unwrap_or_default(), id }
    }
    /// Keys that are put with the record, only where absent, and so are unique among all trees. Within one tree the checks of the
    /// whole tree do, since each write compares the tree's head.
    fn guards(&self) -> Vec<String> {
        Vec::new()
    }

    /// Keys that earlier releases put with the record; they are deleted when it changes or goes.
    fn former_guards(&self) -> Vec<String> {
        Vec::new()
    }

    /// Resources of its tree that it uses. They must exist, and cannot be deleted while it stands.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
    /// Usable members of other aggregates that it uses. The store's compares keep them from being deleted.
    fn foreign_references(&self) -> Vec<Member> {
        Vec::new()
    }

    /// Checks the specification by itself.
    fn check(&self, form: &mut Form<'_>);
    /// Checks it against the tree that holds it under `id`, apart from its references.
    fn check_in(&self, _id: Uuid, _lookup: &TreeLookup<'_>, _form: &mut Form<'_>) {}
}

/// Description of a kind of resource below a load balancer.
pub trait Child: Resource {
    /// Fields of [`Child::natural_key`], but for the parent.
    const KEY_FIELDS: &'static [&'static str];

    /// Puts the resource below another parent.
    fn set_parent(&mut self, parent: Uuid);
    /// Makes a field refer to another resource.
    fn refer(&mut self, _field: &str, _id: Uuid) {}
    /// Fields of [`Resource::IMMUTABLE`] that are not the same in `other`.
    fn immutable_differences(&self, other: &Self) -> Vec<&'static str>;
    /// Text by which it is recognised in a whole tree that is given without ids; `None`: it cannot be.
    fn natural_key(&self) -> Option<String>;
    /// Advice for a change of a field that cannot be changed, in a whole tree that is given again.
    fn how_to_replace() -> &'static str {
        "cannot be changed: leave the id out to replace the resource"
    }
}

/// Names the fields in which two specifications differ.
macro_rules! differences {
    ($one:ident, $other:ident, [$($field:ident => $name:literal),* $(,)?]) => {
        [$(($one.$field != $other.$field, $name)),*]
            .into_iter()
            .filter(|(differ, _)| *differ)
            .map(|(_, name)| name)
            .collect()
    };
}
pub(super) use differences;

/// Suffix for conflicts with a resource that is being deleted.
pub(super) fn leaving(deleting: bool) -> &'static str {
    if deleting { ", which is being deleted: free again when OVN has let go of it" } else { "" }
}
