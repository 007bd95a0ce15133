//! Create: the same for each kind.

use std::sync::Arc;

use uuid::Uuid;

use super::api_kind::{ApiKind, ResourceDraft};
use super::edit::{AddressReservation, Edit, being_deleted};
use super::error::ApiError;
use super::use_cases::{UseCases, VALIDATE, located, may};
use super::view::Observed;
use crate::auth::{Object, Principal, Verb, authorize};
use crate::resources::{Form, Identity, Tree, Violations};

/// Id of a create call that its caller chose, so that a repeated call makes nothing new.
#[derive(Clone, Debug)]
pub struct RequestId {
    /// Letters, digits, `.`, `_`, `-` and `:`, at most 128.
    pub id: String,
    /// Digest of the call's content.
    pub digest: String,
}

/// A create call.
#[derive(Clone, Debug)]
pub struct CreateRequest<T: ApiKind> {
    /// The new resource.
    pub given: ResourceDraft<T>,
    /// Id of the call, if the caller chose one.
    pub request: Option<RequestId>,
    /// True: everything is checked, and nothing is written.
    pub validate_only: bool,
    /// Everything that is wrong with the call already.
    pub violations: Violations,
}

/// Earlier use of a `request_id`.
enum Earlier {
    None,
    /// A call with the same content made this resource.
    Made(Uuid),
    /// A call with other content made this one, by its kind and name.
    Other(String),
}

impl UseCases {
    /// Creates a resource; an equal repeated call returns the existing one (idempotent).
    ///
    /// # Errors
    /// Everything that is wrong with the request, a missing parent, a limit.
    pub async fn create<T: ApiKind>(
        &self,
        principal: &Principal,
        request: CreateRequest<T>,
    ) -> Result<Observed<T>, ApiError> {
        let id = request.given.id.as_ref().map(ToString::to_string).unwrap_or_default();
        let operation = if request.validate_only { VALIDATE } else { "create" };
        let write = self.try_create(principal, request);
        let made = |made: &Observed<T>| made.record.id.to_string();
        self.audited(principal, operation, Object::Resource(T::KIND), &id, write, made).await
    }

    async fn try_create<T: ApiKind>(
        &self,
        principal: &Principal,
        mut request: CreateRequest<T>,
    ) -> Result<Observed<T>, ApiError> {
        let (id, chosen_id) = request.given.id.map_or_else(|| (Uuid::now_v7(), false), |id| (id, true));
        if let Some(given) = &request.request {
            check_request_id(&given.id, &mut Form::new("", &mut request.violations));
        }
        let parent = T::parent_of(&request.given.draft);
        if parent.is_some_and(|parent| parent.is_nil()) && !request.violations.has_below(T::PARENT_FIELD) {
            Form::new("", &mut request.violations).invalid(T::PARENT_FIELD, "is required");
        }
        let root = match parent {
            Some(parent) => self.parents_root::<T>(principal, parent),
            None => Some(id),
        };
        let identity = Identity {
            request: request.request.clone().map(|request| (request.id, request.digest)),
            chosen_id,
        };
        let edit = |tree: Option<&Tree>| self.with_created(principal, &request, id, &identity, tree);
        // Without the parent's tree the edit fails, with everything that is wrong.
        let Some(root) = root else { return edit(None).and_then(|_| Err(ApiError::not_found(T::KIND, id))) };
        let (after, (made, _reservation)) = self.carry_out(root, request.validate_only, edit).await?;
        let holds = |tree: &Tree| T::find(tree, made).is_some();
        let tree = after.filter(holds).map(Arc::new).or_else(|| self.on().model.tree_of(T::KIND, made));
        let (tree, record) = located::<T>(tree, made)?;
        Ok(self.view(tree).observed(&record))
    }

    /// The load balancer that a parent stands below, or is; `None`: the principal has no such parent.
    fn parents_root<T: ApiKind>(&self, principal: &Principal, parent: Uuid) -> Option<Uuid> {
        let tree = self.on().model.tree_of(T::PARENT?, parent)?;
        may::<T>(principal, Verb::Create, &tree).then(|| tree.id())
    }

    /// The tree with the new resource; unchanged where an equal call made it before.
    fn with_created<T: ApiKind>(
        &self,
        principal: &Principal,
        request: &CreateRequest<T>,
        id: Uuid,
        identity: &Identity,
        tree: Option<&Tree>,
    ) -> Result<(Option<Tree>, (Uuid, AddressReservation)), ApiError> {
        let unchanged = |made| Ok((tree.cloned(), (made, AddressReservation::default())));
        let draft = &request.given.draft;
        let mut violations = request.violations.clone();
        match self.earlier::<T>(principal, draft, tree, request.request.as_ref()) {
            Earlier::None => {}
            Earlier::Made(made) => return unchanged(made),
            Earlier::Other(made) => Form::new("", &mut violations)
                .taken("request_id", format!("was used for {made}, with other content")),
        }
        let visible = tree.filter(|tree| may::<T>(principal, Verb::Create, tree));
        let same = visible.and_then(|tree| T::find(tree, id)).filter(|record| !record.deleting);
        if same.is_some_and(|same| violations.is_empty() && same.spec.is_made_from(draft, self)) {
            return unchanged(id);
        }
        let mut edit = Edit::new(self, principal, tree.filter(|_| T::PARENT.is_some()), violations);
        edit.add::<T>(id, identity.clone(), draft, &request.given.at);
        if let Err(missing) = T::parent_of(draft).map_or(Ok(()), |parent| parent_stands::<T>(tree, parent)) {
            return Err(edit.reject(missing));
        }
        let (tree, reservation) = edit.finish()?;
        Ok((Some(tree), (id, reservation)))
    }

    /// Looks up an earlier use of a `request_id` in the new resource's project.
    fn earlier<T: ApiKind>(
        &self,
        principal: &Principal,
        draft: &T::Draft,
        tree: Option<&Tree>,
        request: Option<&RequestId>,
    ) -> Earlier {
        let model = &self.on().model;
        let named = T::owner(draft, principal);
        let owner = named.as_ref().map(Into::into).or_else(|| Some((&tree?.load_balancer.spec).into()));
        let object = Object::Resource(T::KIND);
        let owner = owner.filter(|owner| authorize(principal, Verb::Create, object, Some(*owner)).is_ok());
        let (Some(owner), Some(request)) = (owner, request) else { return Earlier::None };
        let Some((kind, made)) = model.requested(owner.org_id, owner.project_id, &request.id) else {
            return Earlier::None;
        };
        let tree = model.tree_of(kind, made);
        let record = tree.as_ref().filter(|_| kind == T::KIND).and_then(|tree| T::find(tree, made));
        let earlier = record.and_then(|record| record.identity.request.as_ref());
        if earlier.is_some_and(|(_, digest)| *digest == request.digest) {
            return Earlier::Made(made);
        }
        let unknown = || format!("{} {made}", kind.words());
        Earlier::Other(tree.map_or_else(unknown, |tree| tree.called(kind, made)))
    }
}

/// Rejects creation below a parent that is not there, or is being deleted with all that is above it.
fn parent_stands<T: ApiKind>(tree: Option<&Tree>, parent: Uuid) -> Result<(), ApiError> {
    let Some(kind) = T::PARENT else { return Ok(()) };
    let lineage = tree.map(|tree| (tree, tree.lineage(kind, parent)));
    let Some((tree, lineage)) = lineage.filter(|(_, lineage)| !lineage.is_empty()) else {
        return Err(ApiError::not_found(kind, parent));
    };
    let mut gone = lineage.into_iter().filter(|(kind, id)| !tree.stands(*kind, *id));
    gone.next_back().map_or(Ok(()), |(kind, id)| Err(being_deleted(tree, kind, id)))
}

/// Checks the format of a `request_id`.
fn check_request_id(text: &str, form: &mut Form<'_>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if text.is_empty() || text.len() > 128 || !text.chars().all(legal) {
        form.invalid("request_id", "must be at most 128 letters, digits, '.', '_', '-' or ':'");
    }
}
