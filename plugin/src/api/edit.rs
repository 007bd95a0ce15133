//! An edited tree: every resource that a request gives is checked and placed here, whether it comes alone or in a
//! whole tree. No IO but for addresses that are looked up and chosen.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use fiberlb_northbound::plan::Capabilities;
use uuid::Uuid;

use super::api_kind::{ApiKind, NewSpecification};
use super::error::{ApiError, ErrorReason};
use super::use_cases::UseCases;
use crate::auth::Principal;
use crate::datapath::{Conflict, decide};
use crate::resources::{
    Form, Identity, Kind, Quoted, Record, Resource, Tree, TreeLookup, Violations, of_kind,
};

/// Addresses reserved by a write in progress: no other write chooses them until it is done.
#[derive(Default)]
pub(super) struct AddressReservation {
    pub(super) addresses: Vec<(Uuid, IpAddr)>,
    pub(super) all: Arc<Mutex<HashSet<(Uuid, IpAddr)>>>,
}

impl Drop for AddressReservation {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for address in &self.addresses {
            all.remove(address);
        }
    }
}

/// A resource that the request gives.
struct EditedResource {
    kind: Kind,
    id: Uuid,
    /// Path in the request.
    at: String,
    /// False: it was so before, and stands as it did.
    is_changed: bool,
}

/// A tree that is being edited.
pub(super) struct Edit<'a> {
    cases: &'a UseCases,
    principal: &'a Principal,
    before: Option<&'a Tree>,
    /// `None`: the load balancer is still to be placed.
    tree: Option<Tree>,
    edited: Vec<EditedResource>,
    reservation: AddressReservation,
    failure: Option<ApiError>,
    violations: Violations,
    /// Number of violations that the adapter found: fields with them have placeholders.
    unreadable: usize,
}

impl<'a> Edit<'a> {
    /// An edit of `tree`; `violations`: those that the adapter found already.
    pub(super) fn new(
        cases: &'a UseCases,
        principal: &'a Principal,
        before: Option<&'a Tree>,
        violations: Violations,
    ) -> Self {
        let unreadable = violations.paths().count();
        Self {
            cases,
            principal,
            before,
            tree: before.cloned(),
            edited: Vec::new(),
            reservation: AddressReservation::default(),
            failure: None,
            violations,
            unreadable,
        }
    }

    /// The tree as it is now; `None`: the load balancer is still to be placed.
    pub(super) fn tree_mut(&mut self) -> Option<&mut Tree> {
        self.tree.as_mut()
    }

    /// Record of the tree.
    pub(super) fn record<T: Resource>(&self, id: Uuid) -> Option<&Arc<Record<T>>> {
        T::find(self.tree.as_ref()?, id)
    }

    /// Form for the fields of a resource at a path of the request.
    pub(super) fn form(&mut self, at: &str) -> Form<'_> {
        Form::new(at, &mut self.violations)
    }

    /// Places a new resource.
    pub(super) fn add<T: ApiKind>(&mut self, id: Uuid, identity: Identity, draft: &T::Draft, at: &str) {
        let (cases, principal) = (self.cases, self.principal);
        let mut form = Form::new(at, &mut self.violations);
        if id.is_nil() {
            form.invalid("id", "must not be the nil UUID");
        }
        if cases.on().model.kind_of(id).is_some() {
            // It may be another tenant's: nothing else is told.
            form.taken("id", format!("{id} is the id of another resource"));
        }
        let NewSpecification { spec, reservation, failure } = T::make(draft, id, principal, cases, &mut form);
        spec.check(&mut form);
        cases.limits().check_tags(spec.common(), &mut form);
        if !reservation.addresses.is_empty() {
            self.reservation = reservation;
        }
        self.failure = self.failure.take().or(failure);
        self.put(Record::new(id, identity, spec), at, true);
    }

    /// Places a changed resource; `advice`: what to do where a field cannot be changed.
    pub(super) fn change<T: ApiKind>(
        &mut self,
        before: &Record<T>,
        draft: &T::Draft,
        advice: &str,
        at: &str,
    ) {
        let cases = self.cases;
        let mut form = Form::new(at, &mut self.violations);
        match before.spec.amend(draft, advice, cases, &mut form) {
            Ok(spec) => {
                spec.check(&mut form);
                cases.limits().check_tags(spec.common(), &mut form);
                let is_changed = spec != before.spec;
                let record = if is_changed { before.changed(spec) } else { before.clone() };
                self.put(record, at, is_changed);
            }
            Err(failure) => self.failure = self.failure.take().or(Some(failure)),
        }
    }

    fn put<T: ApiKind>(&mut self, record: Record<T>, at: &str, is_changed: bool) {
        self.edited.push(EditedResource { kind: T::KIND, id: record.id, at: at.to_owned(), is_changed });
        match &mut self.tree {
            Some(tree) => T::put(tree, record),
            None => self.tree = T::rooted(record),
        }
    }

    /// Everything that is wrong, or else `error`.
    pub(super) fn reject(self, error: ApiError) -> ApiError {
        ApiError::check(self.violations).err().unwrap_or(error)
    }

    /// The edited tree, with the reservation of the addresses that were chosen for it.
    ///
    /// # Errors
    /// Everything that is wrong, a limit that is exceeded, or a dependency that could not be reached.
    pub(super) fn finish(mut self) -> Result<(Tree, AddressReservation), ApiError> {
        let Some(mut tree) = self.tree.take() else {
            let nothing = ApiError::new(ErrorReason::Internal, "a request made no load balancer");
            return Err(self.reject(nothing));
        };
        for edited in &self.edited {
            of_kind!(edited.kind, T => edited.check_references::<T>(&tree, &mut self.violations));
        }
        // A load balancer without addresses is a placeholder: nothing can be checked against it.
        if !tree.load_balancer.spec.vips.is_empty() && self.failure.is_none() {
            let unreadable = self.unreadable();
            // By a placeholder they would take what others ask for. The tree is refused for them.
            tree.listeners.retain(|id, _| !unreadable.contains(id));
            tree.backends.retain(|id, _| !unreadable.contains(id));
            let lookup = TreeLookup::new(&tree);
            for edited in &self.edited {
                of_kind!(edited.kind, T => edited.check_in::<T>(&lookup, &unreadable, &mut self.violations));
            }
            self.check_backends(&tree, &unreadable);
        }
        ApiError::check(self.violations)?;
        self.failure.map_or(Ok(()), Err)?;
        let limits = self.cases.limits();
        limits.check(self.before, &tree)?;
        limits.check_vips(self.before, &tree, self.cases.on().model.vips_bytes_beside(&tree))?;
        Ok((tree, self.reservation))
    }

    /// Checks the addresses of backends against what is known of their network.
    fn check_backends(&mut self, tree: &Tree, unreadable: &HashSet<Uuid>) {
        let root = &tree.load_balancer.spec;
        let is_checked = |edited: &&EditedResource| {
            edited.kind == Kind::Backend && edited.is_changed && !unreadable.contains(&edited.id)
        };
        let mut subnets = None;
        for edited in self.edited.iter().filter(is_checked) {
            let Some(backend) = tree.backends.get(&edited.id) else { continue };
            let subnets = subnets.get_or_insert_with(|| self.cases.subnets(root.network));
            let mut form = Form::new(edited.at.as_str(), &mut self.violations);
            self.cases.check_backend(&backend.spec, root, subnets, &mut form);
        }
    }

    /// Resources with a placeholder for a value that the adapter could not read. It would be found wrong in other
    /// ways, too, by whoever looks at it.
    fn unreadable(&self) -> HashSet<Uuid> {
        let at: HashMap<&str, Uuid> =
            self.edited.iter().map(|edited| (edited.at.as_str(), edited.id)).collect();
        let is_value = |path: &&str| !matches!(*path, "id" | "request_id" | "update_mask");
        let paths = self.violations.paths().take(self.unreadable).filter(is_value);
        let holder = |path: &str| {
            let ends = path.rmatch_indices('.').map(|(end, _)| end).chain([0]);
            ends.filter_map(|end| at.get(path.get(..end)?)).next().copied()
        };
        paths.filter_map(holder).collect()
    }
}

impl EditedResource {
    /// Checks that what the resource uses is there, whether or not it changed.
    fn check_references<T: ApiKind>(&self, tree: &Tree, violations: &mut Violations) {
        let Some(record) = T::find(tree, self.id) else { return };
        let mut form = Form::new(self.at.as_str(), violations);
        for used in record.spec.references().iter().filter(|used| !tree.stands(used.kind, used.id)) {
            form.unmet(&used.field, format!("the load balancer has no {} {}", used.kind.words(), used.id));
        }
    }

    /// Checks the resource against its tree. A conflict of one that did not change with a changed one is that one's.
    fn check_in<T: ApiKind>(
        &self,
        lookup: &TreeLookup<'_>,
        unreadable: &HashSet<Uuid>,
        violations: &mut Violations,
    ) {
        let tree = lookup.tree();
        let Some(record) = T::find(tree, self.id).filter(|_| self.is_changed) else { return };
        let mut concerned = record.spec.references().into_iter().map(|used| used.id).chain([self.id]);
        if concerned.any(|id| unreadable.contains(&id)) {
            return;
        }
        let mut form = Form::new(self.at.as_str(), violations);
        record.spec.check_in(self.id, lookup, &mut form);
        self.check_carrier(tree, &mut form);
    }

    /// Checks that the datapath can carry it, if it is a listener.
    fn check_carrier(&self, tree: &Tree, form: &mut Form<'_>) {
        let listener = tree.listeners.get(&self.id).filter(|_| self.kind == Kind::Listener);
        let Some(listener) = listener else { return };
        let Err(Conflict { field, reason }) = decide(tree, &listener.spec, &Capabilities::ALL) else {
            return;
        };
        let mut alone = Tree::new(Record::clone(&tree.load_balancer));
        alone.listeners.insert(self.id, Arc::clone(listener));
        let is_wrong_alone = decide(&alone, &listener.spec, &Capabilities::ALL).is_err();
        if is_wrong_alone { form.invalid(field, reason) } else { form.unmet(field, reason) }
    }
}

/// Rejects writes to a resource that is being deleted, and writes whose etag is not the stored one.
///
/// # Errors
/// [`ErrorReason::BeingDeleted`], [`ErrorReason::EtagMismatch`].
pub(super) fn precondition<T: Resource>(tree: &Tree, record: &Record<T>, etag: &str) -> Result<(), ApiError> {
    if record.deleting {
        return Err(being_deleted(tree, T::KIND, record.id));
    }
    if !etag.is_empty() && etag != record.etag() {
        return Err(etag_mismatch(tree, record, etag));
    }
    Ok(())
}

/// Error for a write of a version that is not the stored one.
pub(super) fn etag_mismatch<T: Resource>(tree: &Tree, record: &Record<T>, etag: &str) -> ApiError {
    let (what, stored) = (tree.called(T::KIND, record.id), record.etag());
    let why = format!("{what} was changed meanwhile: its etag is {stored:?}, not {}", Quoted(etag));
    ApiError::about(ErrorReason::EtagMismatch, T::KIND, record.id, why)
}

/// Error for a write to, or below, a resource that is being deleted.
pub(super) fn being_deleted(tree: &Tree, kind: Kind, id: Uuid) -> ApiError {
    let why = format!("{} is being deleted", tree.called(kind, id));
    ApiError::about(ErrorReason::BeingDeleted, kind, id, why)
}
