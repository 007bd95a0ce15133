//! Ids that more than one stored resource has. No write makes any, but a store that was damaged or edited can hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::resources::Tree;

/// Load balancers by the ids that they share, or have for two resources of their own.
pub(super) fn shared_ids(trees: &[Arc<Tree>]) -> BTreeMap<Uuid, BTreeSet<Uuid>> {
    let ids = |tree: &Tree| tree.children().map(|(_, id)| id).chain([tree.id()]).collect::<Vec<_>>();
    let mut all: Vec<Uuid> = trees.iter().flat_map(|tree| ids(tree)).collect();
    all.sort_unstable();
    let twice = all.windows(2).filter_map(|pair| match pair {
        [one, other] => (one == other).then_some(*one),
        _ => None,
    });
    let mut shared: BTreeMap<Uuid, BTreeSet<Uuid>> = twice.map(|id| (id, BTreeSet::new())).collect();
    if shared.is_empty() {
        return shared;
    }
    for tree in trees {
        for id in ids(tree) {
            if let Some(holders) = shared.get_mut(&id) {
                holders.insert(tree.id());
            }
        }
    }
    shared
}

/// Sentence for whoever operates the store.
pub(crate) fn shared_id_text(id: Uuid, holders: &BTreeSet<Uuid>) -> String {
    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
    format!(
        "resources of load balancer {} have the one id {id}, and only one of them can be reached: delete that one, restart the \
         plugins, and create it again",
        holders.join(" and ")
    )
}
