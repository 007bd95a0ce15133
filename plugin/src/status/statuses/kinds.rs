//! Kinds of resources with a status, and the state that users see beside it.

use std::fmt;

use uuid::Uuid;

use super::{Status, Statuses, applied_generation};
use crate::datapath::Decision;
use crate::resources::{Backend, HealthCheck, Listener, LoadBalancer, Pool, Record, Resource};
use crate::status::Observation;

/// Kind of resource that users see with a status.
pub trait HasStatus: Resource {
    /// State that users see beside the status.
    type Detail: Clone + fmt::Debug + PartialEq + Send + Sync + 'static;

    /// Status of one.
    fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status;

    /// State of one beside its status. `network`: the name that its tree's network has now, empty where it has none.
    fn detail(observation: &Observation, network: &str, record: &Record<Self>) -> Self::Detail;

    /// Generation of a resource that is in force; 0: none.
    fn in_force(observation: &Observation, id: Uuid) -> u64 {
        applied_generation::<Self>(observation, id)
    }
}

/// Declares the kinds whose status says all.
macro_rules! plain {
    ($($kind:ident => $status:ident),*) => {$(
        impl HasStatus for $kind {
            type Detail = ();
            fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status {
                statuses.$status(record)
            }
            fn detail(_: &Observation, _: &str, _: &Record<Self>) {}
        }
    )*};
}

plain!(Pool => pool, Backend => backend, HealthCheck => health_check);

/// Load balancer's surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerDetail {
    /// Name of its network now; empty where it has none.
    pub network_name: String,
}

impl HasStatus for LoadBalancer {
    type Detail = LoadBalancerDetail;

    fn status(statuses: &Statuses<'_>, _: &Record<Self>) -> Status {
        statuses.load_balancer()
    }

    fn detail(_: &Observation, network: &str, _: &Record<Self>) -> LoadBalancerDetail {
        LoadBalancerDetail { network_name: network.to_owned() }
    }
}

/// Carrier of a listener, as far as it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerDetail {
    /// Carrier, with the reason; `None`: nothing is in force.
    pub decision: Option<Decision>,
    /// Proxy nodes that receive new connections for it.
    pub proxies: Vec<String>,
}

impl HasStatus for Listener {
    type Detail = ListenerDetail;

    fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status {
        statuses.listener(record)
    }

    /// Generation in force: where proxies carry the listener, the newest one that they serve.
    fn in_force(observation: &Observation, id: Uuid) -> u64 {
        let applied = applied_generation::<Self>(observation, id);
        match observation.decision(id) {
            None => 0,
            Some(_) if observation.carried.standing.contains_key(&id) => 0,
            Some(decision) if decision.carrier.is_proxy() => {
                applied.min(observation.carried.view.served_generation(id))
            }
            Some(_) => applied,
        }
    }

    fn detail(observation: &Observation, _: &str, record: &Record<Self>) -> ListenerDetail {
        let decision = match observation.carried.standing.get(&record.id) {
            Some(carrier) => {
                Some(Decision { carrier: *carrier, reason: "as before, until the change is in force".into() })
            }
            None => {
                let is_in_force = Self::in_force(observation, record.id) > 0;
                observation.decision(record.id).filter(|_| is_in_force).cloned()
            }
        };
        ListenerDetail { decision, proxies: observation.proxies_of(record.id).map(str::to_owned).collect() }
    }
}
