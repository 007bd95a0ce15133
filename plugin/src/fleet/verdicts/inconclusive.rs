//! Checks of nodes that say nothing about a backend, for display.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::status::InconclusiveCheck;

/// Checks that say nothing at this moment, by backend and node.
#[derive(Debug, Default)]
pub(in crate::fleet) struct InconclusiveChecks {
    checks: HashMap<Uuid, BTreeMap<String, InconclusiveCheck>>,
}

impl InconclusiveChecks {
    /// Records what a node says of a check; `None`: it says something again. Returns true if that is news.
    pub(in crate::fleet) fn record(
        &mut self,
        backend: Uuid,
        node: &str,
        check: Option<InconclusiveCheck>,
    ) -> bool {
        let Some(check) = check else { return self.void(backend, node) };
        let before = self.checks.entry(backend).or_default().insert(node.to_owned(), check.clone());
        before != Some(check)
    }

    /// Drops what a node said of backends that are not in `known`. Returns these.
    pub(in crate::fleet) fn retain_known(&mut self, node: &str, known: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let of_node = self.checks.iter().filter(|(_, nodes)| nodes.contains_key(node));
        let void: Vec<Uuid> =
            of_node.map(|(backend, _)| *backend).filter(|backend| !known.contains(backend)).collect();
        for backend in &void {
            self.void(*backend, node);
        }
        void
    }

    /// Drops what a node said of a backend. Returns true if it had said something.
    pub(in crate::fleet) fn void(&mut self, backend: Uuid, node: &str) -> bool {
        let Some(nodes) = self.checks.get_mut(&backend) else { return false };
        let is_news = nodes.remove(node).is_some();
        if nodes.is_empty() {
            self.checks.remove(&backend);
        }
        is_news
    }

    /// Removes a backend.
    pub(in crate::fleet) fn forget(&mut self, backend: Uuid) {
        self.checks.remove(&backend);
    }

    /// Checks of a backend, by node; `None`: all say something.
    pub(in crate::fleet) fn of(&self, backend: Uuid) -> Option<&BTreeMap<String, InconclusiveCheck>> {
        self.checks.get(&backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_a_node_replaces_what_it_said_and_leaves_what_others_say() {
        let (mut checks, backend) = (InconclusiveChecks::default(), Uuid::from_u128(1));
        let said = |reason: &str| Some(InconclusiveCheck { reason: reason.to_owned(), since_ms: 1 });
        assert!(checks.record(backend, "a", said("no descriptors")));
        assert!(!checks.record(backend, "a", said("no descriptors")), "no news");
        assert!(checks.record(backend, "b", said("no memory")));
        assert!(checks.retain_known("a", &BTreeSet::from([backend])).is_empty());
        assert_eq!(checks.retain_known("a", &BTreeSet::new()), [backend]);
        assert_eq!(checks.of(backend).unwrap().keys().collect::<Vec<_>>(), ["b"]);
        assert!(checks.record(backend, "b", None) && !checks.record(backend, "b", None));
        assert_eq!(checks.of(backend), None);
    }
}
