//! Verdicts of all nodes on all backends, merged to the health of each.

mod inconclusive;

pub(in crate::fleet) use inconclusive::InconclusiveChecks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use crate::status::{BackendVerdict, Health, merge};

/// Verdicts of all nodes on all backends, merged to the health of each.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Verdicts {
    reported: HashMap<Uuid, BTreeMap<String, Reported>>,
    /// Kept when all verdicts on a backend are dropped: silence changes nothing.
    health: HashMap<Uuid, Health>,
    /// Verdicts that the previous leader published, for display, until the node has reported here.
    published: HashMap<Uuid, BTreeMap<String, BackendVerdict>>,
}

/// Effect of a report on one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fleet) enum VerdictChange {
    /// None: it was known.
    Nothing,
    /// A verdict, which leaves the merged health unchanged.
    Verdict,
    /// The merged health.
    Health,
}

#[derive(Debug)]
struct Reported {
    verdict: BackendVerdict,
    /// The backend's network moves away from the node: its verdict counts only as long as no other node has
    /// one.
    is_leaving: bool,
}

impl Verdicts {
    /// Records the verdict of a node on a backend, whose network moves away from it if `is_leaving`.
    pub(in crate::fleet) fn record(
        &mut self,
        backend: Uuid,
        node: &str,
        verdict: BackendVerdict,
        is_leaving: bool,
    ) -> VerdictChange {
        let is_known = self.of(backend).any(|(id, known)| id == node && *known == verdict);
        self.reported.entry(backend).or_default().insert(node.to_owned(), Reported { verdict, is_leaving });
        match (self.merge(backend), is_known) {
            (true, _) => VerdictChange::Health,
            (false, false) => VerdictChange::Verdict,
            (false, true) => VerdictChange::Nothing,
        }
    }

    /// Records whether a backend's network moves away from a node. Returns true if the health of the backend
    /// changed.
    pub(in crate::fleet) fn leave(&mut self, backend: Uuid, node: &str, is_leaving: bool) -> bool {
        let Some(reported) = self.reported.get_mut(&backend).and_then(|nodes| nodes.get_mut(node)) else {
            return false;
        };
        reported.is_leaving = is_leaving;
        self.merge(backend)
    }

    /// True if a node has a verdict on a backend that nobody would have without it.
    pub(in crate::fleet) fn needs(&self, backend: Uuid, node: &str) -> bool {
        let Some(nodes) = self.reported.get(&backend) else { return false };
        let stays = |(id, reported): (&String, &Reported)| id != node && !reported.is_leaving;
        nodes.contains_key(node) && !nodes.iter().any(stays)
    }

    /// Drops a node's verdicts on backends that are not in `known`, and all that were published before it
    /// reported here. Returns the backends that lost one.
    pub(in crate::fleet) fn retain_known(
        &mut self,
        node: &str,
        known: &BTreeSet<Uuid>,
    ) -> Vec<(Uuid, VerdictChange)> {
        let mut void = HashSet::new();
        for (backend, nodes) in &mut self.reported {
            if !known.contains(backend) && nodes.remove(node).is_some() {
                void.insert(*backend);
            }
        }
        self.published.retain(|backend, nodes| {
            if nodes.remove(node).is_some() && !known.contains(backend) {
                void.insert(*backend);
            }
            !nodes.is_empty()
        });
        let change = |has_changed| if has_changed { VerdictChange::Health } else { VerdictChange::Verdict };
        void.into_iter().map(|backend| (backend, change(self.merge(backend)))).collect()
    }

    /// Drops the verdict of a node on a backend.
    pub(in crate::fleet) fn void(&mut self, backend: Uuid, node: &str) {
        if let Some(nodes) = self.published.get_mut(&backend) {
            nodes.remove(node);
        }
        if self.reported.get_mut(&backend).is_some_and(|nodes| nodes.remove(node).is_some()) {
            self.merge(backend);
        }
    }

    /// Restores the health of a backend from before any verdict.
    pub(in crate::fleet) fn restore_health(&mut self, backend: Uuid, health: &Health) {
        if matches!(health, Health::Up | Health::Degraded(_) | Health::Down(_)) {
            self.health.insert(backend, health.clone());
        }
    }

    /// Restores verdicts on a backend for display, from before any report.
    pub(in crate::fleet) fn restore_verdicts(
        &mut self,
        backend: Uuid,
        verdicts: BTreeMap<String, BackendVerdict>,
    ) {
        if !verdicts.is_empty() {
            self.published.insert(backend, verdicts);
        }
    }

    /// Removes a backend.
    pub(in crate::fleet) fn forget(&mut self, backend: Uuid) {
        self.published.remove(&backend);
        self.reported.remove(&backend);
        self.health.remove(&backend);
    }

    /// Health of a backend.
    pub(in crate::fleet) fn health(&self, backend: Uuid) -> Health {
        self.health.get(&backend).cloned().unwrap_or_default()
    }

    /// Verdicts of nodes on a backend.
    pub(in crate::fleet) fn of(&self, backend: Uuid) -> impl Iterator<Item = (&str, &BackendVerdict)> {
        self.reported
            .get(&backend)
            .into_iter()
            .flatten()
            .map(|(node, reported)| (node.as_str(), &reported.verdict))
    }

    /// Verdicts on a backend for display: those reported here, and published ones of nodes that have not
    /// reported yet.
    pub(in crate::fleet) fn shown(&self, backend: Uuid) -> BTreeMap<String, BackendVerdict> {
        let mut shown = self.published.get(&backend).cloned().unwrap_or_default();
        shown.extend(self.of(backend).map(|(node, verdict)| (node.to_owned(), verdict.clone())));
        shown
    }

    /// Verdicts that count: without those of nodes that the network leaves, as long as there are others.
    fn counting(&self, backend: Uuid) -> impl Iterator<Item = (&str, &BackendVerdict)> {
        let reported = || self.reported.get(&backend).into_iter().flatten();
        let all_leave = reported().all(|(_, reported)| reported.is_leaving);
        let counts = reported().filter(move |(_, reported)| all_leave || !reported.is_leaving);
        counts.map(|(node, reported)| (node.as_str(), &reported.verdict))
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

    fn verdict(up: bool) -> BackendVerdict {
        BackendVerdict {
            up,
            reason: if up { String::new() } else { "connection refused".to_owned() },
            since_ms: 0,
        }
    }

    #[test]
    fn what_was_known_before_stays_until_somebody_says_otherwise() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        verdicts.restore_health(backend, &Health::NotChecked);
        assert_eq!(verdicts.health(backend), Health::Unknown);
        verdicts.restore_health(backend, &Health::Down("refused".into()));
        assert_eq!(verdicts.health(backend), Health::Down("refused".into()));
        assert_eq!(verdicts.record(backend, "a", verdict(true), false), VerdictChange::Health);
        assert_eq!(verdicts.health(backend), Health::Up);
    }

    #[test]
    fn another_verdict_is_news_also_where_the_health_stays() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        verdicts.record(backend, "a", verdict(true), false);
        assert_eq!(verdicts.record(backend, "b", verdict(true), false), VerdictChange::Verdict);
        assert_eq!(verdicts.record(backend, "b", verdict(true), false), VerdictChange::Nothing);
        let later = BackendVerdict { since_ms: 7, ..verdict(true) };
        assert_eq!(verdicts.record(backend, "b", later, false), VerdictChange::Verdict);
        assert_eq!(verdicts.retain_known("b", &BTreeSet::new()), [(backend, VerdictChange::Verdict)]);
    }

    #[test]
    fn published_verdicts_are_shown_until_their_node_reports_and_count_for_nothing() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        let published = ["a", "b"].map(|node| (node.to_owned(), verdict(false)));
        verdicts.restore_verdicts(backend, published.into());
        assert_eq!(verdicts.health(backend), Health::Unknown);
        assert_eq!(verdicts.of(backend).count(), 0);
        verdicts.record(backend, "a", verdict(true), false);
        let shown = |verdicts: &Verdicts| {
            let shown = verdicts.shown(backend).into_iter().map(|(node, verdict)| (node, verdict.up));
            shown.collect::<Vec<_>>()
        };
        assert_eq!(shown(&verdicts), [("a".to_owned(), true), ("b".to_owned(), false)]);
        assert_eq!(verdicts.retain_known("b", &BTreeSet::new()), [(backend, VerdictChange::Verdict)]);
        assert_eq!(shown(&verdicts), [("a".to_owned(), true)]);
    }

    #[test]
    fn a_new_snapshot_of_a_node_voids_what_else_it_said() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        assert_eq!(verdicts.record(backend, "a", verdict(false), false), VerdictChange::Health);
        assert_eq!(verdicts.record(backend, "a", verdict(false), false), VerdictChange::Nothing);
        assert_eq!(verdicts.record(backend, "b", verdict(true), false), VerdictChange::Health);
        assert!(verdicts.retain_known("a", &BTreeSet::from([backend])).is_empty());
        assert_eq!(verdicts.retain_known("a", &BTreeSet::new()), [(backend, VerdictChange::Health)]);
        assert!(verdicts.retain_known("a", &BTreeSet::new()).is_empty());
        assert_eq!(verdicts.health(backend), Health::Up);
        let lost = verdicts.retain_known("b", &BTreeSet::new());
        assert_eq!(lost, [(backend, VerdictChange::Verdict)], "nobody says anything: the health stays");
        assert_eq!(verdicts.health(backend), Health::Up);
    }

    #[test]
    fn what_a_node_says_that_the_network_leaves_counts_until_another_one_speaks() {
        let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
        verdicts.record(backend, "a", verdict(true), false);
        assert!(!verdicts.leave(backend, "a", true), "it is the only one");
        assert!(verdicts.needs(backend, "a"));
        let goes_on = verdicts.record(backend, "a", verdict(false), true);
        assert_eq!(goes_on, VerdictChange::Health, "it goes on checking");
        assert_eq!(verdicts.record(backend, "b", verdict(true), false), VerdictChange::Health);
        assert_eq!((verdicts.health(backend), verdicts.needs(backend, "a")), (Health::Up, false));
        assert_eq!(verdicts.record(backend, "a", verdict(true), true), VerdictChange::Verdict);
        assert_eq!(verdicts.record(backend, "a", verdict(false), true), VerdictChange::Verdict);
        assert!(verdicts.leave(backend, "a", false), "it stays after all, and is heard again");
        assert!(matches!(verdicts.health(backend), Health::Degraded(_)));
    }
}
