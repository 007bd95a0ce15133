//! Backends that nodes leave out by passive health checks, for display.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::status::EjectedBackend;

/// Age of a report above which it is dropped: the node has no connections to the backend any more, or is another process.
/// Nodes report every 5 s.
const FRESH: Duration = Duration::from_secs(20);

/// Backends that are left out at this moment, by tree, backend and node.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Ejections {
    trees: HashMap<Uuid, BTreeMap<Uuid, BTreeMap<String, HeardEjection>>>,
}

#[derive(Debug)]
struct HeardEjection {
    ejection: EjectedBackend,
    at: Instant,
}

impl Ejections {
    /// Records what a node says of a backend; `None`: it does not leave it out. Returns true if that is news.
    pub(in crate::fleet) fn record(
        &mut self,
        tree: Uuid,
        backend: Uuid,
        node: &str,
        ejection: Option<EjectedBackend>,
        now: Instant,
    ) -> bool {
        let Some(ejection) = ejection else {
            return self.drop_where(tree, |id, other, _| *id == backend && other == node);
        };
        let nodes = self.trees.entry(tree).or_default().entry(backend).or_default();
        let before = nodes.insert(node.to_owned(), HeardEjection { ejection: ejection.clone(), at: now });
        before.is_none_or(|before| before.ejection != ejection)
    }

    /// Drops what a node has not repeated for a while. Returns the trees of these backends.
    pub(in crate::fleet) fn expire(&mut self, node: &str, now: Instant) -> Vec<Uuid> {
        let is_stale = |heard: &HeardEjection| now.saturating_duration_since(heard.at) >= FRESH;
        let trees: Vec<Uuid> = self.trees.keys().copied().collect();
        let mut drop_stale =
            |tree: &Uuid| self.drop_where(*tree, |_, other, heard| other == node && is_stale(heard));
        trees.into_iter().filter(|tree| drop_stale(tree)).collect()
    }

    /// Drops what a node said of the backends of a tree, which it does not serve any more.
    pub(in crate::fleet) fn leave(&mut self, tree: Uuid, node: &str) {
        self.drop_where(tree, |_, other, _| other == node);
    }

    /// Forgets backends of a tree that are gone.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        self.drop_where(tree, |backend, _, _| !is_there(backend));
    }

    /// Backends of a tree that are left out, by node.
    pub(in crate::fleet) fn of(&self, tree: Uuid) -> BTreeMap<Uuid, BTreeMap<String, EjectedBackend>> {
        let shown = |nodes: &BTreeMap<String, HeardEjection>| {
            nodes.iter().map(|(node, heard)| (node.clone(), heard.ejection.clone())).collect()
        };
        let backends = self.trees.get(&tree).into_iter().flatten();
        backends.map(|(backend, nodes)| (*backend, shown(nodes))).collect()
    }

    /// True if no node leaves any backend out.
    pub(in crate::fleet) fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Drops some of a tree. Returns true if there were any.
    fn drop_where(&mut self, tree: Uuid, is_void: impl Fn(&Uuid, &str, &HeardEjection) -> bool) -> bool {
        let Some(backends) = self.trees.get_mut(&tree) else { return false };
        let mut has_dropped = false;
        backends.retain(|backend, nodes| {
            let before = nodes.len();
            nodes.retain(|node, heard| !is_void(backend, node, heard));
            has_dropped |= nodes.len() < before;
            !nodes.is_empty()
        });
        if backends.is_empty() {
            self.trees.remove(&tree);
        }
        has_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Uuid = Uuid::from_u128(1);
    const BACKEND: Uuid = Uuid::from_u128(2);

    fn out(until_ms: u64) -> Option<EjectedBackend> {
        Some(EjectedBackend { until_ms, reason: "connection refused".to_owned() })
    }

    #[test]
    fn an_ejection_is_shown_until_its_node_says_otherwise_or_nothing() {
        let (mut ejections, now) = (Ejections::default(), Instant::now());
        assert!(!ejections.record(TREE, BACKEND, "a", None, now) && ejections.is_empty());
        assert!(ejections.record(TREE, BACKEND, "a", out(1), now));
        assert!(!ejections.record(TREE, BACKEND, "a", out(1), now), "no news");
        assert!(ejections.record(TREE, BACKEND, "a", out(2), now));
        assert!(ejections.record(TREE, BACKEND, "b", out(3), now));
        assert_eq!(ejections.of(TREE)[&BACKEND]["a"].until_ms, 2);
        assert!(ejections.record(TREE, BACKEND, "a", None, now));
        assert!(!ejections.record(TREE, BACKEND, "a", None, now));
        assert!(ejections.expire("a", now + FRESH).is_empty() && ejections.expire("b", now).is_empty());
        assert_eq!(ejections.expire("b", now + FRESH), [TREE]);
        assert!(ejections.of(TREE).is_empty() && ejections.is_empty());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut ejections, now) = (Ejections::default(), Instant::now());
        for (backend, node) in [(BACKEND, "a"), (BACKEND, "b"), (Uuid::nil(), "a")] {
            ejections.record(TREE, backend, node, out(1), now);
        }
        ejections.leave(TREE, "b");
        ejections.retain(TREE, |backend| *backend == BACKEND);
        let left = ejections.of(TREE);
        assert_eq!(left.keys().collect::<Vec<_>>(), [&BACKEND]);
        assert_eq!(left[&BACKEND].keys().collect::<Vec<_>>(), ["a"]);
        ejections.retain(TREE, |_| false);
        assert!(ejections.is_empty());
    }
}
