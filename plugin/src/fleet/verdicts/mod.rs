//! What all nodes say of all backends, and what that comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::status::{Health, Verdict, merge};

/// What all nodes say of all backends, and what that comes to.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Verdicts {
    said: HashMap<Uuid, BTreeMap<String, Said>>,
    /// Kept when what it came from is gone: silence changes nothing.
    health: HashMap<Uuid, Health>,
}

#[derive(Debug)]
struct Said {
    verdict: Verdict,
    /// The backend's network moves away from the node: it counts only as long as no other node says anything.
    is_leaving: bool,
}

impl Verdicts {
    /// Notes what a node says of a backend, whose network moves away from it if `is_leaving`. Answers whether the backend
    /// counts as something else now.
    pub(in crate::fleet) fn judge(
        &mut self,
        backend: Uuid,
        node: &str,
        verdict: Verdict,
        is_leaving: bool,
    ) -> bool {
        self.said.entry(backend).or_default().insert(node.to_owned(), Said { verdict, is_leaving });
        self.merge(backend)
    }

    /// Notes whether a backend's network moves away from a node. Answers whether the backend counts as something else now.
    pub(in crate::fleet) fn leave(&mut self, backend: Uuid, node: &str, is_leaving: bool) -> bool {
        let Some(said) = self.said.get_mut(&backend).and_then(|nodes| nodes.get_mut(node)) else {
            return false;
        };
        said.is_leaving = is_leaving;
        self.merge(backend)
    }

    /// Whether a backend would be without a verdict if a node left, which has one.
    pub(in crate::fleet) fn needs(&self, backend: Uuid, node: &str) -> bool {
        let Some(nodes) = self.said.get(&backend) else { return false };
        let stays = |(id, said): (&String, &Said)| id != node && !said.is_leaving;
        nodes.contains_key(node) && !nodes.iter().any(stays)
    }

    /// Forgets what a node said of backends that are not in `known`. Answers with those that count as something else now.
    pub(in crate::fleet) fn void_others(&mut self, node: &str, known: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let mut void = Vec::new();
        for (backend, nodes) in &mut self.said {
            if !known.contains(backend) && nodes.remove(node).is_some() {
                void.push(*backend);
            }
        }
        void.into_iter().filter(|backend| self.merge(*backend)).collect()
    }

    /// Forgets what a node said of a backend.
    pub(in crate::fleet) fn void(&mut self, backend: Uuid, node: &str) {
        if self.said.get_mut(&backend).is_some_and(|nodes| nodes.remove(node).is_some()) {
            self.merge(backend);
        }
    }

    /// Takes over what a backend counted as before anybody said anything.
    pub(in crate::fleet) fn remember(&mut self, backend: Uuid, health: &Health) {
        if matches!(health, Health::Up | Health::Degraded(_) | Health::Down(_)) {
            self.health.insert(backend, health.clone());
        }
    }

    /// Forgets a backend.
    pub(in crate::fleet) fn forget(&mut self, backend: Uuid) {
        self.said.remove(&backend);
        self.health.remove(&backend);
    }

    /// What a backend counts as.
    pub(in crate::fleet) fn health(&self, backend: Uuid) -> Health {
        self.health.get(&backend).cloned().unwrap_or_default()
    }

    /// What nodes say of a backend.
    pub(in crate::fleet) fn of(&self, backend: Uuid) -> impl Iterator<Item = (&str, &Verdict)> {
        self.said.get(&backend).into_iter().flatten().map(|(node, said)| (node.as_str(), &said.verdict))
    }

    /// What counts of it.
    fn counting(&self, backend: Uuid) -> impl Iterator<Item = (&str, &Verdict)> {
        let said = || self.said.get(&backend).into_iter().flatten();
        let all_leave = said().all(|(_, said)| said.is_leaving);
        let counts = said().filter(move |(_, said)| all_leave || !said.is_leaving);
        counts.map(|(node, said)| (node.as_str(), &said.verdict))
    }

    fn merge(&mut self, backend: Uuid) -> bool {
        let before = self.health.get(&backend);
        let after = merge(self.counting(backend), before);
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
    fn what_was_known_before_stays_until_somebody_says_otherwise() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        verdicts.remember(backend, &Health::NotChecked);
        assert_eq!(verdicts.health(backend), Health::Unknown);
        verdicts.remember(backend, &Health::Down("refused".into()));
        assert_eq!(verdicts.health(backend), Health::Down("refused".into()));
        assert!(verdicts.judge(backend, "a", verdict(true), false));
        assert_eq!(verdicts.health(backend), Health::Up);
    }

    #[test]
    fn a_new_snapshot_of_a_node_voids_what_else_it_said() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        assert!(verdicts.judge(backend, "a", verdict(false), false));
        assert!(!verdicts.judge(backend, "a", verdict(false), false), "nothing new");
        assert!(verdicts.judge(backend, "b", verdict(true), false));
        assert!(verdicts.void_others("a", &BTreeSet::from([backend])).is_empty());
        assert_eq!(verdicts.void_others("a", &BTreeSet::new()), [backend]);
        assert!(verdicts.void_others("a", &BTreeSet::new()).is_empty());
        assert_eq!(verdicts.health(backend), Health::Up);
        assert!(verdicts.void_others("b", &BTreeSet::new()).is_empty(), "nobody says anything: it stays");
        assert_eq!(verdicts.health(backend), Health::Up);
    }

    #[test]
    fn what_a_node_says_that_the_network_leaves_counts_until_another_one_speaks() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        verdicts.judge(backend, "a", verdict(true), false);
        assert!(!verdicts.leave(backend, "a", true), "it is the only one");
        assert!(verdicts.needs(backend, "a"));
        assert!(verdicts.judge(backend, "a", verdict(false), true), "it goes on checking");
        assert!(verdicts.judge(backend, "b", verdict(true), false));
        assert_eq!((verdicts.health(backend), verdicts.needs(backend, "a")), (Health::Up, false));
        assert!(!verdicts.judge(backend, "a", verdict(true), true));
        assert!(!verdicts.judge(backend, "a", verdict(false), true));
        assert!(verdicts.leave(backend, "a", false), "it stays after all, and is heard again");
        assert!(matches!(verdicts.health(backend), Health::Degraded(_)));
    }
}
