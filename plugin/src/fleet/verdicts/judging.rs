//! The nodes that check a backend, and when its health is decided.
//!
//! A backend is down only if every live node that is assigned to its check says so. A node without a verdict is awaited until
//! it has had time for `rise + fall` probes since it was assigned, and is then left out: neither does one node alone take a
//! backend out, nor does one that says nothing keep it in for ever.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Checkers, VerdictChange};
use crate::datapath::needed_by_protocol;
use crate::fleet::state::FleetState;
use crate::resources::Tree;
use crate::status::{BackendVerdict, Liveness};

/// Time within which a node has its first verdict on a backend of a pool, however it fares.
pub(in crate::fleet) fn first_verdict(tree: &Tree, pool: Uuid) -> Duration {
    tree.health_check_of(pool).map_or(Duration::ZERO, |check| {
        let spec = &check.spec;
        let probes = u64::from(spec.rise) + u64::from(spec.fall);
        Duration::from_millis(probes * u64::from(spec.delay_ms) + u64::from(spec.timeout_ms))
    })
}

impl FleetState {
    /// Records the verdict of a node on a backend of a tree.
    pub(in crate::fleet) fn record_verdict(
        &mut self,
        tree: Uuid,
        backend: Uuid,
        node: &str,
        verdict: BackendVerdict,
        now: Instant,
    ) -> VerdictChange {
        let network = self.demands.of(tree).map(|demand| demand.network);
        let is_leaving = network.is_some_and(|network| self.allocations.is_draining(network, node));
        let is_news = self.verdicts.record(backend, node, verdict, is_leaving);
        match (self.judge(backend, now), is_news) {
            (true, _) => VerdictChange::Health,
            (false, true) => VerdictChange::Verdict,
            (false, false) => VerdictChange::Nothing,
        }
    }

    /// Drops a node's verdicts on backends that are not in `known`. Returns the backends that lost one.
    pub(in crate::fleet) fn retain_verdicts(
        &mut self,
        node: &str,
        known: &BTreeSet<Uuid>,
        now: Instant,
    ) -> Vec<(Uuid, VerdictChange)> {
        let void = self.verdicts.retain_known(node, known);
        let change = |has_changed| if has_changed { VerdictChange::Health } else { VerdictChange::Verdict };
        void.into_iter().map(|backend| (backend, change(self.judge(backend, now)))).collect()
    }

    /// Decides on the health of a backend. Returns true if it changed.
    pub(in crate::fleet) fn judge(&mut self, backend: Uuid, now: Instant) -> bool {
        let checkers = self.checkers(backend, now);
        self.verdicts.judge(backend, &checkers, now)
    }

    /// Decides on the health of all backends on a network, after its nodes have changed.
    pub(in crate::fleet) fn judge_network(&mut self, network: Uuid, now: Instant) {
        for backend in self.checked_on(network).collect::<Vec<_>>() {
            self.judge(backend, now);
        }
    }

    /// Decides on backends whose nodes have had their time, and returns the trees whose health changed.
    pub(in crate::fleet) fn judge_overdue(&mut self, now: Instant) -> BTreeSet<Uuid> {
        let overdue = self.verdicts.overdue(now);
        let changed: Vec<Uuid> = overdue.into_iter().filter(|backend| self.judge(*backend, now)).collect();
        changed.iter().filter_map(|backend| Some(self.checked.get(*backend)?.tree)).collect()
    }

    /// Live nodes that are assigned to the check of a backend; those that its network leaves are not.
    fn checkers(&self, backend: Uuid, now: Instant) -> Checkers {
        let Some(checked) = self.checked.get(backend) else { return Checkers::new() };
        let Some(network) = self.demands.of(checked.tree).map(|demand| demand.network) else {
            return Checkers::new();
        };
        let until = |node: &str| {
            let alive_since =
                self.nodes.get(node).filter(|node| node.contact.liveness(now) != Liveness::Dead)?;
            let assigned = self.assigned_since(network, node).max(alive_since.alive_since);
            let since = checked.since.map_or(assigned, |since| since.max(assigned));
            Some((node.to_owned(), since.checked_add(checked.first_verdict)?))
        };
        let needs = needed_by_protocol(checked.protocol);
        let stays = self.allocations.ports(network).filter(|(_, port)| port.draining_since.is_none());
        stays.filter(|(node, _)| self.can_serve(node, &needs)).filter_map(|(node, _)| until(node)).collect()
    }
}

#[cfg(test)]
mod tests;
