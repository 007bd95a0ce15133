//! Last observation of a load balancer by the reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::FleetView;
use crate::datapath::{Carrier, Decision};
use crate::resources::Tree;

/// Last observation of a load balancer by the reconciler. On a shared store its stored form is a
/// [`StatusRecord`](super::StatusRecord).
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// Tree that is applied in OVN.
    pub applied: Option<Arc<Tree>>,
    /// Carriers, refusals and fleet view with which it is applied.
    pub carried: Arc<Carried>,
    /// Failure of the last attempt at a newer tree.
    pub failure: Option<ApplyFailure>,
    /// Newest generations that were in force, where an older one or none is now, by id.
    pub reached: BTreeMap<Uuid, u64>,
}

/// Result of applying a tree.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// Listeners that cannot be applied, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<Uuid, String>,
    /// Carriers of its listeners, where they are not OVN.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub decisions: BTreeMap<Uuid, Decision>,
    /// State that the proxy nodes report.
    pub view: FleetView,
    /// Backends without a verdict that stay in rotation, because they were in it before.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unjudged: BTreeSet<Uuid>,
}

impl Observation {
    /// Compares two observations; trees must be the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_tree = match (&self.applied, &other.applied) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_tree
            && self.carried == other.carried
            && self.failure == other.failure
            && self.reached == other.reached
    }

    /// Carrier of a listener; `None` if the listener is refused.
    pub fn decision(&self, listener: Uuid) -> Option<&Decision> {
        if self.carried.refused.contains_key(&listener) {
            return None;
        }
        Some(self.carried.decisions.get(&listener).unwrap_or(&Decision::OVN))
    }

    /// Proxy nodes that receive new connections for a listener.
    pub fn proxies_of(&self, listener: Uuid) -> impl Iterator<Item = &str> {
        let view = &self.carried.view;
        let is_direct = self.decision(listener).is_some_and(|decision| decision.carrier == Carrier::Direct);
        let is_met = move |id: &str| !is_direct || view.holders.values().any(|holder| holder == id);
        view.serving(listener).map(|node| node.id.as_str()).filter(move |id| is_met(id))
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApplyFailure {
    /// Reason, for the owner of the load balancer.
    pub reason: String,
    /// Time of the next attempt, in milliseconds since 1970.
    pub next_attempt_at: u64,
}
