//! Resources as the API shows them.

use serde_json::Value;

use crate::kinds::{Fields, Kind};

/// A resource as a plugin shows it.
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) spec: Fields,
    /// Tells a resource from a later one with its id, which a whole-tree write may give again.
    pub(crate) created_at: String,
    pub(crate) generation: u64,
    pub(crate) etag: String,
    pub(crate) is_going: bool,
}

impl Shown {
    pub(crate) fn of(message: &Value) -> Self {
        let mut spec = message.as_object().cloned().unwrap_or_default();
        let id = spec.remove("id").and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default();
        let state = spec.remove("state").unwrap_or_default();
        for output in ["network_name", "datapath_in_force", "datapath_reason", "proxy_node_ids"] {
            spec.remove(output);
        }
        spec.retain(|_, value| !value.is_null());
        let text = |field: &str| state[field].as_str().unwrap_or_default().to_owned();
        Self {
            id,
            spec,
            created_at: text("created_at"),
            generation: text("generation").parse().unwrap_or_default(),
            etag: text("etag"),
            is_going: text("provisioning_status") == "PROVISIONING_STATUS_PENDING_DELETE",
        }
    }
}

/// The resources of a tree.
pub(crate) fn flat(tree: &Value) -> Vec<(Kind, Shown)> {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let mut all = vec![(Kind::LoadBalancer, Shown::of(&tree["load_balancer"]))];
    all.extend(list(tree, "listeners").iter().map(|it| (Kind::Listener, Shown::of(it))));
    for pool in list(tree, "pools") {
        all.push((Kind::Pool, Shown::of(&pool["pool"])));
        all.extend(list(&pool, "backends").iter().map(|it| (Kind::Backend, Shown::of(it))));
        if !pool["health_check"].is_null() {
            all.push((Kind::HealthCheck, Shown::of(&pool["health_check"])));
        }
    }
    all
}
