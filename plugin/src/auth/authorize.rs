//! The rules on who may do what. Pure; every use case asks here at its entry, and nowhere else.

use super::{Principal, Scope};
use crate::resources::{Kind, LoadBalancer};

/// Operation of a use case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a new object.
    Create,
    /// Read one object.
    Get,
    /// Read many objects.
    List,
    /// Change an object.
    Update,
    /// Delete an object.
    Delete,
    /// Follow the changes of objects.
    Watch,
}

/// Kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Resource of a tenant.
    Resource(Kind),
    /// Proxy node.
    Node,
    /// Northbound database.
    Northbound,
}

impl Object {
    /// Name of the kind in sentences, audit lines and metrics.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Resource(kind) => kind.words(),
            Self::Node => "node",
            Self::Northbound => "northbound database",
        }
    }
}

/// Owner of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Organisation.
    pub org_id: &'a str,
    /// Project.
    pub project_id: &'a str,
}

impl<'a> From<&'a LoadBalancer> for Owner<'a> {
    fn from(root: &'a LoadBalancer) -> Self {
        Self { org_id: &root.org_id, project_id: &root.project_id }
    }
}

/// Refusal of an operation. Towards the caller another tenant's object does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied;

/// Decides whether a principal may do something to an object of an owner; `None`: an object of the cloud, which
/// belongs to no tenant.
///
/// # Errors
/// [`Denied`].
pub fn authorize(
    principal: &Principal,
    _verb: Verb,
    object: Object,
    owner: Option<Owner<'_>>,
) -> Result<(), Denied> {
    let is_own =
        |owner: Owner<'_>| (owner.org_id, owner.project_id) == (&*principal.org_id, &*principal.project_id);
    let may = match (object, owner) {
        // Until there are roles, everybody who reaches the API may see the cloud and operate it.
        (Object::Node | Object::Northbound, _) => true,
        (Object::Resource(_), owner) => principal.scope == Scope::All || owner.is_some_and(is_own),
    };
    if may { Ok(()) } else { Err(Denied) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [Verb; 6] = [Verb::Create, Verb::Get, Verb::List, Verb::Update, Verb::Delete, Verb::Watch];

    #[test]
    fn a_tenant_reaches_its_own_project_alone_and_an_operator_all() {
        let tenant = Principal::default();
        let operator = Principal { scope: Scope::All, ..Principal::default() };
        let owner = |org_id, project_id| Some(Owner { org_id, project_id });
        for (verb, kind) in VERBS.iter().flat_map(|verb| Kind::ALL.iter().map(move |kind| (*verb, *kind))) {
            let may = |principal, owner| authorize(principal, verb, Object::Resource(kind), owner).is_ok();
            assert!(may(&tenant, owner("default", "default")));
            for other in [owner("default", "other"), owner("other", "default"), None] {
                assert!(!may(&tenant, other), "{verb:?} {kind:?} of {other:?}");
                assert!(may(&operator, other));
            }
        }
    }
}
