//! Operating statuses of pools, their backends and their health checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::{C, Operating, Statuses, Why, not_in_force};
use crate::resources::{Backend, HealthCheck, Pool, Record};
use crate::status::{Health, PlacedNode};

impl Statuses<'_> {
    pub(super) fn pool_operating(&self, record: &Record<Pool>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (
                Operating::Offline,
                Why::new(C::SwitchedOff, "the pool is switched off: connections are refused"),
            );
        }
        if !self.is_in_force::<Pool>(record.id) {
            return not_in_force();
        }
        let all = self.tree.backends_of(record.id);
        let (leaving, alive): (Vec<_>, Vec<_>) = all.partition(|backend| backend.deleting);
        if alive.is_empty() {
            return (
                Operating::Offline,
                Why::new(C::NoBackend, "the pool has no backend: connections are refused"),
            );
        }
        // One that is not applied yet counts only while it replaces one that is being deleted, which serves until then.
        let counts =
            |backend: &&Arc<Record<Backend>>| !leaving.is_empty() || self.is_in_force::<Backend>(backend.id);
        let backends: Vec<_> = alive.into_iter().filter(counts).collect();
        if backends.is_empty() {
            let why = "no backend is in force yet: connections are refused";
            return (Operating::Offline, Why::new(C::NoBackendInForce, why));
        }
        let serving =
            |backend: &&&Arc<Record<Backend>>| backend.spec.admin_state_up && backend.spec.weight > 0;
        let serving: Vec<&Record<Backend>> =
            backends.iter().filter(serving).map(|backend| &***backend).collect();
        if serving.is_empty() {
            let why = "every backend is switched off or draining: connections are refused";
            return (Operating::Offline, Why::new(C::NoBackendEnabled, why));
        }
        self.roll_up_backends(&serving)
    }

    /// Operating status of a pool by the health of its backends.
    fn roll_up_backends(&self, backends: &[&Record<Backend>]) -> (Operating, Why) {
        let total = backends.len();
        let health = |backend: &Record<Backend>| self.observation.carried.view.health(backend.id);
        let waiting = backends.iter().filter(|backend| self.waits(backend)).count();
        let down = backends.iter().filter(|backend| matches!(health(backend), Health::Down(_))).count();
        let in_doubt =
            backends.iter().filter(|backend| matches!(health(backend), Health::Degraded(_))).count();
        let of_health = backends.iter().filter_map(|backend| trouble(backend, health(backend)));
        let stuck = backends.iter().filter_map(|backend| self.stuck(backend));
        let first = of_health.chain(stuck).next();
        let because = || first.as_ref().map(|first| format!("; {first}")).unwrap_or_default();
        let waits = if waiting == 1 { "1 waits".to_owned() } else { format!("{waiting} wait") };
        match (down, waiting, &first) {
            (0, waiting, _) if waiting == total => {
                let why =
                    format!("no backend has had a good probe yet: connections are refused{}", because());
                (Operating::Offline, Why::new(C::AwaitingProbe, why))
            }
            (down, _, _) if down == total => {
                let why = format!("all {total} backends are down: connections are refused{}", because());
                (Operating::Error, Why::new(C::AllBackendsDown, why))
            }
            (down, waiting, _) if down + waiting == total => {
                let why = format!(
                    "{down} of {total} backends are down and {waits} for a first good probe: connections are refused{}",
                    because()
                );
                (Operating::Error, Why::new(C::AllBackendsDown, why))
            }
            (_, _, None) => (Operating::Online, Why::NONE),
            (0, _, Some(first)) if in_doubt > 0 => {
                let why = format!("{in_doubt} of {total} backends are in doubt: {first}");
                (Operating::Degraded, Why::new(C::NodesDisagree, why))
            }
            (0, _, Some(first)) => {
                let why = format!("{waiting} of {total} backends have had no good probe yet: {first}");
                (Operating::Degraded, Why::new(C::AwaitingProbe, why))
            }
            (down, 0, Some(first)) => {
                let why = format!("{down} of {total} backends are down: {first}");
                (Operating::Degraded, Why::new(C::SomeBackendsDown, why))
            }
            (down, _, Some(first)) => {
                let why = format!(
                    "{down} of {total} backends are down and {waits} for a first good probe: {first}"
                );
                (Operating::Degraded, Why::new(C::SomeBackendsDown, why))
            }
        }
    }

    /// Trouble of a backend that waits for a first good probe, where its probes say nothing.
    fn stuck(&self, backend: &Record<Backend>) -> Option<String> {
        let doubts = self.doubts(backend.id).filter(|_| self.waits(backend))?;
        Some(format!("{} {doubts}", backend.spec.address))
    }

    /// Probes of a backend that say nothing: each reason once, with the nodes and the addresses that they come from.
    fn doubts(&self, backend: Uuid) -> Option<String> {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (node, check) in self.observation.carried.view.doubts(backend) {
            by_reason.entry(&check.reason).or_default().push(node.place());
        }
        let one = |(reason, nodes): (&str, Vec<String>)| {
            format!("probes from {} say nothing: {reason}", nodes.join(", "))
        };
        let all: Vec<String> = by_reason.into_iter().map(one).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// True for a backend that takes no connections because its health is unknown.
    fn waits(&self, backend: &Record<Backend>) -> bool {
        let carried = &self.observation.carried;
        *carried.view.health(backend.id) == Health::Unknown && !carried.unjudged.contains(&backend.id)
    }

    pub(super) fn backend_operating(&self, record: &Record<Backend>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, Why::new(C::SwitchedOff, "switched off"));
        }
        if !self.is_in_force::<Backend>(record.id) {
            return not_in_force();
        }
        let health = self.observation.carried.view.health(record.id);
        if let Health::Down(why) = health {
            return (Operating::Offline, Why::new(C::Down, format!("checked and found down: {why}")));
        }
        if record.spec.weight == 0 {
            return (Operating::Draining, Why::new(C::WeightZero, "weight 0: no new connections"));
        }
        let doubts = self.doubts(record.id);
        let with_doubts = |text: &str| match &doubts {
            Some(doubts) => format!("{text}; {doubts}"),
            None => text.to_owned(),
        };
        match health {
            Health::Unknown if self.waits(record) => (
                Operating::Offline,
                Why::new(C::AwaitingProbe, with_doubts("waiting for its first good probe")),
            ),
            Health::Unknown => (
                Operating::NoMonitor,
                Why::new(C::NotCheckedYet, with_doubts("in rotation; nobody has checked it yet")),
            ),
            Health::Up if doubts.is_some() => {
                (Operating::Online, Why::new(C::ProbesInconclusive, with_doubts("up by its last verdict")))
            }
            Health::Up => (Operating::Online, Why::NONE),
            Health::Degraded(why) => {
                (Operating::Degraded, Why::new(C::NodesDisagree, format!("the proxy nodes disagree: {why}")))
            }
            Health::NotChecked => (
                Operating::NoMonitor,
                Why::new(C::NotChecked, "NOT_CHECKED: in rotation, and no proxy node can check it"),
            ),
            Health::Unchecked | Health::Down(_) => (Operating::NoMonitor, Why::NONE),
        }
    }

    pub(super) fn health_check_operating(&self, record: &Record<HealthCheck>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, Why::new(C::SwitchedOff, "switched off: nothing is checked"));
        }
        if !self.is_in_force::<HealthCheck>(record.id) {
            return not_in_force();
        }
        let view = &self.observation.carried.view;
        let checkers: Vec<String> =
            view.nodes.iter().filter(|node| node.can_check()).map(PlacedNode::place).collect();
        if checkers.is_empty() {
            let why = view.trouble.clone().unwrap_or_else(|| "no proxy node is there to check".to_owned());
            return (Operating::Error, Why::new(C::NoChecker, why));
        }
        (Operating::Online, Why::new(C::Checked, format!("checked from {}", checkers.join(", "))))
    }
}

/// Trouble of a backend, for the status of its pool.
fn trouble(backend: &Record<Backend>, health: &Health) -> Option<String> {
    match health {
        Health::Down(why) | Health::Degraded(why) => Some(format!("{} {why}", backend.spec.address)),
        _ => None,
    }
}
