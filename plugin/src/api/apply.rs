//! A whole tree created or replaced by one atomic write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::api_kind::{ApiKind, ResourceDraft};
use super::edit::{AddressReservation, Edit, precondition};
use super::error::{ApiError, ErrorReason};
use super::load_balancer::LoadBalancerDraft;
use super::use_cases::{UseCases, VALIDATE, may};
use super::view::TreeView;
use crate::auth::{Object, Owner, Principal, Verb};
use crate::catalog::{KeyClaim, WriteError};
use crate::resources::{
    Backend, Child, Form, HealthCheck, Identity, InTree as _, Kind, Listener, LoadBalancer, Pool, Quoted,
    Record, Records, Resource, Tree, TreeField, Violations, each_kind, every_kind, name_key,
};

/// Attempts to create a load balancer by its name while others do.
const ATTEMPTS: usize = 50;

/// A whole tree as a caller gives it. Parents of the resources follow from their places.
#[derive(Clone, Debug)]
pub struct TreeDraft {
    /// The load balancer.
    pub load_balancer: ResourceDraft<LoadBalancer>,
    /// Its listeners.
    pub listeners: Vec<ResourceDraft<Listener>>,
    /// Its pools.
    pub pools: Vec<PoolDraft>,
}

/// A pool with what is below it.
#[derive(Clone, Debug)]
pub struct PoolDraft {
    /// The pool.
    pub pool: ResourceDraft<Pool>,
    /// Its backends.
    pub backends: Vec<ResourceDraft<Backend>>,
    /// Its health check.
    pub health_check: Option<ResourceDraft<HealthCheck>>,
}

/// A call to apply a whole tree.
#[derive(Clone, Debug)]
pub struct ApplyRequest {
    /// The tree that is to be.
    pub tree: TreeDraft,
    /// Etag of the tree or of its load balancer that the caller has seen; empty: of any.
    pub etag: String,
    /// True: nothing is written.
    pub validate_only: bool,
    /// Everything that is wrong with the call already.
    pub violations: Violations,
}

/// A tree that was applied, and the number of its resources by what became of them.
#[derive(Debug)]
pub struct Applied {
    /// The tree.
    pub view: TreeView,
    /// New resources.
    pub created: u32,
    /// Changed ones.
    pub updated: u32,
    /// Deleted ones.
    pub deleted: u32,
    /// Resources that were as desired before.
    pub unchanged: u32,
}

/// Number of resources by the difference between a tree and the one before it.
#[derive(Clone, Copy, Default)]
struct Counts {
    created: u32,
    updated: u32,
    deleted: u32,
    unchanged: u32,
}

impl UseCases {
    /// Creates or changes a load balancer with all that is below it, and deletes what is not given.
    ///
    /// # Errors
    /// Everything that is wrong with the tree, a limit, another etag.
    pub async fn apply(&self, principal: &Principal, request: ApplyRequest) -> Result<Applied, ApiError> {
        let id = request.tree.load_balancer.id.map(|id| id.to_string()).unwrap_or_default();
        let operation = if request.validate_only { VALIDATE } else { "apply" };
        let write = async {
            self.limits().check_draft(&request.tree)?;
            for _ in 0..ATTEMPTS {
                let claim = self.claim_name(principal, &request).await;
                match self.apply_once(principal, &request, claim.as_ref()).await {
                    // Somebody else has created a load balancer of the name, or of one with the same key.
                    Err(error) if claim.is_some() && error.reason == ErrorReason::Contended => {}
                    decided => return decided,
                }
            }
            Err(WriteError::Contended.into())
        };
        let applied = |applied: &Applied| applied.view.tree.id().to_string();
        let object = Object::Resource(Kind::LoadBalancer);
        self.audited(principal, operation, object, &id, write, applied).await
    }

    /// Claims the name of a load balancer that is to be created by it.
    async fn claim_name(&self, principal: &Principal, request: &ApplyRequest) -> Option<KeyClaim> {
        match self.target(principal, &request.tree.load_balancer) {
            Ok(Target { new_name: Some(key), .. }) if !request.validate_only => {
                Some(self.on().writer.claim::<Tree>(key).await)
            }
            _ => None,
        }
    }

    async fn apply_once(
        &self,
        principal: &Principal,
        request: &ApplyRequest,
        claim: Option<&KeyClaim>,
    ) -> Result<Applied, ApiError> {
        let draft = &request.tree.load_balancer;
        // Once more: the claim has waited for whoever had it before.
        let mut violations = request.violations.clone();
        let target = self.target(principal, draft).unwrap_or_else(|why| {
            Form::new(&draft.at, &mut violations).invalid("name", why);
            Target::new()
        });
        let root = target.id;
        let edit = |before: Option<&Tree>| {
            let (after, reservation) = self.applied(principal, request, &violations, &target, before)?;
            let counts = count(before, &after);
            Ok::<_, ApiError>((Some(after), (counts, reservation)))
        };
        let (after, (counts, _reservation)) = if request.validate_only {
            edit(self.on().model.tree(root).as_deref())?
        } else {
            self.on().writer.write_claimed(root, claim, edit).await?
        };
        let tree = after.ok_or_else(|| ApiError::not_found(Kind::LoadBalancer, root))?;
        let Counts { created, updated, deleted, unchanged } = counts;
        Ok(Applied { view: self.view(Arc::new(tree)), created, updated, deleted, unchanged })
    }

    /// The load balancer that a tree is for: by its id, else by its name in the project, else a new one.
    ///
    /// # Errors
    /// The name is that of several.
    fn target(&self, principal: &Principal, draft: &ResourceDraft<LoadBalancer>) -> Result<Target, String> {
        if let Some(id) = draft.id {
            return Ok(Target { id, chosen_id: true, new_name: None });
        }
        let name = &draft.draft.common.name;
        let Some(owner) = LoadBalancer::owner(&draft.draft, principal).filter(|_| !name.is_empty()) else {
            return Ok(Target::new());
        };
        let named = self.on().model.named(name).into_iter().filter(|tree| {
            let root = &tree.load_balancer;
            Owner::from(&root.spec) == Owner::from(&owner)
                && !root.deleting
                && may::<LoadBalancer>(principal, Verb::Update, tree)
        });
        let named: Vec<Uuid> = named.map(|tree| tree.id()).collect();
        match named.as_slice() {
            [] => {
                let key = name_key(&owner.org_id, &owner.project_id, name);
                Ok(Target { new_name: Some(key), ..Target::new() })
            }
            [id] => Ok(Target { id: *id, chosen_id: false, new_name: None }),
            many => {
                let ids: Vec<String> = many.iter().map(ToString::to_string).collect();
                Err(format!("names {} load balancers, give the id: {}", many.len(), ids.join(", ")))
            }
        }
    }

    /// The tree that is to be, in place of `before`.
    fn applied(
        &self,
        principal: &Principal,
        request: &ApplyRequest,
        violations: &Violations,
        target: &Target,
        before: Option<&Tree>,
    ) -> Result<(Tree, AddressReservation), ApiError> {
        if let Some(before) = before {
            if !may::<LoadBalancer>(principal, Verb::Update, before) {
                return Err(ApiError::not_found(Kind::LoadBalancer, target.id));
            }
            let is_seen = request.etag == before.etag();
            precondition(before, &before.load_balancer, if is_seen { "" } else { &request.etag })?;
        } else if !request.etag.is_empty() {
            let why = format!(
                "there is no load balancer {} with the etag {}: without an etag it is created",
                target.id,
                Quoted(&request.etag)
            );
            return Err(ApiError::about(ErrorReason::EtagMismatch, Kind::LoadBalancer, target.id, why));
        }
        let edit = Edit::new(self, principal, before, violations.clone());
        let mut keys = before.map(natural_keys).unwrap_or_default();
        // What another entry names by its id is not meant by a name.
        let named = ids(&request.tree);
        keys.retain(|_, id| !named.contains(id));
        let mut whole = Whole { edit, root: target.id, keys, kept: BTreeSet::new() };
        whole.load_balancer(target, &request.tree.load_balancer);
        let pools = whole.pools(&request.tree.pools);
        for given in &request.tree.listeners {
            whole.put(given, target.id, &pools);
        }
        whole.drop_others();
        whole.edit.finish()
    }
}

/// The load balancer that a tree is for.
struct Target {
    id: Uuid,
    chosen_id: bool,
    /// Key that is claimed where it is created because nothing has its name.
    new_name: Option<String>,
}

impl Target {
    fn new() -> Self {
        Self { id: Uuid::now_v7(), chosen_id: false, new_name: None }
    }
}

/// A whole tree in the making.
struct Whole<'a> {
    edit: Edit<'a>,
    root: Uuid,
    /// Resources by what they are recognised by.
    keys: HashMap<(Kind, String), Uuid>,
    /// Resources that were given.
    kept: BTreeSet<Uuid>,
}

/// Ids of the given pools, by id and name.
type Names = BTreeMap<String, Uuid>;

impl Whole<'_> {
    fn load_balancer(&mut self, target: &Target, given: &ResourceDraft<LoadBalancer>) {
        let Some(before) = self.edit.record::<LoadBalancer>(target.id).cloned() else {
            let identity = Identity { request: None, chosen_id: target.chosen_id };
            return self.edit.add::<LoadBalancer>(target.id, identity, &given.draft, &given.at);
        };
        let mut draft: LoadBalancerDraft = given.draft.clone();
        draft.keep(&before.spec);
        let advice = "cannot be changed: delete the load balancer and create another one";
        self.edit.change::<LoadBalancer>(&before, &draft, advice, &given.at);
    }

    /// Places pools with what is below them.
    fn pools(&mut self, given: &[PoolDraft]) -> Names {
        let mut names = Names::new();
        for PoolDraft { pool, backends, health_check } in given {
            let id = self.put(pool, self.root, &names);
            let name = &pool.draft.common.name;
            let is_known = !name.is_empty() && names.insert(name.clone(), id).is_some();
            let mut form = self.edit.form(&pool.at);
            if is_known && !form.has_wrong("name") {
                form.invalid("name", "two pools of the tree have it: they cannot be told apart");
            }
            names.insert(id.to_string(), id);
            for backend in backends {
                self.put(backend, id, &names);
            }
            if let Some(check) = health_check {
                self.put(check, id, &names);
            }
        }
        names
    }

    /// Places a given resource: in place of the one with its id, else of the one that it stands for, else as a
    /// new one.
    fn put<T: ApiKind<Draft = T> + Child>(
        &mut self,
        given: &ResourceDraft<T>,
        parent: Uuid,
        names: &Names,
    ) -> Uuid {
        let mut draft = given.draft.clone();
        // A placeholder for a value does not stand for one that has it.
        let form = self.edit.form(&given.at);
        let is_readable = !T::KEY_FIELDS.iter().any(|field| form.has_wrong(field));
        if draft.parent().is_some_and(|given| !given.is_nil() && given != parent) {
            let why = format!("is {parent} by its place in the tree: leave it out");
            self.edit.form(&given.at).invalid(T::PARENT_FIELD, why);
        }
        draft.set_parent(parent);
        self.refer(given, &mut draft, names);
        let key = draft.natural_key().filter(|_| is_readable).map(|key| (T::KIND, key));
        let by_key = || self.keys.get(key.as_ref()?).copied();
        let stored = given.id.or_else(by_key).and_then(|id| self.edit.record::<T>(id));
        let Some(before) = stored.cloned() else { return self.put_new(given, &draft, key) };
        if before.deleting {
            self.edit.form(&given.at).taken("id", format!("{} is being deleted", before.id));
        }
        if !self.kept.insert(before.id) {
            let why = format!("means the same {} as an earlier entry", T::KIND.words());
            let by_key = T::KEY_FIELDS.last().copied().unwrap_or(T::PARENT_FIELD);
            let field = if given.id.is_some() { "id" } else { by_key };
            self.edit.form(&given.at).invalid(field, why);
        }
        self.edit.change::<T>(&before, &draft, T::how_to_replace(), &given.at);
        before.id
    }

    fn put_new<T: ApiKind<Draft = T> + Child>(
        &mut self,
        given: &ResourceDraft<T>,
        draft: &T,
        key: Option<(Kind, String)>,
    ) -> Uuid {
        let (id, chosen_id) = given.id.map_or_else(|| (Uuid::now_v7(), false), |id| (id, true));
        if !self.kept.insert(id) {
            self.edit.form(&given.at).invalid("id", "is given twice");
            return id;
        }
        self.keys.extend(key.map(|key| (key, id)));
        self.edit.add::<T>(id, Identity { request: None, chosen_id }, draft, &given.at);
        id
    }

    /// Resolves the references of a resource to others of the tree.
    fn refer<T: ApiKind + Child>(&mut self, given: &ResourceDraft<T>, draft: &mut T, names: &Names) {
        for (field, text) in &given.named {
            // Any spelling of an id, as everywhere else.
            let by_id = || names.get(&text.parse::<Uuid>().ok()?.to_string());
            match names.get(text).or_else(by_id) {
                Some(id) => draft.refer(field, *id),
                None => {
                    let why = format!("{} is neither id nor name of a pool of the tree", Quoted(text));
                    self.edit.form(&given.at).invalid(field, why);
                }
            }
        }
    }

    /// Marks the resources that were not given again as deleted.
    fn drop_others(&mut self) {
        let Some(tree) = self.edit.tree_mut() else { return };
        // A kind that a given tree cannot have must not be dropped with what is not given: each is named.
        let Tree { load_balancer: _, head: _, listeners, pools, backends, health_checks } = &*tree;
        let mut dropped = others(listeners, &self.kept);
        dropped.extend(others(pools, &self.kept));
        dropped.extend(others(backends, &self.kept));
        dropped.extend(others(health_checks, &self.kept));
        for (kind, id) in dropped {
            tree.delete(kind, id);
        }
    }
}

/// Resources of a tree by what they are recognised by; those that are being deleted are not.
fn natural_keys(tree: &Tree) -> HashMap<(Kind, String), Uuid> {
    let mut keys = HashMap::new();
    each_kind!(T => for record in T::records(tree).filter(|record| !record.deleting) {
        keys.extend(record.spec.natural_key().map(|key| ((T::KIND, key), record.id)));
    });
    keys
}

/// Ids that a given tree names.
fn ids(tree: &TreeDraft) -> BTreeSet<Uuid> {
    let pools = tree.pools.iter().flat_map(|pool| {
        let check = pool.health_check.iter().filter_map(|check| check.id);
        pool.backends.iter().filter_map(|backend| backend.id).chain(pool.pool.id).chain(check)
    });
    tree.listeners.iter().filter_map(|listener| listener.id).chain(pools).collect()
}

fn others<T: TreeField>(records: &Records<T>, kept: &BTreeSet<Uuid>) -> Vec<(Kind, Uuid)> {
    records.keys().filter(|id| !kept.contains(id)).map(|id| (T::KIND, *id)).collect()
}

fn count(before: Option<&Tree>, after: &Tree) -> Counts {
    fn add<T: Resource>(old: Option<&Arc<Record<T>>>, new: &Arc<Record<T>>, counts: &mut Counts) {
        match old {
            None => counts.created += 1,
            Some(old) if old.deleting => {}
            Some(_) if new.deleting => counts.deleted += 1,
            Some(old) if old == new => counts.unchanged += 1,
            Some(_) => counts.updated += 1,
        }
    }
    let mut counts = Counts::default();
    every_kind!(T => for record in T::records(after) {
        add(before.and_then(|before| T::find(before, record.id)), record, &mut counts);
    });
    counts
}
