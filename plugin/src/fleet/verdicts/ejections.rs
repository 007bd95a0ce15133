//! Backends that nodes leave out by passive health checks, for display.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map, hash_map};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::pace::Pace;
use crate::status::EjectedBackend;

/// Age of a report above which it is dropped: the node has no connections to the backend any more, or is another process,
/// or gone. Nodes report every 5 s.
const FRESH: Duration = Duration::from_secs(20);

/// Backends that are left out at this moment, by tree, backend and node.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Ejections {
    trees: HashMap<Uuid, BTreeMap<Uuid, BTreeMap<String, HeardEjection>>>,
    pace: Pace,
}

#[derive(Debug)]
struct HeardEjection {
    ejection: EjectedBackend,
    at: Instant,
}

impl Ejections {
    /// Records what a node says of a backend; `None`: it does not leave it out. Returns true if that is news. Looks at
    /// nothing that others say.
    pub(in crate::fleet) fn record(
        &mut self,
        tree: Uuid,
        backend: Uuid,
        node: &str,
        ejection: Option<EjectedBackend>,
        now: Instant,
    ) -> bool {
        let Some(ejection) = ejection else { return self.remove(tree, backend, node) };
        let nodes = self.trees.entry(tree).or_default().entry(backend).or_default();
        let Some(heard) = nodes.get_mut(node) else {
            nodes.insert(node.to_owned(), HeardEjection { ejection, at: now });
            return true;
        };
        let is_news = heard.ejection != ejection;
        *heard = HeardEjection { ejection, at: now };
        is_news
    }

    /// True if a node leaves a backend out, as far as is known.
    pub(in crate::fleet) fn has(&self, tree: Uuid, backend: Uuid, node: &str) -> bool {
        let nodes = self.trees.get(&tree).and_then(|backends| backends.get(&backend));
        nodes.is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Asks to publish news of a tree. Returns true if that is to be done now; else [`Self::expire`] says when.
    pub(in crate::fleet) fn publish(&mut self, tree: Uuid, now: Instant) -> bool {
        self.pace.ask(tree, now)
    }

    /// Trees that [`Self::expire`] has to look at from time to time.
    pub(in crate::fleet) fn trees(&self) -> BTreeSet<Uuid> {
        self.trees.keys().copied().chain(self.pace.trees()).collect()
    }

    /// Drops what nodes have not repeated of a tree for a while. Returns true if the tree is to be published now.
    pub(in crate::fleet) fn expire(&mut self, tree: Uuid, now: Instant) -> bool {
        let is_stale = |heard: &HeardEjection| now.saturating_duration_since(heard.at) >= FRESH;
        let has_dropped = self.drop_where(tree, |_, _, heard| is_stale(heard));
        if has_dropped { self.pace.ask(tree, now) } else { self.pace.take_due(tree, now) }
    }

    /// Drops what a node said of the backends of a tree, which it does not serve any more.
    pub(in crate::fleet) fn leave(&mut self, tree: Uuid, node: &str) {
        self.drop_where(tree, |_, other, _| other == node);
    }

    /// Drops removed backends of a tree.
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

    fn remove(&mut self, tree: Uuid, backend: Uuid, node: &str) -> bool {
        let hash_map::Entry::Occupied(mut backends) = self.trees.entry(tree) else { return false };
        let btree_map::Entry::Occupied(mut nodes) = backends.get_mut().entry(backend) else { return false };
        let was_out = nodes.get_mut().remove(node).is_some();
        if nodes.get().is_empty() {
            nodes.remove();
        }
        if backends.get().is_empty() {
            backends.remove();
        }
        was_out
    }

    /// Drops some of a tree. Returns true if there were any. Looks at all of it.
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
        assert!(ejections.has(TREE, BACKEND, "b") && !ejections.has(TREE, BACKEND, "a"));
        assert!(!ejections.expire(TREE, now + FRESH / 2) && !ejections.is_empty());
        assert!(ejections.expire(TREE, now + FRESH), "a node that says nothing any more");
        assert!(ejections.of(TREE).is_empty() && ejections.is_empty());
        assert!(!ejections.expire(TREE, now + FRESH * 10) && ejections.trees().is_empty());
    }

    #[test]
    fn what_one_node_says_costs_nothing_for_what_others_leave_out() {
        let (mut ejections, now) = (Ejections::default(), Instant::now());
        let nodes: Vec<String> = (0..50).map(|number| format!("node-{number}")).collect();
        let backends = || (0..2_000).map(Uuid::from_u128);
        for node in &nodes {
            assert!(backends().all(|backend| ejections.record(TREE, backend, node, out(1), now)));
        }
        // A look at all of them for each of these would take hours.
        let began = Instant::now();
        for node in &nodes {
            let others = (2_000..10_000).map(Uuid::from_u128);
            assert!(!others.into_iter().any(|backend| ejections.record(TREE, backend, node, None, now)));
            assert!(backends().all(|backend| ejections.record(TREE, backend, node, None, now)));
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        assert!(ejections.is_empty());
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
