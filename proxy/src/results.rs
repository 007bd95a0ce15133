//! Outcomes of applying the configuration, and their difference to those that the plugin has. Pure.

use std::collections::{BTreeMap, HashMap};

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::configuration::{Configuration, ResourceKind};
use crate::network::NetworksState;

/// Outcome of applying one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceOutcome {
    /// Generation of a listener; 0 for other kinds.
    pub generation: u64,
    /// Error, for people; empty: it is applied.
    pub error: String,
}

/// ResourceOutcomes by resource.
pub type ResourceOutcomes = BTreeMap<(ResourceKind, Uuid), ResourceOutcome>;

/// Outcomes of all resources. `listeners`: errors of refused listeners.
#[must_use]
pub fn outcomes(
    configuration: &Configuration,
    state: &NetworksState,
    listeners: &HashMap<Uuid, String>,
) -> ResourceOutcomes {
    let network = |id: &Uuid| match state.networks.get(id) {
        Some(state) => state.error.clone().unwrap_or_default(),
        None => "it is being made".to_owned(),
    };
    let listener = |id: &Uuid| listeners.get(id).cloned().unwrap_or_default();
    let mut outcomes = ResourceOutcomes::new();
    outcomes.extend(
        configuration.networks.keys().map(|id| (ResourceKind::Network, *id, network(id))).map(outcome),
    );
    outcomes
        .extend(configuration.pools.keys().map(|id| (ResourceKind::Pool, *id, String::new())).map(outcome));
    outcomes.extend(configuration.listeners.values().map(|item| {
        let listener_ = &item.value;
        let error = listener(&listener_.id);
        ((ResourceKind::Listener, listener_.id), ResourceOutcome { generation: listener_.generation, error })
    }));
    // Whatever the outcome of the last good form: it is not what the plugin has sent.
    outcomes.extend(configuration.refused.iter().map(|(key, refusal)| {
        (*key, ResourceOutcome { generation: refusal.generation, error: refusal.reason.to_string() })
    }));
    outcomes
}

fn outcome((kind, id, error): (ResourceKind, Uuid, String)) -> ((ResourceKind, Uuid), ResourceOutcome) {
    ((kind, id), ResourceOutcome { generation: 0, error })
}

/// Outcomes that were reported to the plugin in one epoch.
#[derive(Clone, Debug, Default)]
pub struct ReportedOutcomes {
    outcomes: ResourceOutcomes,
}

impl ReportedOutcomes {
    /// Changed outcomes, as messages. They count as reported after this.
    pub fn changes(&mut self, now: ResourceOutcomes) -> Vec<v1::Result> {
        let is_changed = |(key, outcome): &(&(ResourceKind, Uuid), &ResourceOutcome)| {
            self.outcomes.get(*key) != Some(*outcome)
        };
        let changes = now.iter().filter(is_changed).map(|((kind, id), outcome)| v1::Result {
            kind: kind.to_wire().into(),
            id: id.to_string(),
            generation: outcome.generation,
            error: outcome.error.clone(),
        });
        let changes = changes.collect();
        self.outcomes = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(u128, u64, &str)]) -> ResourceOutcomes {
        let entry = |(id, generation, error): &(u128, u64, &str)| {
            let outcome = ResourceOutcome { generation: *generation, error: (*error).to_owned() };
            ((ResourceKind::Listener, Uuid::from_u128(*id)), outcome)
        };
        list.iter().map(entry).collect()
    }

    #[test]
    fn only_changes_are_reported() {
        let mut reported = ReportedOutcomes::default();
        let ids = |changes: Vec<v1::Result>| -> Vec<u128> {
            changes.iter().map(|result| result.id.parse::<Uuid>().unwrap().as_u128()).collect()
        };
        assert_eq!(ids(reported.changes(outcomes(&[(1, 1, ""), (2, 1, "no")]))), [1, 2]);
        assert_eq!(ids(reported.changes(outcomes(&[(1, 1, ""), (2, 1, "no")]))), [0_u128; 0]);
        assert_eq!(ids(reported.changes(outcomes(&[(1, 2, ""), (2, 1, "")]))), [1, 2]);
        assert_eq!(ids(reported.changes(outcomes(&[(1, 2, "")]))), [0_u128; 0]);
        assert_eq!(ids(reported.changes(outcomes(&[(1, 2, ""), (2, 1, "")]))), [2]);
    }
}
