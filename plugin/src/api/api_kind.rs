//! Kinds of resources that the use cases offer: what a caller gives of them, and what the API checks beyond the
//! resource's own description.

use std::borrow::Cow;
use std::fmt;

use uuid::Uuid;

use super::edit::AddressReservation;
use super::error::ApiError;
use super::use_cases::UseCases;
use crate::auth::{Owner, Principal};
use crate::resources::{Child as _, Form, Resource as _, with_kinds};
use crate::status::HasStatus;

/// A resource as a caller gives it.
#[derive(Clone, Debug)]
pub struct ResourceDraft<T: ApiKind> {
    /// Id that the caller chose, or that of the resource that it means.
    pub id: Option<Uuid>,
    /// Its content.
    pub draft: T::Draft,
    /// Path of the resource in the request; empty if it is the request's only one.
    pub at: String,
    /// Fields that refer to another resource of the same tree by its id or name.
    pub named: Vec<(Cow<'static, str>, String)>,
}

impl<T: ApiKind> ResourceDraft<T> {
    /// A resource that comes alone.
    pub fn alone(id: Option<Uuid>, draft: T::Draft) -> Self {
        Self { id, draft, at: String::new(), named: Vec::new() }
    }
}

/// Owner of a new load balancer.
pub struct NamedOwner {
    pub(super) org_id: String,
    pub(super) project_id: String,
}

impl<'a> From<&'a NamedOwner> for Owner<'a> {
    fn from(owner: &'a NamedOwner) -> Self {
        Self { org_id: &owner.org_id, project_id: &owner.project_id }
    }
}

/// Outcome of making a specification. `failure`: the specification is a placeholder, and the reason.
pub struct NewSpecification<T> {
    pub(super) spec: T,
    pub(super) reservation: AddressReservation,
    pub(super) failure: Option<ApiError>,
}

/// Kind of resource that the use cases offer.
pub trait ApiKind: HasStatus {
    /// Content of a new or changed resource, as a caller gives it.
    type Draft: Clone + fmt::Debug + Send + Sync + 'static;

    /// Parent that a draft names; `None` for the root of a tree.
    fn parent_of(draft: &Self::Draft) -> Option<Uuid>;

    /// Owner that a draft names, or that the caller is; `None` below a load balancer, whose owner it has.
    fn owner(_draft: &Self::Draft, _principal: &Principal) -> Option<NamedOwner> {
        None
    }

    /// Specification of a new resource.
    fn make(
        draft: &Self::Draft,
        id: Uuid,
        principal: &Principal,
        cases: &UseCases,
        form: &mut Form<'_>,
    ) -> NewSpecification<Self>;

    /// Specification of a changed resource. `advice`: what to do where a field cannot be changed.
    ///
    /// # Errors
    /// A dependency that is needed for it cannot be reached.
    fn amend(
        &self,
        draft: &Self::Draft,
        advice: &str,
        cases: &UseCases,
        form: &mut Form<'_>,
    ) -> Result<Self, ApiError>;

    /// Returns true if a repeated call with this draft means this resource.
    fn is_made_from(&self, draft: &Self::Draft, cases: &UseCases) -> bool;
}

/// Declares the kinds below a load balancer, which a caller gives as they are stored.
macro_rules! stored_kinds {
    (LoadBalancer $(, $kind:ident)*) => {$(
        impl ApiKind for crate::resources::$kind {
            type Draft = Self;

            fn parent_of(draft: &Self) -> Option<Uuid> {
                draft.parent()
            }

            fn make(draft: &Self, _: Uuid, _: &Principal, _: &UseCases, _: &mut Form<'_>) -> NewSpecification<Self> {
                NewSpecification { spec: draft.clone(), reservation: AddressReservation::default(), failure: None }
            }

            fn amend(
                &self,
                draft: &Self,
                advice: &str,
                _: &UseCases,
                form: &mut Form<'_>,
            ) -> Result<Self, ApiError> {
                for field in self.immutable_differences(draft) {
                    // The value that is wrong has a placeholder, which was not meant.
                    if !form.has_wrong(field) {
                        form.invalid(field, advice);
                    }
                }
                Ok(draft.clone())
            }

            fn is_made_from(&self, draft: &Self, _: &UseCases) -> bool {
                self == draft
            }
        }
    )*};
}
with_kinds!(stored_kinds);
