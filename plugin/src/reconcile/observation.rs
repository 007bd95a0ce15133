//! What the reconciler last saw of a load balancer.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use crate::resources::Tree;

/// What the reconciler last saw of a load balancer. Kept in memory: after a restart it is seen anew.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The tree that OVN carries out now.
    pub applied: Option<Arc<Tree>>,
    /// Listeners of it that OVN cannot carry out, with the reason.
    pub refused: BTreeMap<Uuid, String>,
    /// Why the last attempt at a newer one failed.
    pub failure: Option<Failure>,
}

impl Observation {
    /// Whether it says the same as another, the very same tree included.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_tree = match (&self.applied, &other.applied) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_tree && self.refused == other.refused && self.failure == other.failure
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What went wrong, for the owner of the load balancer.
    pub reason: String,
    /// When the next attempt follows, in milliseconds since 1970.
    pub next_attempt_at: u64,
}
