//! What has become of everything that the plugin asked for, and what of that it has not heard yet. Pure.

use std::collections::{BTreeMap, HashMap};

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use crate::configuration::{Configuration, Kind};
use crate::network::State;

/// What has become of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of a listener.
    pub generation: u64,
    /// What stands in the way, for people; empty: nothing.
    pub error: String,
}

/// Outcomes by resource.
pub type Outcomes = BTreeMap<(Kind, Uuid), Outcome>;

/// What has become of everything. `listeners` has what the data plane refused.
#[must_use]
pub fn outcomes(configuration: &Configuration, state: &State, listeners: &HashMap<Uuid, String>) -> Outcomes {
    let network = |id: &Uuid| match state.networks.get(id) {
        Some(state) => state.error.clone().unwrap_or_default(),
        None => "it is being made".to_owned(),
    };
    let listener = |id: &Uuid| listeners.get(id).cloned().unwrap_or_default();
    let mut outcomes = Outcomes::new();
    outcomes.extend(configuration.networks.keys().map(|id| (Kind::Network, *id, network(id))).map(outcome));
    outcomes.extend(configuration.pools.keys().map(|id| (Kind::Pool, *id, String::new())).map(outcome));
    outcomes.extend(configuration.listeners.values().map(|item| {
        let listener_ = &item.value;
        let error = listener(&listener_.id);
        ((Kind::Listener, listener_.id), Outcome { generation: listener_.generation, error })
    }));
    // Whatever became of the last good form: it is not what is asked for.
    outcomes.extend(configuration.refused.iter().map(|(key, refusal)| {
        (*key, Outcome { generation: refusal.generation, error: refusal.reason.to_string() })
    }));
    outcomes
}

fn outcome((kind, id, error): (Kind, Uuid, String)) -> ((Kind, Uuid), Outcome) {
    ((kind, id), Outcome { generation: 0, error })
}

/// What the plugin has heard in one epoch.
#[derive(Clone, Debug, Default)]
pub struct Told {
    outcomes: Outcomes,
}

impl Told {
    /// What is new, as the wire has it. It counts as told after this.
    pub fn news(&mut self, now: Outcomes) -> Vec<v1::Result> {
        let is_news = |(key, outcome): &(&(Kind, Uuid), &Outcome)| self.outcomes.get(*key) != Some(*outcome);
        let news = now.iter().filter(is_news).map(|((kind, id), outcome)| v1::Result {
            kind: kind.to_wire().into(),
            id: id.to_string(),
            generation: outcome.generation,
            error: outcome.error.clone(),
        });
        let news = news.collect();
        self.outcomes = now;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(u128, u64, &str)]) -> Outcomes {
        let entry = |(id, generation, error): &(u128, u64, &str)| {
            let outcome = Outcome { generation: *generation, error: (*error).to_owned() };
            ((Kind::Listener, Uuid::from_u128(*id)), outcome)
        };
        list.iter().map(entry).collect()
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut told = Told::default();
        let ids = |news: Vec<v1::Result>| -> Vec<u128> {
            news.iter().map(|result| result.id.parse::<Uuid>().unwrap().as_u128()).collect()
        };
        assert_eq!(ids(told.news(outcomes(&[(1, 1, ""), (2, 1, "no")]))), [1, 2]);
        assert_eq!(ids(told.news(outcomes(&[(1, 1, ""), (2, 1, "no")]))), [0_u128; 0]);
        assert_eq!(ids(told.news(outcomes(&[(1, 2, ""), (2, 1, "")]))), [1, 2]);
        assert_eq!(ids(told.news(outcomes(&[(1, 2, "")]))), [0_u128; 0]);
        assert_eq!(ids(told.news(outcomes(&[(1, 2, ""), (2, 1, "")]))), [2]);
    }
}
