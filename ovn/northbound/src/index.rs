//! Indexes: from values in rows to the rows that hold them.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Rows by key; a row may be under several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index<K: Eq + Hash, V> {
    entries: HashMap<K, BTreeSet<V>>,
}

impl<K: Eq + Hash, V> Default for Index<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash, V: Ord + Copy> Index<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.entries.entry(key).or_default().insert(value);
    }

    pub(super) fn remove(&mut self, key: &K, value: V) {
        if let Some(values) = self.entries.get_mut(key) {
            values.remove(&value);
            if values.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> impl Iterator<Item = V> + use<'_, K, V, Q>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries.get(key).into_iter().flatten().copied()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.keys()
    }
}
