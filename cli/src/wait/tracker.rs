//! What a wait still waits for. Pure: takes events, reads no clock.

use std::collections::{HashMap, HashSet};

use fiberlb_proto::v1::watch_event::Type;
use fiberlb_proto::v1::{ProvisioningStatus, ResourceState, WatchEvent};

use crate::event::{Seen, seen};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::render::style::provisioning_name;

/// Most things that are named at once.
const NAMED: usize = 5;

/// What a target must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// ACTIVE, with this generation or a later one in force.
    Active {
        /// The generation that was written.
        generation: u64,
    },
    /// No longer there.
    Gone,
}

/// One thing that is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What it is.
    pub(crate) kind: &'static Kind,
    /// Its id.
    pub(crate) id: String,
    /// What a person calls it.
    pub(crate) label: String,
    /// What it must come to.
    pub(crate) until: Until,
}

impl Target {
    /// One that must come into force as `state` says it was written, or go if it says so.
    pub(crate) fn written(kind: &'static Kind, id: &str, name: &str, state: Option<&ResourceState>) -> Self {
        let name = if name.is_empty() { id } else { name };
        let is_going =
            |state: &ResourceState| state.provisioning_status() == ProvisioningStatus::PendingDelete;
        let until = match state {
            Some(state) if is_going(state) => Until::Gone,
            state => Until::Active { generation: state.map_or(0, |state| state.generation) },
        };
        Self { kind, id: id.to_owned(), label: format!("{} {name}", kind.label), until }
    }
}

/// Which targets are missing, and what was last seen of them.
pub(crate) struct Tracker {
    missing: Vec<Target>,
    last: HashMap<String, ResourceState>,
    in_snapshot: HashSet<String>,
    is_snapshot: bool,
}

impl Tracker {
    /// Waits for all of `targets`.
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        Self { missing: targets, last: HashMap::new(), in_snapshot: HashSet::new(), is_snapshot: false }
    }

    /// Whether nothing is missing.
    pub(crate) fn is_done(&self) -> bool {
        self.missing.is_empty()
    }

    /// A stream begins: its snapshot says what is there.
    pub(crate) fn begin(&mut self) {
        self.in_snapshot.clear();
        self.is_snapshot = true;
    }

    /// Takes an event.
    ///
    /// # Errors
    /// Something that should come into force is no longer there.
    pub(crate) fn observe(&mut self, event: &WatchEvent) -> Result<(), Failure> {
        match (event.r#type(), seen(event)) {
            (Type::Synced, _) => {
                self.is_snapshot = false;
                let there = std::mem::take(&mut self.in_snapshot);
                self.lost(|target| !there.contains(&target.id))
            }
            (Type::Deleted, Some(Seen { kind, id, .. })) => {
                self.lost(|target| target.kind.field == kind.field && target.id == id)
            }
            (_, Some(seen)) => {
                self.updated(&seen);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    /// The whole tree is not there.
    ///
    /// # Errors
    /// Something that should come into force is no longer there.
    pub(crate) fn gone(&mut self) -> Result<(), Failure> {
        self.lost(|_| true)
    }

    fn updated(&mut self, seen: &Seen<'_>) {
        if !self.missing.iter().any(|target| target.id == seen.id) {
            return;
        }
        if self.is_snapshot {
            self.in_snapshot.insert(seen.id.to_owned());
        }
        let state = seen.state.cloned().unwrap_or_default();
        self.missing.retain(|target| target.id != seen.id || !is_in_force(target.until, &state));
        self.last.insert(seen.id.to_owned(), state);
    }

    /// Those for which `is_lost` holds are gone: for some the aim, for the others the end.
    fn lost(&mut self, is_lost: impl Fn(&Target) -> bool) -> Result<(), Failure> {
        self.missing.retain(|target| !(target.until == Until::Gone && is_lost(target)));
        match self.missing.iter().find(|target| target.until != Until::Gone && is_lost(target)) {
            Some(target) => Err(Failure::error(format!("{} was deleted while waiting for it", target.label))),
            None => Ok(()),
        }
    }

    /// What is missing and why, a line each, the first few by name.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.missing.iter().take(NAMED).map(|target| self.line(target)).collect();
        if let Some(more) = self.missing.len().checked_sub(NAMED).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    fn line(&self, target: &Target) -> String {
        let aim = if target.until == Until::Gone { "gone" } else { "in force" };
        let Some(state) = self.last.get(&target.id) else {
            return format!("{} is not {aim} yet", target.label);
        };
        let status = provisioning_name(state.provisioning_status());
        let reason = if state.reason.is_empty() { "the server gives no reason" } else { &state.reason };
        let next =
            state.next_attempt_at.as_ref().map(|at| format!("; next attempt at {at}")).unwrap_or_default();
        format!("{} is not {aim} yet: {status}: {reason}{next}", target.label)
    }
}

/// Whether what was waited for holds.
fn is_in_force(until: Until, state: &ResourceState) -> bool {
    match until {
        Until::Gone => false,
        Until::Active { generation } => {
            state.provisioning_status() == ProvisioningStatus::Active
                && state.observed_generation >= generation
        }
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{Pool, watch_event};

    use super::*;
    use crate::kinds::POOL;

    fn event(kind: Type, status: ProvisioningStatus, observed: u64) -> WatchEvent {
        let state = ResourceState {
            provisioning_status: status.into(),
            observed_generation: observed,
            reason: "because".to_owned(),
            ..Default::default()
        };
        let pool = Pool { id: "p1".to_owned(), state: Some(state), ..Default::default() };
        WatchEvent { r#type: kind.into(), resource: Some(watch_event::Resource::Pool(pool)) }
    }

    fn synced() -> WatchEvent {
        WatchEvent { r#type: Type::Synced.into(), resource: None }
    }

    fn tracker(until: Until) -> Tracker {
        let mut tracker = Tracker::new(vec![Target {
            kind: &POOL,
            id: "p1".to_owned(),
            label: "pool app".to_owned(),
            until,
        }]);
        tracker.begin();
        tracker
    }

    #[test]
    fn active_counts_only_with_the_generation_that_was_written() {
        let mut tracker = tracker(Until::Active { generation: 2 });
        for (status, observed) in [(ProvisioningStatus::Active, 1), (ProvisioningStatus::Error, 2)] {
            tracker.observe(&event(Type::Snapshot, status, observed)).unwrap();
            assert!(!tracker.is_done());
        }
        assert_eq!(tracker.missing(), ["pool app is not in force yet: ERROR: because"]);
        tracker.observe(&event(Type::Updated, ProvisioningStatus::Active, 3)).unwrap();
        assert!(tracker.is_done());
    }

    #[test]
    fn what_an_applied_tree_no_longer_has_is_waited_for_until_it_is_gone() {
        let state = |status: ProvisioningStatus| {
            Some(ResourceState { provisioning_status: status.into(), generation: 3, ..Default::default() })
        };
        let until = |status| Target::written(&POOL, "p1", "app", state(status).as_ref()).until;
        assert_eq!(until(ProvisioningStatus::PendingDelete), Until::Gone);
        assert_eq!(until(ProvisioningStatus::PendingUpdate), Until::Active { generation: 3 });
    }

    #[test]
    fn gone_by_event_by_snapshot_and_with_the_tree() {
        let mut by_event = tracker(Until::Gone);
        by_event.observe(&event(Type::Snapshot, ProvisioningStatus::PendingDelete, 1)).unwrap();
        by_event.observe(&synced()).unwrap();
        assert!(!by_event.is_done());
        by_event.observe(&event(Type::Deleted, ProvisioningStatus::PendingDelete, 1)).unwrap();
        assert!(by_event.is_done());

        let mut by_snapshot = tracker(Until::Gone);
        by_snapshot.observe(&synced()).unwrap();
        assert!(by_snapshot.is_done());

        let mut with_tree = tracker(Until::Gone);
        with_tree.gone().unwrap();
        assert!(with_tree.is_done());
    }

    #[test]
    fn a_snapshot_that_begins_anew_forgets_the_one_before() {
        let mut tracker = tracker(Until::Gone);
        tracker.observe(&event(Type::Snapshot, ProvisioningStatus::PendingDelete, 1)).unwrap();
        tracker.begin();
        tracker.observe(&synced()).unwrap();
        assert!(tracker.is_done());
    }

    #[test]
    fn what_somebody_else_deletes_never_comes_into_force() {
        let mut tracker = tracker(Until::Active { generation: 1 });
        let failure = tracker.observe(&synced()).unwrap_err();
        assert_eq!(failure.lines, ["pool app was deleted while waiting for it"]);
    }

    #[test]
    fn nothing_to_wait_for_is_done() {
        assert!(Tracker::new(Vec::new()).is_done());
    }
}
