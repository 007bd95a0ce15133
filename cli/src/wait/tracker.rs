//! Targets that a wait has not reached yet. Pure: takes events, reads no clock.

use std::collections::{HashMap, HashSet};

use fiberlb_proto::v1::watch_event::Type;
use fiberlb_proto::v1::{OperatingStatus, ProvisioningStatus, ResourceState, WatchEvent};

use crate::event::{EventResource, event_resource};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::render::style::{operating_name, provisioning_name};
use crate::resource::Resource;

/// Reason codes of a checked backend on which nobody has a verdict yet: it takes connections nevertheless, or waits.
const WITHOUT_VERDICT: [&str; 2] = ["NOT_CHECKED_YET", "AWAITING_PROBE"];
/// Limit of targets that are named at once.
const MAX_NAMED: usize = 5;

/// State that a target must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// ACTIVE, with this generation or a later one observed.
    Active {
        /// Generation that was written.
        generation: u64,
        /// Further demand.
        aim: Aim,
    },
    /// Deleted.
    Gone,
}

/// Demand on a resource that is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// None.
    Active,
    /// If it is checked, somebody has a verdict.
    Checked,
    /// It serves, and if it is checked, somebody has a verdict.
    Online,
}

/// Resource that is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Kind of the resource.
    pub(crate) kind: &'static Kind,
    /// Id of the resource.
    pub(crate) id: String,
    /// Name for people.
    pub(crate) label: String,
    /// State that it must reach.
    pub(crate) until: Until,
}

impl Target {
    /// Target for a resource that was written: its generation must become active, or, if it is being deleted, it must be deleted.
    pub(crate) fn written(resource: &Resource) -> Self {
        let state = resource.state();
        let until = match state.provisioning_status() {
            ProvisioningStatus::PendingDelete => Until::Gone,
            _ => Until::Active { generation: state.generation, aim: Aim::Active },
        };
        Self { kind: resource.kind, id: resource.id(), label: resource.label(), until }
    }
}

/// Targets that are not reached, with their last observed states.
pub(crate) struct Tracker {
    pending: Vec<Target>,
    last: HashMap<String, ResourceState>,
    in_snapshot: HashSet<String>,
    is_snapshot: bool,
}

impl Tracker {
    /// Tracker of all `targets`.
    pub(crate) fn new(targets: Vec<Target>) -> Self {
        Self { pending: targets, last: HashMap::new(), in_snapshot: HashSet::new(), is_snapshot: false }
    }

    /// True once all targets are reached.
    pub(crate) fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Starts a snapshot, which lists all resources.
    pub(crate) fn begin(&mut self) {
        self.in_snapshot.clear();
        self.is_snapshot = true;
    }

    /// Processes an event.
    ///
    /// # Errors
    /// A target that should become active was deleted.
    pub(crate) fn observe(&mut self, event: &WatchEvent) -> Result<(), Failure> {
        match (event.r#type(), event_resource(event)) {
            (Type::Synced, _) => {
                self.is_snapshot = false;
                let present = std::mem::take(&mut self.in_snapshot);
                self.deleted(|target| !present.contains(&target.id))
            }
            (Type::Deleted, Some(EventResource { kind, id, .. })) => {
                self.deleted(|target| target.kind.field == kind.field && target.id == id)
            }
            (_, Some(resource)) => {
                self.updated(&resource);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }

    /// Processes the deletion of the whole tree.
    ///
    /// # Errors
    /// A target that should become active was deleted.
    pub(crate) fn gone(&mut self) -> Result<(), Failure> {
        self.deleted(|_| true)
    }

    fn updated(&mut self, resource: &EventResource<'_>) {
        if !self.pending.iter().any(|target| target.id == resource.id) {
            return;
        }
        if self.is_snapshot {
            self.in_snapshot.insert(resource.id.to_owned());
        }
        let state = resource.state.cloned().unwrap_or_default();
        self.pending.retain(|target| target.id != resource.id || !is_reached(target.until, &state));
        self.last.insert(resource.id.to_owned(), state);
    }

    /// Processes the deletion of the targets that `is_deleted` selects: some were to be deleted, for others this is an error.
    fn deleted(&mut self, is_deleted: impl Fn(&Target) -> bool) -> Result<(), Failure> {
        self.pending.retain(|target| !(target.until == Until::Gone && is_deleted(target)));
        match self.pending.iter().find(|target| target.until != Until::Gone && is_deleted(target)) {
            Some(target) => {
                Err(Failure::error(format!("{} was deleted while this command waited for it", target.label)))
            }
            None => Ok(()),
        }
    }

    /// Pending targets with their reasons, a line each; the first few by name.
    pub(crate) fn pending(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.pending.iter().take(MAX_NAMED).map(|target| self.line(target)).collect();
        if let Some(more) = self.pending.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        lines
    }

    fn line(&self, target: &Target) -> String {
        let aim = match target.until {
            Until::Gone => "deleted",
            Until::Active { aim: Aim::Online, .. } => "online",
            Until::Active { aim: Aim::Checked, .. } => "checked",
            Until::Active { .. } => "active",
        };
        let Some(state) = self.last.get(&target.id) else {
            return format!("{} is not {aim} yet", target.label);
        };
        let mut status = provisioning_name(state.provisioning_status()).to_owned();
        if matches!(aim, "online" | "checked") {
            status = format!("{status} {}", operating_name(state.operating_status()));
        }
        let reason = if state.reason.is_empty() { "the server gave no reason" } else { &state.reason };
        let next =
            state.next_attempt_at.as_ref().map(|at| format!("; next attempt at {at}")).unwrap_or_default();
        format!("{} is not {aim} yet: {status}: {reason}{next}", target.label)
    }
}

/// True if a target with this state is reached.
fn is_reached(until: Until, state: &ResourceState) -> bool {
    match until {
        Until::Gone => false,
        Until::Active { generation, aim } => {
            let is_checked = !WITHOUT_VERDICT.contains(&state.reason_code.as_str());
            state.provisioning_status() == ProvisioningStatus::Active
                && state.observed_generation >= generation
                && match aim {
                    Aim::Active => true,
                    Aim::Checked => is_checked,
                    Aim::Online => is_checked && serves(state.operating_status()),
                }
        }
    }
}

/// True if connections are served as desired.
fn serves(status: OperatingStatus) -> bool {
    matches!(status, OperatingStatus::Online | OperatingStatus::NoMonitor)
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{Pool, watch_event};

    use super::*;
    use crate::kinds::POOL;
    use crate::schema::Schema;

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
        let mut tracker = tracker(Until::Active { generation: 2, aim: Aim::Active });
        for (status, observed) in [(ProvisioningStatus::Active, 1), (ProvisioningStatus::Error, 2)] {
            tracker.observe(&event(Type::Snapshot, status, observed)).unwrap();
            assert!(!tracker.is_done());
        }
        assert_eq!(tracker.pending(), ["pool app is not active yet: ERROR: because"]);
        tracker.observe(&event(Type::Updated, ProvisioningStatus::Active, 3)).unwrap();
        assert!(tracker.is_done());
    }

    #[test]
    fn what_an_applied_tree_no_longer_has_is_waited_for_until_it_is_gone() {
        let until = |status: ProvisioningStatus| {
            let state =
                ResourceState { provisioning_status: status.into(), generation: 3, ..Default::default() };
            let pool = Pool { state: Some(state), ..Default::default() };
            let message = Schema::load().unwrap().dynamic("Pool", &pool).unwrap();
            Target::written(&Resource { kind: &POOL, message }).until
        };
        assert_eq!(until(ProvisioningStatus::PendingDelete), Until::Gone);
        assert_eq!(
            until(ProvisioningStatus::PendingUpdate),
            Until::Active { generation: 3, aim: Aim::Active }
        );
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
    fn a_target_that_somebody_else_deletes_is_a_failure() {
        let mut tracker = tracker(Until::Active { generation: 1, aim: Aim::Active });
        let failure = tracker.observe(&synced()).unwrap_err();
        assert_eq!(failure.lines, ["pool app was deleted while this command waited for it"]);
    }

    #[test]
    fn nothing_to_wait_for_is_done() {
        assert!(Tracker::new(Vec::new()).is_done());
    }

    #[test]
    fn online_is_active_and_serving() {
        let mut tracker = tracker(Until::Active { generation: 1, aim: Aim::Online });
        let with = |status: OperatingStatus| {
            let mut event = event(Type::Updated, ProvisioningStatus::Active, 1);
            if let Some(watch_event::Resource::Pool(pool)) = &mut event.resource {
                pool.state.as_mut().unwrap().operating_status = status.into();
            }
            event
        };
        for status in [OperatingStatus::Offline, OperatingStatus::Degraded, OperatingStatus::Error] {
            tracker.observe(&with(status)).unwrap();
            assert!(!tracker.is_done(), "{status:?}");
        }
        assert_eq!(tracker.pending(), ["pool app is not online yet: ACTIVE ERROR: because"]);
        tracker.observe(&with(OperatingStatus::Online)).unwrap();
        assert!(tracker.is_done());
    }

    #[test]
    fn a_backend_on_which_nobody_has_a_verdict_is_not_online() {
        for (aim, is_met) in [(Aim::Active, true), (Aim::Checked, false), (Aim::Online, false)] {
            let state = |code: &str| ResourceState {
                provisioning_status: ProvisioningStatus::Active.into(),
                operating_status: OperatingStatus::NoMonitor.into(),
                observed_generation: 1,
                reason_code: code.to_owned(),
                ..Default::default()
            };
            let until = Until::Active { generation: 1, aim };
            for code in WITHOUT_VERDICT {
                assert_eq!(is_reached(until, &state(code)), is_met, "{aim:?} {code}");
            }
            assert!(is_reached(until, &state("")), "{aim:?}: without a check");
        }
    }
}
