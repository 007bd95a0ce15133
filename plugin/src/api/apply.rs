//! ApplyLoadBalancer: a whole tree created or replaced by one atomic write.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fiberlb_proto::v1;
use tonic::Status;
use uuid::Uuid;

use super::Api;
use super::convert::{self, Form, new_id};
use super::edit::{self, Exposed};
use super::load_balancer::with_root;
use super::mask::Mask;
use super::networks::Held;
use super::principal::Principal;
use super::resource::not_found;
use super::services::Audit;
use super::violations::Violations;
use crate::resources::{
    Backend, HealthCheck, Identity, Kind, Listener, LoadBalancer, Pool, Record, Resource, Tree, each_kind,
};

/// Number of resources by the difference between a tree and the one before it.
#[derive(Clone, Copy, Default)]
struct Counts {
    created: u32,
    updated: u32,
    deleted: u32,
    unchanged: u32,
}

impl Api {
    pub(super) async fn apply(
        &self,
        principal: &Principal,
        request: v1::ApplyLoadBalancerRequest,
    ) -> Result<v1::ApplyLoadBalancerResponse, Status> {
        let result = self.try_apply(principal, &request).await;
        let given = request.tree.as_ref().and_then(|tree| tree.load_balancer.as_ref());
        let operation = if request.dry_run { "apply (dry run)" } else { "apply" };
        let id = given.map_or("", |load_balancer| load_balancer.id.as_str());
        let made = |answer: &v1::ApplyLoadBalancerResponse| {
            let root = answer.tree.as_ref().and_then(|tree| tree.load_balancer.as_ref());
            root.map(|root| root.id.clone()).unwrap_or_default()
        };
        let line = Audit { principal, resource: Kind::LoadBalancer.words(), operation, id };
        self.audit(&line, &result.as_ref().map(made));
        result
    }

    async fn try_apply(
        &self,
        principal: &Principal,
        request: &v1::ApplyLoadBalancerRequest,
    ) -> Result<v1::ApplyLoadBalancerResponse, Status> {
        let given = request.tree.clone().unwrap_or_default();
        let mut violations = Violations::default();
        let (root, chosen_id) = self.target(principal, given.load_balancer.as_ref(), &mut violations);
        if !violations.is_empty() {
            // The target is unknown; violations below it are reported all the same.
            let mut below = Violations::default();
            let _ = self.planned(principal, &given, None, root, false, &mut below);
            violations.extend_outside("tree.load_balancer", below);
        }
        violations.check()?;
        let edit = |before: Option<&Tree>| {
            if before.is_some_and(|before| !principal.sees(&before.load_balancer.spec)) {
                return Err(not_found(Kind::LoadBalancer, root));
            }
            if let Some(before) = before {
                edit::precondition(Kind::LoadBalancer, &before.load_balancer, &request.etag)?;
            }
            let mut violations = Violations::default();
            let planned = self.planned(principal, &given, before, root, chosen_id, &mut violations);
            let (after, held) = match planned {
                Ok(planned) => planned,
                Err(error) => {
                    violations.check()?;
                    return Err(error);
                }
            };
            violations.check()?;
            self.0.limits.check(&after)?;
            let counts = count(before, &after);
            Ok((Some(after), (counts, held)))
        };
        let (after, counts) = if request.dry_run {
            let before = self.0.model.tree(root);
            let (after, (counts, _held)) = edit(before.as_deref())?;
            (after, counts)
        } else {
            let (after, (counts, _held)) = self.write(root, edit).await?;
            (after, counts)
        };
        let tree = after.ok_or_else(|| not_found(Kind::LoadBalancer, root))?;
        let Counts { created, updated, deleted, unchanged } = counts;
        let tree = Some(self.view(Arc::new(tree)).tree());
        Ok(v1::ApplyLoadBalancerResponse { tree, created, updated, deleted, unchanged })
    }

    /// Returns the id of the load balancer that a tree is for, and whether the client chose it.
    fn target(
        &self,
        principal: &Principal,
        given: Option<&v1::LoadBalancer>,
        violations: &mut Violations,
    ) -> (Uuid, bool) {
        let mut form = Form::new("tree.load_balancer", &self.0.limits, violations);
        let given = given.cloned().unwrap_or_default();
        let mut target = None;
        if given.id.is_empty() && !given.name.is_empty() {
            let (org_id, project_id) = convert::owner(&given, principal, &mut form);
            let owned = |tree: &Arc<Tree>| {
                let spec = &tree.load_balancer.spec;
                spec.org_id == org_id && spec.project_id == project_id && !tree.load_balancer.deleting
            };
            let named: Vec<Uuid> = self
                .0
                .model
                .named(&given.name)
                .iter()
                .filter(|tree| owned(tree))
                .map(|tree| tree.id())
                .collect();
            match named.as_slice() {
                [] => {}
                [one] => target = Some(*one),
                many => {
                    let ids: Vec<String> = many.iter().map(ToString::to_string).collect();
                    form.invalid(
                        "name",
                        format!("names {} load balancers, give the id: {}", many.len(), ids.join(", ")),
                    );
                }
            }
        }
        match target {
            Some(id) => (id, false),
            None => new_id(&mut form, &given.id),
        }
    }

    /// The desired tree, in place of `before`.
    fn planned(
        &self,
        principal: &Principal,
        given: &v1::LoadBalancerTree,
        before: Option<&Tree>,
        id: Uuid,
        chosen_id: bool,
        violations: &mut Violations,
    ) -> Result<(Tree, Held), Status> {
        let wire = given.load_balancer.clone().unwrap_or_default();
        let mut form = Form::new("tree.load_balancer", &self.0.limits, violations);
        let (mut tree, held, error) = match before {
            Some(before) => {
                let wire = v1::LoadBalancer {
                    id: String::new(),
                    admin_state_up: Some(wire.admin_state_up.unwrap_or(true)),
                    ..wire
                };
                let spec = self.replaced_root(before, &wire, &mut form)?;
                (with_root(before, spec), Held::default(), None)
            }
            None => {
                if let Some(kind) = self.0.model.kind_of(id) {
                    form.violations
                        .taken("tree.load_balancer.id", format!("{id} is the id of a {}", kind.words()));
                }
                // A failure here must not hide violations in the rest of the tree.
                match self.new_root(&wire, id, principal, &mut form) {
                    Ok((spec, held)) => {
                        (Tree::new(Record::new(id, Identity { request: None, chosen_id }, spec)), held, None)
                    }
                    Err(error) => {
                        let mut scratch = Violations::default();
                        let mut form = Form::new("", &self.0.limits, &mut scratch);
                        let (org_id, project_id) = convert::owner(&wire, principal, &mut form);
                        let spec = LoadBalancer {
                            common: form.common("", "", &[]),
                            org_id,
                            project_id,
                            network: Uuid::nil(),
                            vips: Vec::new(),
                            admin_state_up: true,
                        };
                        (Tree::new(Record::new(id, Identity::default(), spec)), Held::default(), Some(error))
                    }
                }
            }
        };

        let mut kept = BTreeSet::new();
        let pools = self.pools(given, &mut tree, &mut kept, violations);
        self.listeners(given, &pools, &mut tree, &mut kept, violations);
        each_kind!(T => drop_others::<T>(&mut tree, &kept));
        match error {
            // Checks that depend on the addresses are impossible without them.
            Some(error) => Err(error),
            None => {
                check_all(given, &tree, &self.0.limits, violations);
                Ok((tree, held))
            }
        }
    }

    /// The load balancer's specification from the tree: an omitted field takes its default, addresses stay.
    fn replaced_root(
        &self,
        before: &Tree,
        wire: &v1::LoadBalancer,
        form: &mut Form<'_>,
    ) -> Result<LoadBalancer, Status> {
        let mut wire = wire.clone();
        let spec = &before.load_balancer.spec;
        let keep = |text: &mut String, stored: String| {
            if text.is_empty() {
                *text = stored;
            }
        };
        keep(&mut wire.vip_address, spec.vips.first().map(ToString::to_string).unwrap_or_default());
        keep(&mut wire.network, spec.network.to_string());
        self.overlaid_root(before, wire, &Mask::All, form)
    }

    /// Puts the given pools with their backends and health checks into `tree`; returns the pools' ids by id
    /// and name.
    fn pools(
        &self,
        given: &v1::LoadBalancerTree,
        tree: &mut Tree,
        kept: &mut BTreeSet<Uuid>,
        violations: &mut Violations,
    ) -> BTreeMap<String, Uuid> {
        let mut named = BTreeMap::new();
        for (index, pool_tree) in given.pools.iter().enumerate() {
            let at = format!("tree.pools[{index}]");
            let wire = pool_tree.pool.clone().unwrap_or_default();
            let mut form = Form::new(format!("{at}.pool"), &self.0.limits, violations);
            let same_name = |pool: &Pool, stored: &Pool| {
                !pool.common.name.is_empty() && stored.common.name == pool.common.name
            };
            let root = tree.id();
            let id = put::<Pool>(tree, &wire, root, same_name, kept, &mut form);
            if !wire.name.is_empty() && named.insert(wire.name.clone(), id).is_some() {
                form.invalid("name", "two pools of the tree have it: they cannot be told apart");
            }
            named.insert(id.to_string(), id);
            for (index, wire) in pool_tree.backends.iter().enumerate() {
                let mut form = Form::new(format!("{at}.backends[{index}]"), &self.0.limits, violations);
                let same = |backend: &Backend, stored: &Backend| {
                    stored.pool_id == id && stored.address == backend.address
                };
                put::<Backend>(tree, wire, id, same, kept, &mut form);
            }
            if let Some(wire) = &pool_tree.health_check {
                let mut form = Form::new(format!("{at}.health_check"), &self.0.limits, violations);
                let same = |_: &HealthCheck, stored: &HealthCheck| stored.pool_id == id;
                put::<HealthCheck>(tree, wire, id, same, kept, &mut form);
            }
        }
        named
    }

    fn listeners(
        &self,
        given: &v1::LoadBalancerTree,
        pools: &BTreeMap<String, Uuid>,
        tree: &mut Tree,
        kept: &mut BTreeSet<Uuid>,
        violations: &mut Violations,
    ) {
        for (index, wire) in given.listeners.iter().enumerate() {
            let mut form = Form::new(format!("tree.listeners[{index}]"), &self.0.limits, violations);
            let mut wire = wire.clone();
            if !wire.default_pool_id.is_empty() {
                match pools.get(&wire.default_pool_id) {
                    Some(id) => wire.default_pool_id = id.to_string(),
                    None => {
                        form.invalid(
                            "default_pool_id",
                            format!(
                                "{:?} is neither id nor name of a pool of the tree",
                                wire.default_pool_id
                            ),
                        );
                        wire.default_pool_id.clear();
                    }
                }
            }
            let same = |listener: &Listener, stored: &Listener| {
                (listener.protocol, listener.port) == (stored.protocol, stored.port)
            };
            let root = tree.id();
            put::<Listener>(tree, &wire, root, same, kept, &mut form);
        }
    }
}

/// Upserts a given resource: replaces the one with its id, else the one that is the `same`, else adds a new
/// one.
fn put<T: Exposed>(
    tree: &mut Tree,
    wire: &T::Wire,
    parent: Uuid,
    same: impl Fn(&T, &T) -> bool,
    kept: &mut BTreeSet<Uuid>,
    form: &mut Form<'_>,
) -> Uuid {
    let spec = T::parse(wire, parent, form);
    let given_parent = T::wire_parent(wire);
    if !given_parent.is_empty() && given_parent.parse() != Ok(parent) {
        form.invalid(T::PARENT_FIELD, format!("is {parent} by its place in the tree: leave it out"));
    }
    let given_id = T::wire_id(wire);
    let matching = match given_id {
        "" => {
            let mut alive = T::of(tree).values().filter(|record| !record.deleting);
            alive.find(|record| same(&spec, &record.spec)).cloned()
        }
        id => id.parse().ok().and_then(|id: Uuid| T::of(tree).get(&id).cloned()),
    };
    let Some(before) = matching else {
        let (id, chosen_id) = new_id(form, given_id);
        let record = Record::new(id, Identity { request: None, chosen_id }, spec);
        if !kept.insert(id) {
            form.invalid("id", "is given twice");
        }
        T::of_mut(tree).insert(id, Arc::new(record));
        return id;
    };
    if before.deleting {
        form.violations.taken(form.path("id"), format!("{} is being deleted", before.id));
    }
    for field in before.spec.immutable_differences(&spec) {
        form.invalid(field, how_to_replace(T::KIND));
    }
    if !kept.insert(before.id) {
        form.invalid(T::PARENT_FIELD, format!("means the same {} as an earlier entry", T::KIND.words()));
    }
    *tree = edit::change(tree, &before, spec);
    before.id
}

/// Advice for a change to an immutable field of a resource in the tree. Omitting its id does not help where
/// something else would match it.
fn how_to_replace(kind: Kind) -> &'static str {
    match kind {
        Kind::Pool => {
            "cannot be changed: another pool, with another name and without this id, can take its place"
        }
        Kind::HealthCheck => "cannot be changed: delete the health check first, then apply the tree",
        Kind::LoadBalancer | Kind::Listener | Kind::Backend => {
            "cannot be changed: leave the id out to replace the resource"
        }
    }
}

/// Marks the resources that were not given again as deleted.
fn drop_others<T: Resource>(tree: &mut Tree, kept: &BTreeSet<Uuid>) {
    for (id, record) in T::of_mut(tree) {
        if !kept.contains(id) && !record.deleting {
            *record = Arc::new(record.deleted());
        }
    }
}

/// Checks constraints on the rest of the tree, each violation with its path in the request.
fn check_all(given: &v1::LoadBalancerTree, tree: &Tree, limits: &super::Limits, violations: &mut Violations) {
    // Only a tree that was parsed without violations is worth checking.
    if !violations.is_empty() {
        return;
    }
    fn check<T: Exposed>(
        tree: &Tree,
        place: impl Fn(&T) -> String,
        limits: &super::Limits,
        violations: &mut Violations,
    ) {
        for record in T::of(tree).values().filter(|record| !record.deleting) {
            let mut form = Form::new(place(&record.spec), limits, violations);
            record.spec.check(record.id, tree, &mut form);
        }
    }
    let pool_at = |id: Uuid| {
        let name = tree.pools.get(&id).map(|pool| pool.spec.common.name.clone()).unwrap_or_default();
        let same = |pool: &v1::Pool| pool.id.parse() == Ok(id) || (!name.is_empty() && pool.name == name);
        given.pools.iter().position(|entry| entry.pool.as_ref().is_some_and(same)).unwrap_or(0)
    };
    let listener_at = |listener: &Listener| {
        let index = given.listeners.iter().position(|wire| wire.port == u32::from(listener.port));
        format!("tree.listeners[{}]", index.unwrap_or(0))
    };
    let backend_at = |backend: &Backend| {
        let pool = pool_at(backend.pool_id);
        let same = |wire: &v1::Backend| {
            wire.address.parse() == Ok(backend.address.ip()) && wire.port == u32::from(backend.address.port())
        };
        let index = given.pools.get(pool).and_then(|entry| entry.backends.iter().position(same));
        format!("tree.pools[{pool}].backends[{}]", index.unwrap_or(0))
    };
    let check_at = |check: &HealthCheck| format!("tree.pools[{}].health_check", pool_at(check.pool_id));
    check::<Listener>(tree, listener_at, limits, violations);
    check::<Backend>(tree, backend_at, limits, violations);
    check::<HealthCheck>(tree, check_at, limits, violations);
}

fn count(before: Option<&Tree>, after: &Tree) -> Counts {
    fn below<T: Resource>(before: Option<&Tree>, after: &Tree, counts: &mut Counts) {
        for (id, record) in T::of(after) {
            add(before.and_then(|before| T::of(before).get(id)), record, counts);
        }
    }
    fn add<T: PartialEq>(old: Option<&Arc<Record<T>>>, new: &Arc<Record<T>>, counts: &mut Counts) {
        match old {
            None => counts.created += 1,
            Some(old) if old.deleting => {}
            Some(_) if new.deleting => counts.deleted += 1,
            Some(old) if old == new => counts.unchanged += 1,
            Some(_) => counts.updated += 1,
        }
    }
    let mut counts = Counts::default();
    add(before.map(|before| &before.load_balancer), &after.load_balancer, &mut counts);
    each_kind!(T => below::<T>(before, after, &mut counts));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_changed_says_a_way_that_leads_on() {
        // Pools are matched by name and health checks by pool: without ids they are the same resources.
        assert!(how_to_replace(Kind::Pool).contains("another name"));
        assert!(how_to_replace(Kind::HealthCheck).contains("delete"));
        assert!(how_to_replace(Kind::Backend).contains("leave the id out"));
    }
}
