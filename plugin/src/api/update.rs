//! Update: the same for each kind.

use std::sync::Arc;

use uuid::Uuid;

use super::api_kind::ApiKind;
use super::edit::{Edit, precondition};
use super::error::ApiError;
use super::use_cases::{UseCases, WriteCondition, located};
use super::view::Observed;
use crate::auth::{Object, Principal, Verb};
use crate::resources::{Tree, Violations};

/// Change of a resource: a function from its current specification to the content that is wanted. Called again when
/// another write came first.
pub trait Patch<T: ApiKind>: Fn(&T, &mut Violations) -> T::Draft + Send + Sync {}

impl<T: ApiKind, F: Fn(&T, &mut Violations) -> T::Draft + Send + Sync> Patch<T> for F {}

impl UseCases {
    /// Changes a resource. `condition`: an etag, empty for any version, or more.
    ///
    /// # Errors
    /// It does not exist, is being deleted, or has another etag; everything that is wrong with the change.
    pub async fn update<T: ApiKind>(
        &self,
        principal: &Principal,
        id: Uuid,
        patch: impl Patch<T>,
        condition: impl Into<WriteCondition<'_>>,
    ) -> Result<Observed<T>, ApiError> {
        let condition = condition.into();
        let write = async {
            let root = self.find::<T>(principal, Verb::Update, id)?.0.id();
            let advice = format!("cannot be changed: delete the {} and create another one", T::KIND.words());
            let edit = |tree: Option<&Tree>| {
                let found = tree.and_then(|tree| T::find(tree, id).map(|record| (tree, record)));
                let (stored, before) = found.ok_or_else(|| ApiError::not_found(T::KIND, id))?;
                precondition(stored, before, condition.etag)?;
                let mut violations = Violations::default();
                let draft = patch(&before.spec, &mut violations);
                let mut edit = Edit::new(self, principal, tree, violations);
                edit.change::<T>(before, &draft, &advice, "");
                let (tree, _) = edit.finish()?;
                Ok::<_, ApiError>((Some(tree), ()))
            };
            let (after, ()) = self.carry_out(root, condition.validate_only, edit).await?;
            self.written(after, id)
        };
        let changed = |changed: &Observed<T>| changed.record.id.to_string();
        let operation = condition.operation("update");
        self.audited(principal, operation, Object::Resource(T::KIND), &id.to_string(), write, changed).await
    }

    /// A resource of a tree that was written.
    pub(super) fn written<T: ApiKind>(&self, tree: Option<Tree>, id: Uuid) -> Result<Observed<T>, ApiError> {
        let (tree, record) = located::<T>(tree.map(Arc::new), id)?;
        Ok(self.view(tree).observed(&record))
    }
}
