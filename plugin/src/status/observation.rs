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
    /// Carriers that go on serving listeners until the decided ones do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub standing: BTreeMap<Uuid, Carrier>,
    /// State that the proxy nodes report.
    pub view: FleetView,
    /// Backends without a verdict that stay in rotation, because they were in it before.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unjudged: BTreeSet<Uuid>,
    /// Traits of the network that keep OVN from balancing for all clients.
    #[serde(skip_serializing_if = "NetworkCaveats::is_none")]
    pub caveats: NetworkCaveats,
    /// Backends that are VIPs of other load balancers, for which OVN answers.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub chained: BTreeSet<Uuid>,
}

/// Traits of a network that keep OVN from balancing for all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkCaveats {
    /// The switch has a port to a physical network.
    pub is_physical: bool,
    /// The switch, or one behind a router of it, has stateless ACLs.
    pub has_stateless_acls: bool,
}

impl NetworkCaveats {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
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

    /// Carrier of a listener at this moment: the decided one, or the one before until that one serves. `None`: nothing of the
    /// listener is applied, or it is refused and has never served.
    pub fn carrier_in_force(&self, listener: Uuid) -> Option<Carrier> {
        self.applied.as_ref().filter(|tree| tree.listeners.contains_key(&listener))?;
        let standing = self.carried.standing.get(&listener).copied();
        standing.or_else(|| self.decision(listener).map(|decision| decision.carrier))
    }

    /// True if proxies carry a listener that they carry no longer in `after`: until then they keep it.
    pub fn relieves_proxies(&self, after: &Self) -> bool {
        let is_proxied = |it: &Self, listener: Uuid| it.carrier_in_force(listener) == Some(Carrier::Proxy);
        let listeners = self.applied.iter().flat_map(|tree| tree.listeners.keys());
        listeners.into_iter().any(|listener| is_proxied(self, *listener) && !is_proxied(after, *listener))
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
    /// Part of the tree that it concerns.
    #[serde(default, skip_serializing_if = "FailureScope::is_changes")]
    pub scope: FailureScope,
}

/// Resources that a failure is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureScope {
    /// Changes since the applied tree, which goes on to serve.
    #[default]
    Changes,
    /// The whole tree: what was applied is not as it should be, or cannot be changed any more.
    Tree,
    /// The whole tree, of which nothing serves: its network does not exist.
    NetworkGone,
}

impl FailureScope {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_changes(&self) -> bool {
        *self == Self::Changes
    }
}
