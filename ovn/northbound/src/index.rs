//! Indexes: from values in rows to the rows that hold them.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Rows by key; a row may be under several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index<K: Eq + Hash, V> {
    entries: HashMap<K, Rows<V>>,
}

/// Rows of one key. Most keys have one row, and a set of its own for each would be most of an index's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rows<V> {
    One(V),
    /// Two or more.
    Many(BTreeSet<V>),
}

impl<K: Eq + Hash, V> Default for Index<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash, V: Ord + Copy> Index<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) {
        let rows = self.entries.entry(key).or_insert(Rows::One(value));
        match rows {
            Rows::One(one) if *one == value => {}
            Rows::One(one) => *rows = Rows::Many(BTreeSet::from([*one, value])),
            Rows::Many(many) => {
                many.insert(value);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K, value: V) {
        let Some(rows) = self.entries.get_mut(key) else { return };
        match rows {
            Rows::One(one) if *one == value => {
                self.entries.remove(key);
            }
            Rows::One(_) => {}
            Rows::Many(many) => {
                many.remove(&value);
                if let (1, Some(one)) = (many.len(), many.first()) {
                    *rows = Rows::One(*one);
                }
            }
        }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> impl Iterator<Item = V> + use<'_, K, V, Q>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let (one, many) = match self.entries.get(key) {
            None => (None, None),
            Some(Rows::One(one)) => (Some(*one), None),
            Some(Rows::Many(many)) => (None, Some(many)),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl ExactSizeIterator<Item = &K> {
        self.entries.keys()
    }
}

/// Rows by key, and those of one key by a group: of very many rows with one key, those of a few groups are found at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupedIndex<K: Eq + Hash, G: Eq + Hash, V> {
    entries: HashMap<K, Index<G, V>>,
}

impl<K: Eq + Hash, G: Eq + Hash, V> Default for GroupedIndex<K, G, V> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<K: Eq + Hash, G: Eq + Hash, V: Ord + Copy> GroupedIndex<K, G, V> {
    pub(super) fn insert(&mut self, key: K, group: G, value: V) {
        self.entries.entry(key).or_default().insert(group, value);
    }

    pub(super) fn remove(&mut self, key: &K, group: &G, value: V) {
        if let Some(groups) = self.entries.get_mut(key) {
            groups.remove(group, value);
            if groups.entries.is_empty() {
                self.entries.remove(key);
            }
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&Index<G, V>> {
        self.entries.get(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// An index holds what a map of sets holds, and is equal to any other that holds the same.
        #[test]
        fn rows_come_and_go(steps in prop::collection::vec((any::<bool>(), 0u8..3, 0u8..4), 0..60)) {
            let (mut index, mut model) = (Index::<u8, u8>::default(), BTreeMap::<u8, BTreeSet<u8>>::new());
            for (comes, key, value) in steps {
                if comes {
                    index.insert(key, value);
                    model.entry(key).or_default().insert(value);
                } else {
                    index.remove(&key, value);
                    model.entry(key).or_default().remove(&value);
                }
                model.retain(|_, values| !values.is_empty());
                let held: BTreeMap<u8, BTreeSet<u8>> =
                    index.keys().map(|key| (*key, index.get(key).collect())).collect();
                prop_assert_eq!(&held, &model);
            }
            let mut anew = Index::default();
            model.iter().flat_map(|(key, values)| values.iter().map(|value| (*key, *value)))
                .for_each(|(key, value)| anew.insert(key, value));
            prop_assert_eq!(anew, index);
        }
    }
}
