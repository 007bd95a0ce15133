//! Backends of checked pools, by tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::resources::PoolProtocol;

/// A backend of a checked pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct CheckedBackend {
    /// Its tree.
    pub tree: Uuid,
    /// Time at which it was first seen; `None`: it was no longer new when the plugin started.
    pub since: Option<Instant>,
    /// Time until which no node takes it for good before its first good probe; `None`: it was made long before it was seen.
    pub new_until: Option<Instant>,
    /// Protocol of its pool, which nodes must be able to speak in a check.
    pub protocol: PoolProtocol,
    /// Time within which a node that checks it must have a first verdict.
    pub first_verdict: Duration,
}

/// The backends of checked pools.
#[derive(Debug, Default)]
pub(in crate::fleet) struct CheckedBackends {
    trees: HashMap<Uuid, BTreeSet<Uuid>>,
    backends: HashMap<Uuid, CheckedBackend>,
}

impl CheckedBackends {
    /// Sets the checked backends of a tree; for one that is known only the time for a first verdict changes. Returns those that
    /// are gone.
    pub(in crate::fleet) fn set(
        &mut self,
        tree: Uuid,
        backends: &BTreeMap<Uuid, CheckedBackend>,
    ) -> Vec<Uuid> {
        let before = self.trees.remove(&tree).unwrap_or_default();
        let gone: Vec<Uuid> = before.into_iter().filter(|id| !backends.contains_key(id)).collect();
        for id in &gone {
            self.backends.remove(id);
        }
        for (id, backend) in backends {
            self.backends.entry(*id).or_insert(*backend).first_verdict = backend.first_verdict;
        }
        if !backends.is_empty() {
            self.trees.insert(tree, backends.keys().copied().collect());
        }
        gone
    }

    /// A backend.
    pub(in crate::fleet) fn get(&self, backend: Uuid) -> Option<&CheckedBackend> {
        self.backends.get(&backend)
    }

    /// A backend, to be changed.
    pub(in crate::fleet) fn get_mut(&mut self, backend: Uuid) -> Option<&mut CheckedBackend> {
        self.backends.get_mut(&backend)
    }

    /// The checked backends of a tree.
    pub(in crate::fleet) fn of(&self, tree: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.trees.get(&tree).into_iter().flatten().copied()
    }
}
