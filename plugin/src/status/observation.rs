//! What the reconciler last saw of a load balancer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::View;
use crate::datapath::{Carrier, Decision};
use crate::resources::Tree;

/// What the reconciler last saw of a load balancer. Where several plugins share a store, its stored form is a
/// [`StatusRecord`](super::StatusRecord).
#[derive(Clone, Debug, Default)]
pub struct Observation {
    /// The tree that is carried out now.
    pub applied: Option<Arc<Tree>>,
    /// How.
    pub carried: Arc<Carried>,
    /// Why the last attempt at a newer one failed.
    pub failure: Option<Failure>,
}

/// How a tree is carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// Listeners of it that cannot be carried out, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<Uuid, String>,
    /// Who carries its listeners, where it is not OVN.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub decisions: BTreeMap<Uuid, Decision>,
    /// What the proxy nodes do and say.
    pub view: View,
    /// Backends that nobody has a verdict on yet and that take connections all the same, as they did before.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unjudged: BTreeSet<Uuid>,
}

impl Observation {
    /// Whether it says the same as another, the very same tree included.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_tree = match (&self.applied, &other.applied) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_tree && self.carried == other.carried && self.failure == other.failure
    }

    /// Who carries a listener, as far as it is carried out.
    pub fn decision(&self, listener: Uuid) -> Option<&Decision> {
        if self.carried.refused.contains_key(&listener) {
            return None;
        }
        Some(self.carried.decisions.get(&listener).unwrap_or(&Decision::OVN))
    }

    /// The proxy nodes that new connections for a listener go to.
    pub fn proxies_of(&self, listener: Uuid) -> impl Iterator<Item = &str> {
        let view = &self.carried.view;
        let is_direct = self.decision(listener).is_some_and(|decision| decision.carrier == Carrier::Direct);
        let is_met = move |id: &str| !is_direct || view.holders.values().any(|holder| holder == id);
        view.serving(listener).map(|node| node.id.as_str()).filter(move |id| is_met(id))
    }
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, for the owner of the load balancer.
    pub reason: String,
    /// When the next attempt follows, in milliseconds since 1970.
    pub next_attempt_at: u64,
}
