//! Whole trees: `ApplyLoadBalancer` and `GetStatusTree`.

use std::borrow::Cow;

use fiberlb_proto::v1;

use super::form;
use super::wire::Wire;
use crate::api::{Applied, ApplyRequest, PoolDraft, ResourceDraft, TreeDraft, TreeView};
use crate::resources::{Form, Pool, Record, Tree, Violations, WeightedPools};
use std::sync::Arc;

/// Reads a request to apply a whole tree.
pub(super) fn apply_request(request: v1::ApplyLoadBalancerRequest) -> ApplyRequest {
    let mut violations = Violations::default();
    let tree = tree_draft(request.tree.unwrap_or_default(), &mut violations);
    ApplyRequest { tree, etag: request.etag, validate_only: request.validate_only, violations }
}

fn tree_draft(tree: v1::LoadBalancerTree, violations: &mut Violations) -> TreeDraft {
    let load_balancer = tree.load_balancer.unwrap_or_default();
    let mut draft = TreeDraft {
        load_balancer: given("tree.load_balancer".to_owned(), &load_balancer, violations),
        listeners: Vec::new(),
        pools: Vec::new(),
    };
    for (index, listener) in tree.listeners.into_iter().enumerate() {
        draft.listeners.push(listener_of(format!("tree.listeners[{index}]"), listener, violations));
    }
    for (index, pool) in tree.pools.into_iter().enumerate() {
        draft.pools.push(pool_of(&format!("tree.pools[{index}]"), pool, violations));
    }
    draft
}

/// A listener, whose pools may be named.
fn listener_of(
    at: String,
    mut listener: v1::Listener,
    violations: &mut Violations,
) -> ResourceDraft<crate::resources::Listener> {
    let pool = std::mem::take(&mut listener.default_pool_id);
    let weighted = listener.weighted_pools.iter_mut().take(WeightedPools::MOST).enumerate();
    let weighted: Vec<(Cow<'static, str>, String)> = weighted
        .map(|(place, pool)| (WeightedPools::path(place).into(), std::mem::take(&mut pool.pool_id)))
        .collect();
    let mut given = given(at, &listener, violations);
    let named = [("default_pool_id".into(), pool)].into_iter().chain(weighted);
    given.named.extend(named.filter(|(_, pool)| !pool.is_empty()));
    given
}

fn pool_of(at: &str, tree: v1::PoolTree, violations: &mut Violations) -> PoolDraft {
    let pool = given(format!("{at}.pool"), &tree.pool.unwrap_or_default(), violations);
    let mut backends = Vec::new();
    for (index, backend) in tree.backends.iter().enumerate() {
        backends.push(given(format!("{at}.backends[{index}]"), backend, violations));
    }
    let health_check = tree.health_check.map(|check| given(format!("{at}.health_check"), &check, violations));
    PoolDraft { pool, backends, health_check }
}

fn given<W: Wire>(at: String, wire: &W, violations: &mut Violations) -> ResourceDraft<W::Kind> {
    let mut form = Form::new(at.clone(), violations);
    let id = form::optional_uuid(&mut form, "id", wire.id());
    let draft = wire.draft(&mut form);
    ResourceDraft { id, draft, at, named: Vec::new() }
}

/// A tree that was applied.
pub(super) fn applied(applied: &Applied) -> v1::ApplyLoadBalancerResponse {
    let Applied { view, created, updated, deleted, unchanged } = applied;
    v1::ApplyLoadBalancerResponse {
        tree: Some(rendered(view)),
        created: *created,
        updated: *updated,
        deleted: *deleted,
        unchanged: *unchanged,
    }
}

/// A whole tree with its statuses.
pub(super) fn rendered(view: &TreeView) -> v1::LoadBalancerTree {
    let tree = &view.tree;
    // Every kind is named, so that none is overlooked. Backends and checks stand with their pools.
    let Tree { load_balancer, listeners, pools, backends: _, health_checks: _, head: _ } = &**tree;
    let pool_tree = |pool: &Arc<Record<Pool>>| v1::PoolTree {
        pool: Some(Wire::rendered(&view.observed(pool))),
        backends: tree.backends_of(pool.id).map(|backend| Wire::rendered(&view.observed(backend))).collect(),
        health_check: tree.health_check_of(pool.id).map(|check| Wire::rendered(&view.observed(check))),
    };
    v1::LoadBalancerTree {
        load_balancer: Some(Wire::rendered(&view.observed(load_balancer))),
        listeners: listeners.values().map(|listener| Wire::rendered(&view.observed(listener))).collect(),
        pools: pools.values().map(pool_tree).collect(),
        etag: tree.etag(),
    }
}
