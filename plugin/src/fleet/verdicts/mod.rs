//! Verdicts of all nodes on all backends, merged to the health of each.

pub(in crate::fleet) mod checked;
mod ejections;
mod inconclusive;
pub(in crate::fleet) mod judging;
mod pace;

pub(in crate::fleet) use ejections::Ejections;
pub(in crate::fleet) use inconclusive::InconclusiveChecks;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use uuid::Uuid;

use crate::status::{BackendVerdict, Health, Opinion, merge};

/// Verdicts of all nodes on all backends, merged to the health of each.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Verdicts {
    reported: HashMap<Uuid, BTreeMap<String, Reported>>,
    /// Kept when all verdicts on a backend are dropped: silence changes nothing.
    health: HashMap<Uuid, Health>,
    /// Verdicts that the previous leader published, for display, until the node has reported here.
    published: HashMap<Uuid, BTreeMap<String, BackendVerdict>>,
    /// Backends that would be down if no further verdict came, with the instant until which the first one is awaited.
    held: HashMap<Uuid, Instant>,
}

/// Live nodes that check a backend, and that it is not about to leave, each with the instant until which its first verdict
/// is awaited.
pub(in crate::fleet) type Checkers = Vec<(String, Instant)>;

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
    /// Records the verdict of a node on a backend, whose network moves away from it if `is_leaving`. Returns true if it
    /// was not known. [`Verdicts::judge`] has to follow, as after all that changes verdicts.
    pub(in crate::fleet) fn record(
        &mut self,
        backend: Uuid,
        node: &str,
        verdict: BackendVerdict,
        is_leaving: bool,
    ) -> bool {
        let is_known = self.of(backend).any(|(id, known)| id == node && *known == verdict);
        self.reported.entry(backend).or_default().insert(node.to_owned(), Reported { verdict, is_leaving });
        !is_known
    }

    /// Records whether a backend's network moves away from a node.
    pub(in crate::fleet) fn leave(&mut self, backend: Uuid, node: &str, is_leaving: bool) {
        if let Some(reported) = self.reported.get_mut(&backend).and_then(|nodes| nodes.get_mut(node)) {
            reported.is_leaving = is_leaving;
        }
    }

    /// True if a node has a verdict on a backend that nobody would have without it.
    pub(in crate::fleet) fn needs(&self, backend: Uuid, node: &str) -> bool {
        let Some(nodes) = self.reported.get(&backend) else { return false };
        let stays = |(id, reported): (&String, &Reported)| id != node && !reported.is_leaving;
        nodes.contains_key(node) && !nodes.iter().any(stays)
    }

    /// Drops a node's verdicts on backends that are not in `known`, and all that were published before it
    /// reported here. Returns the backends that lost one.
    pub(in crate::fleet) fn retain_known(&mut self, node: &str, known: &BTreeSet<Uuid>) -> HashSet<Uuid> {
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
        void
    }

    /// Drops the verdict of a node on a backend.
    pub(in crate::fleet) fn void(&mut self, backend: Uuid, node: &str) {
        if let Some(nodes) = self.published.get_mut(&backend) {
            nodes.remove(node);
        }
        if let Some(nodes) = self.reported.get_mut(&backend) {
            nodes.remove(node);
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
        self.held.remove(&backend);
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

    /// Merges the verdicts on a backend that `checkers` check. Returns true if its health changed.
    pub(in crate::fleet) fn judge(&mut self, backend: Uuid, checkers: &Checkers, now: Instant) -> bool {
        let before = self.health.get(&backend);
        let verdicts: BTreeMap<&str, &BackendVerdict> = self.counting(backend).collect();
        let is_silent = |(node, _): &&(String, Instant)| !verdicts.contains_key(node.as_str());
        let silent = || checkers.iter().filter(is_silent);
        let opinion = |until: Instant| if until > now { Opinion::Awaited } else { Opinion::Missing };
        let spoken = verdicts.iter().map(|(node, verdict)| (*node, Opinion::Verdict(verdict)));
        let opinions = spoken.chain(silent().map(|(node, until)| (node.as_str(), opinion(*until))));
        let after = merge(opinions, before);
        let has_changed = after != Health::Unknown && before != Some(&after);
        let is_down = !verdicts.is_empty() && verdicts.values().all(|verdict| !verdict.up);
        let awaited = silent().map(|(_, until)| *until).filter(|until| *until > now).min();
        match awaited.filter(|_| is_down) {
            Some(until) => drop(self.held.insert(backend, until)),
            None => drop(self.held.remove(&backend)),
        }
        if has_changed {
            self.health.insert(backend, after);
        }
        has_changed
    }

    /// Backends for which no verdict is awaited any longer by now, and that have to be judged.
    pub(in crate::fleet) fn overdue(&self, now: Instant) -> Vec<Uuid> {
        self.held.iter().filter(|(_, until)| **until <= now).map(|(backend, _)| *backend).collect()
    }

    /// Earliest instant at which a backend is overdue.
    pub(in crate::fleet) fn next_overdue(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// True if a verdict on a backend is awaited that decides on it.
    pub(in crate::fleet) fn is_held(&self, backend: Uuid) -> bool {
        self.held.contains_key(&backend)
    }
}

#[cfg(test)]
mod tests;
