//! Create, get, list, update and delete of the resources below a load balancer: the same for each kind.

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::Status;
use uuid::Uuid;

use super::Api;
use super::convert::{Form, new_id};
use super::edit::{self, Exposed};
use super::list::{Facts, Query, token};
use super::mask::Mask;
use super::principal::Principal;
use super::services::Audit;
use super::violations::Violations;
use crate::resources::{Identity, Kind, Record, Tree};

/// Resources that one list call scans at most, however few match; it then returns what it has found.
const SCAN: usize = 20_000;

impl Api {
    /// Creates a resource; an equal repeated call returns the existing one (idempotent).
    pub(super) async fn create<T: Exposed>(
        &self,
        principal: &Principal,
        wire: Option<T::Wire>,
        request_id: String,
    ) -> Result<T::Wire, Status> {
        let wire = wire.unwrap_or_default();
        let result = self.try_create::<T>(principal, &wire, &request_id).await;
        let line = Audit { principal, resource: T::KIND.words(), operation: "create", id: T::wire_id(&wire) };
        self.audit(&line, &result.as_ref().map(|wire| T::wire_id(wire).to_owned()));
        result
    }

    async fn try_create<T: Exposed>(
        &self,
        principal: &Principal,
        wire: &T::Wire,
        request_id: &str,
    ) -> Result<T::Wire, Status> {
        let mut violations = Violations::default();
        let mut form = Form::new("", &self.0.limits, &mut violations);
        let (id, chosen_id) = new_id(&mut form, T::wire_id(wire));
        check_request_id(request_id, &mut form);
        let parent = form.uuid(T::PARENT_FIELD, T::wire_parent(wire));
        T::parse(wire, parent, &mut form);
        let found =
            self.0.model.tree_of(T::PARENT, parent).filter(|tree| principal.sees(&tree.load_balancer.spec));
        let Some(root) = found.map(|tree| tree.id()) else {
            violations.check()?;
            return Err(not_found(T::PARENT, parent));
        };
        violations.check()?;

        let digest = digest(wire);
        let (after, made) = self
            .write(root, |tree| {
                let tree = tree.ok_or_else(|| not_found(T::PARENT, parent))?;
                let mut violations = Violations::default();
                let mut form = Form::new("", &self.0.limits, &mut violations);
                let spec = T::parse(wire, parent, &mut form);
                if let Some(made) = self.made_before::<T>(tree, request_id, &digest, &mut form) {
                    return Ok((Some(tree.clone()), made));
                }
                if let Some(same) =
                    T::of(tree).get(&id).filter(|record| !record.deleting && record.spec == spec)
                {
                    return Ok((Some(tree.clone()), same.id));
                }
                if let Some(kind) = self.0.model.kind_of(id) {
                    form.violations.taken("id", format!("{id} is the id of a {}", kind.words()));
                }
                self.parent_stands::<T>(tree, parent)?;
                spec.check(id, tree, &mut form);
                violations.check()?;
                let request = (!request_id.is_empty()).then(|| (request_id.to_owned(), digest.clone()));
                let after = edit::add(tree, Record::new(id, Identity { request, chosen_id }, spec));
                self.0.limits.check(&after)?;
                Ok((Some(after), id))
            })
            .await?;
        self.render_one::<T>(after, made)
    }

    /// The resource that a call with the same `request_id` created in this tree.
    fn made_before<T: Exposed>(
        &self,
        tree: &Tree,
        request_id: &str,
        digest: &str,
        form: &mut Form<'_>,
    ) -> Option<Uuid> {
        let owner = &tree.load_balancer.spec;
        let (kind, id) = self.0.model.requested(&owner.org_id, &owner.project_id, request_id)?;
        let record = T::of(tree).get(&id).filter(|_| kind == T::KIND);
        let same = record
            .and_then(|record| record.identity.request.as_ref())
            .is_some_and(|(_, made)| made == digest);
        if !same {
            form.violations
                .taken("request_id", format!("was used for {} {id}, with other content", kind.words()));
        }
        same.then_some(id)
    }

    /// Rejects creation below a parent that is being deleted.
    fn parent_stands<T: Exposed>(&self, tree: &Tree, parent: Uuid) -> Result<(), Status> {
        edit::precondition(Kind::LoadBalancer, &tree.load_balancer, "")?;
        match tree.pools.get(&parent).filter(|_| T::PARENT == Kind::Pool) {
            Some(pool) => edit::precondition(Kind::Pool, pool, ""),
            None if T::PARENT == Kind::Pool => Err(not_found(Kind::Pool, parent)),
            None => Ok(()),
        }
    }

    /// Returns a resource by its id.
    pub(super) fn get<T: Exposed>(&self, principal: &Principal, id: &str) -> Result<T::Wire, Status> {
        let (tree, record) = self.find::<T>(principal, id)?;
        Ok(T::render(&self.view(tree), &record))
    }

    /// A page of resources.
    pub(super) fn list<T: Exposed>(
        &self,
        principal: &Principal,
        query: &Query,
    ) -> Result<(Vec<T::Wire>, String), Status> {
        let after = query.after()?;
        let parent = query.parent(T::PARENT_FIELD)?;
        let limit = self.0.limits.page(query.page_size);
        let mut page = Vec::new();
        let mut last = after;
        for ((id, tree), seen) in self.candidates::<T>(parent, after).zip(0..) {
            if page.len() == limit || seen == SCAN {
                return Ok((page, last.map(token).unwrap_or_default()));
            }
            last = Some(id);
            let record = T::of(&tree).get(&id).cloned();
            let Some(record) = record.filter(|_| principal.sees(&tree.load_balancer.spec)) else { continue };
            if parent.is_some_and(|parent| parent != record.spec.parent()) {
                continue;
            }
            let view = self.view(tree);
            let Some(status) = view.statuses().of(T::KIND, id) else { continue };
            let tags: Vec<String> = T::common(&record.spec).tags.iter().cloned().collect();
            let facts = Facts {
                name: &T::common(&record.spec).name,
                tags: &tags,
                provisioning: super::render::provisioning(status.provisioning).into(),
                operating: super::render::operating(status.operating).into(),
            };
            if query.wants(&facts) {
                page.push(T::render(&view, &record));
            }
        }
        Ok((page, String::new()))
    }

    /// The resources to scan, in the order of their ids.
    fn candidates<T: Exposed>(
        &self,
        parent: Option<Uuid>,
        after: Option<Uuid>,
    ) -> Box<dyn Iterator<Item = (Uuid, Arc<Tree>)> + '_> {
        let Some(parent) = parent else { return Box::new(self.0.model.walk(T::KIND, after)) };
        let Some(tree) = self.0.model.tree_of(T::PARENT, parent) else {
            return Box::new(std::iter::empty());
        };
        let ids: Vec<Uuid> =
            T::of(&tree).keys().copied().filter(|id| after.is_none_or(|after| *id > after)).collect();
        Box::new(ids.into_iter().map(move |id| (id, Arc::clone(&tree))))
    }

    /// Changes the fields that the mask names.
    pub(super) async fn update<T: Exposed>(
        &self,
        principal: &Principal,
        wire: Option<T::Wire>,
        mask: Option<FieldMask>,
        etag: &str,
    ) -> Result<T::Wire, Status> {
        let wire = wire.unwrap_or_default();
        let result = self.try_update::<T>(principal, &wire, &Mask::of(mask), etag).await;
        let line = Audit { principal, resource: T::KIND.words(), operation: "update", id: T::wire_id(&wire) };
        self.audit(&line, &result.as_ref().map(|wire| T::wire_id(wire).to_owned()));
        result
    }

    async fn try_update<T: Exposed>(
        &self,
        principal: &Principal,
        wire: &T::Wire,
        mask: &Mask,
        etag: &str,
    ) -> Result<T::Wire, Status> {
        let (tree, record) = self.find::<T>(principal, T::wire_id(wire))?;
        let (root, id) = (tree.id(), record.id);
        let (after, ()) = self
            .write(root, |tree| {
                let tree = tree.ok_or_else(|| not_found(T::KIND, id))?;
                let before = T::of(tree).get(&id).ok_or_else(|| not_found(T::KIND, id))?;
                edit::precondition(T::KIND, before, etag)?;
                let mut violations = Violations::default();
                let current = T::render(&self.view(Arc::new(tree.clone())), before);
                let wanted = T::overlay(current, wire.clone(), mask, &mut violations);
                let mut form = Form::new("", &self.0.limits, &mut violations);
                let parent = form.uuid(T::PARENT_FIELD, T::wire_parent(&wanted));
                let spec = T::parse(&wanted, parent, &mut form);
                for field in before.spec.immutable_differences(&spec) {
                    form.invalid(field, "cannot be changed: delete the resource and create another one");
                }
                spec.check(id, tree, &mut form);
                violations.check()?;
                Ok((Some(edit::change(tree, before, spec)), ()))
            })
            .await?;
        self.render_one::<T>(after, id)
    }

    /// Marks a resource as deleted.
    pub(super) async fn delete<T: Exposed>(
        &self,
        principal: &Principal,
        id: &str,
        etag: &str,
        cascade: bool,
    ) -> Result<T::Wire, Status> {
        let result = self.try_delete::<T>(principal, id, etag, cascade).await;
        let line = Audit { principal, resource: T::KIND.words(), operation: "delete", id };
        self.audit(&line, &result.as_ref().map(|wire| T::wire_id(wire).to_owned()));
        result
    }

    async fn try_delete<T: Exposed>(
        &self,
        principal: &Principal,
        id: &str,
        etag: &str,
        cascade: bool,
    ) -> Result<T::Wire, Status> {
        let (tree, record) = self.find::<T>(principal, id)?;
        let (root, id) = (tree.id(), record.id);
        let (after, ()) = self
            .write(root, |tree| {
                let tree = tree.ok_or_else(|| not_found(T::KIND, id))?;
                let before = T::of(tree).get(&id).ok_or_else(|| not_found(T::KIND, id))?;
                if before.deleting {
                    return Ok((Some(tree.clone()), ()));
                }
                edit::precondition(T::KIND, before, etag)?;
                Ok((Some(edit::delete::<T>(tree, id, cascade)?), ()))
            })
            .await?;
        self.render_one::<T>(after, id)
    }

    /// A resource that is visible to the principal.
    pub(super) fn find<T: Exposed>(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<(Arc<Tree>, Arc<Record<T>>), Status> {
        let id = parse_id("id", id, &self.0.limits)?;
        let tree = self.0.model.tree_of(T::KIND, id).filter(|tree| principal.sees(&tree.load_balancer.spec));
        let found = tree.and_then(|tree| T::of(&tree).get(&id).cloned().map(|record| (tree, record)));
        found.ok_or_else(|| not_found(T::KIND, id))
    }

    fn render_one<T: Exposed>(&self, tree: Option<Tree>, id: Uuid) -> Result<T::Wire, Status> {
        let tree = Arc::new(tree.ok_or_else(|| not_found(T::KIND, id))?);
        let record = T::of(&tree).get(&id).cloned().ok_or_else(|| not_found(T::KIND, id))?;
        Ok(T::render(&self.view(tree), &record))
    }
}

/// An id of a request.
pub(super) fn parse_id(field: &str, text: &str, limits: &super::Limits) -> Result<Uuid, Status> {
    let mut violations = Violations::default();
    let id = Form::new("", limits, &mut violations).uuid(field, text);
    violations.check().map(|()| id)
}

/// Checks the format of a `request_id`.
pub(super) fn check_request_id(text: &str, form: &mut Form<'_>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if text.len() > 128 || !text.chars().all(legal) {
        form.invalid("request_id", "must be at most 128 letters, digits, '.', '_', '-' or ':'");
    }
}

/// Digest of a create call's content, to recognise a repeated call.
pub(super) fn digest<W: prost::Message>(wire: &W) -> String {
    Uuid::new_v5(&Uuid::nil(), &wire.encode_to_vec()).to_string()
}

/// Error for a resource that does not exist, or is not the principal's.
pub(super) fn not_found(kind: Kind, id: Uuid) -> Status {
    Status::not_found(format!("there is no {} {id}", kind.words()))
}
