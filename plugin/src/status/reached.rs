//! Generations that were in force: what users were shown of them does not go back. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{HasStatus, Observation};
use crate::resources::{InTree as _, Kind, Tree, every_kind};

impl Observation {
    /// This observation of `tree`, made after `before`. It keeps the generations that `before` showed, where now an
    /// older one is in force, or none: no proxy serves a listener any more, or what is known comes from a plugin that has
    /// seen less.
    #[must_use]
    pub fn after(mut self, before: &Self, tree: &Tree) -> Self {
        let is_same_tree = match (&self.applied, &before.applied) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            _ => false,
        };
        let mut reached: BTreeMap<Uuid, u64> = BTreeMap::new();
        every_kind!(T => {
            let mut keep = |id: Uuid| {
                let shown = before.observed::<T>(id).max(self.observed::<T>(id));
                if T::find(tree, id).is_some() && shown > T::in_force(&self, id) {
                    reached.insert(id, shown);
                }
            };
            before.reached.keys().chain(self.reached.keys()).copied().for_each(&mut keep);
            // Of the same tree only what proxies serve may be older.
            if !is_same_tree || T::KIND == Kind::Listener {
                let seen = before.applied.iter().flat_map(|seen| T::records(seen));
                seen.for_each(|record| keep(record.id));
            }
        });
        self.reached = reached;
        self
    }

    /// Newest generation of a resource that was in force; 0: none.
    pub fn observed<T: HasStatus>(&self, id: Uuid) -> u64 {
        T::in_force(self, id).max(self.reached.get(&id).copied().unwrap_or_default())
    }
}
