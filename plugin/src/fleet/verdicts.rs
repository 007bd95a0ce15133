//! What all nodes say of all backends, and what that comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::health::{Health, Verdict, merge};

/// What all nodes say of all backends, and what that comes to.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    said: HashMap<Uuid, BTreeMap<String, Verdict>>,
    /// Kept when what it came from is gone: silence changes nothing.
    health: HashMap<Uuid, Health>,
}

impl Verdicts {
    /// Notes what a node says of a backend. Answers whether the backend counts as something else now.
    pub(super) fn judge(&mut self, backend: Uuid, node: &str, verdict: Verdict) -> bool {
        self.said.entry(backend).or_default().insert(node.to_owned(), verdict);
        self.merge(backend)
    }

    /// Forgets what a node said of backends that are not in `known`. Answers with those that count as something else now.
    pub(super) fn void_others(&mut self, node: &str, known: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut void = Vec::new();
        for (backend, nodes) in &mut self.said {
            if !known.contains(backend) && nodes.remove(node).is_some() {
                void.push(*backend);
            }
        }
        void.into_iter().filter(|backend| self.merge(*backend)).collect()
    }

    /// Forgets what a node said of a backend.
    pub(super) fn void(&mut self, backend: Uuid, node: &str) {
        if self.said.get_mut(&backend).is_some_and(|nodes| nodes.remove(node).is_some()) {
            self.merge(backend);
        }
    }

    /// Forgets a backend.
    pub(super) fn forget(&mut self, backend: Uuid) {
        self.said.remove(&backend);
        self.health.remove(&backend);
    }

    /// What a backend counts as.
    pub(super) fn health(&self, backend: Uuid) -> Health {
        self.health.get(&backend).cloned().unwrap_or_default()
    }

    /// What nodes say of a backend.
    pub(super) fn of(&self, backend: Uuid) -> impl Iterator<Item = (&str, &Verdict)> {
        self.said.get(&backend).into_iter().flatten().map(|(node, verdict)| (node.as_str(), verdict))
    }

    fn merge(&mut self, backend: Uuid) -> bool {
        let before = self.health.get(&backend);
        let after = merge(self.of(backend), before);
        if after == Health::Unknown || before == Some(&after) {
            return false;
        }
        self.health.insert(backend, after);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(up: bool) -> Verdict {
        Verdict { up, reason: if up { String::new() } else { "connection refused".to_owned() }, since_ms: 0 }
    }

    #[test]
    fn a_new_snapshot_of_a_node_voids_what_else_it_said() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        assert!(verdicts.judge(backend, "a", verdict(false)));
        assert!(!verdicts.judge(backend, "a", verdict(false)), "nothing new");
        assert!(verdicts.judge(backend, "b", verdict(true)));
        assert!(verdicts.void_others("a", &BTreeSet::from([backend])).is_empty());
        assert_eq!(verdicts.void_others("a", &BTreeSet::new()), [backend]);
        assert!(verdicts.void_others("a", &BTreeSet::new()).is_empty());
        assert_eq!(verdicts.health(backend), Health::Up);
        assert!(verdicts.void_others("b", &BTreeSet::new()).is_empty(), "nobody says anything: it stays");
        assert_eq!(verdicts.health(backend), Health::Up);
    }
}
