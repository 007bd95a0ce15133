//! Resources with their observed state.

use std::sync::Arc;

use crate::resources::{Record, Tree};
use crate::status::{HasStatus, Observation, Status, Statuses};

/// A resource with its status.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed<T: HasStatus> {
    /// The stored resource.
    pub record: Arc<Record<T>>,
    /// Its status.
    pub status: Status,
    /// State that its kind has beside the status.
    pub detail: T::Detail,
}

/// A load balancer with all that is below it, and its observed state.
#[derive(Clone, Debug)]
pub struct TreeView {
    /// The stored tree.
    pub tree: Arc<Tree>,
    /// Last observation of it.
    pub observation: Arc<Observation>,
    /// Dependency that carrying it out waits for.
    pub waiting_for: Option<String>,
    /// Name of its network now; empty where it has none.
    pub network_name: String,
}

impl TreeView {
    /// Statuses of the tree.
    pub fn statuses(&self) -> Statuses<'_> {
        Statuses::new(&self.tree, &self.observation, self.waiting_for.as_deref())
    }

    /// A record of the tree with its status.
    pub fn observed<T: HasStatus>(&self, record: &Arc<Record<T>>) -> Observed<T> {
        let status = T::status(&self.statuses(), record);
        let detail = T::detail(&self.observation, &self.network_name, record);
        Observed { record: Arc::clone(record), status, detail }
    }
}
