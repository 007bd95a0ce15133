//! Statuses that users see: a pure function of the stored tree and its observation.

mod caveats;
mod kinds;
mod listeners;
mod pools;

use uuid::Uuid;

use super::reason::{StatusCode as C, Why};
use super::values::{Operating, Provisioning, Status};
use super::{ApplyFailure, FailureScope, Observation};
use crate::resources::{Backend, HealthCheck, Listener, LoadBalancer, Pool, Record, Resource, Tree};
pub use kinds::{HasStatus, ListenerDetail};

/// Progress of applying a resource.
struct Progress<'a> {
    observed_generation: u64,
    in_force: bool,
    /// Last failure that concerns it.
    failure: Option<&'a ApplyFailure>,
    provisioning: Provisioning,
}

/// The statuses of a tree.
#[derive(Clone, Copy)]
pub struct Statuses<'a> {
    tree: &'a Tree,
    observation: &'a Observation,
    waiting_for: Option<&'a str>,
}

impl<'a> Statuses<'a> {
    /// Statuses of `tree` by its observation; `waiting_for`: reason why the reconciler cannot proceed.
    pub fn new(tree: &'a Tree, observation: &'a Observation, waiting_for: Option<&'a str>) -> Self {
        Self { tree, observation, waiting_for }
    }

    /// The load balancer's.
    pub fn load_balancer(&self) -> Status {
        let record = &self.tree.load_balancer;
        let operating = if !record.spec.admin_state_up {
            (Operating::Offline, Why::new(C::SwitchedOff, "switched off"))
        } else if self.is_in_force::<LoadBalancer>(record.id) {
            self.roll_up()
        } else {
            not_in_force()
        };
        self.status(record, None, operating)
    }

    /// A listener's.
    pub fn listener(&self, record: &Record<Listener>) -> Status {
        let refused = self.observation.carried.refused.get(&record.id);
        let (operating, obstacle) = match refused {
            Some(reason) => {
                let why = Why::new(C::Refused, reason.clone());
                // What it was before goes on to serve.
                let stands = self.observation.carried.standing.contains_key(&record.id);
                let operating =
                    if stands { self.listener_operating(record) } else { (Operating::Error, why.clone()) };
                (operating, Some(Obstacle::Refusal(why)))
            }
            None => (self.listener_operating(record), self.proxies_awaited(record)),
        };
        self.status(record, obstacle, operating)
    }

    /// A pool's.
    pub fn pool(&self, record: &Record<Pool>) -> Status {
        self.status(record, None, self.pool_operating(record))
    }

    /// A backend's.
    pub fn backend(&self, record: &Record<Backend>) -> Status {
        self.status(record, None, self.backend_operating(record))
    }

    /// A health check's.
    pub fn health_check(&self, record: &Record<HealthCheck>) -> Status {
        self.status(record, None, self.health_check_operating(record))
    }

    fn is_in_force<T: Resource>(&self, id: Uuid) -> bool {
        applied_generation::<T>(self.observation, id) > 0
    }

    fn status<T: HasStatus>(
        &self,
        record: &Record<T>,
        obstacle: Option<Obstacle>,
        (operating, why): (Operating, Why),
    ) -> Status {
        let Progress { observed_generation, in_force, failure, provisioning } = self.progress(record);
        let deleting = record.deleting;
        let operating = match failure.map(|failure| failure.scope) {
            Some(FailureScope::NetworkGone) if why.code != C::SwitchedOff => Operating::Error,
            _ => operating,
        };
        let waiting = self.waiting_for.filter(|_| !in_force);
        let why = match (waiting, failure, obstacle) {
            (Some(waiting), ..) => Why::new(C::Waiting, waiting),
            (_, Some(failure), _) if failure.scope == FailureScope::NetworkGone => {
                Why::new(C::NetworkGone, failure.reason.clone())
            }
            (_, Some(failure), _) => Why::new(C::ApplyFailed, failure.reason.clone()),
            _ if in_force || deleting => why,
            (.., Some(Obstacle::Refusal(why) | Obstacle::Proxies(why))) => why,
            (.., None) if observed_generation == 0 => not_in_force().1,
            (.., None) => Why::new(C::NotInForce, "not in force yet; an earlier generation is"),
        };
        Status {
            provisioning,
            operating,
            code: why.code,
            reason: why.text,
            next_attempt_at: failure.map(|failure| failure.next_attempt_at),
            observed_generation,
        }
    }

    /// Provisioning status of a resource, which costs far less than all of its status.
    pub fn provisioning<T: HasStatus>(&self, record: &Record<T>) -> Provisioning {
        self.progress(record).provisioning
    }

    fn progress<T: HasStatus>(&self, record: &Record<T>) -> Progress<'a> {
        // A resource that was deleted and made anew under its id has fewer generations than the one before.
        let observed_generation = self.observation.observed::<T>(record.id).min(record.generation);
        let is_refused = self.observation.carried.refused.contains_key(&record.id);
        let in_force = observed_generation == record.generation && !record.deleting && !is_refused;
        let failure = self.observation.failure.as_ref();
        let failure = failure.filter(|failure| !in_force || failure.scope != FailureScope::Changes);
        let provisioning = match (record.deleting, in_force) {
            (true, _) => Provisioning::PendingDelete,
            _ if is_refused || failure.is_some() => Provisioning::Error,
            (_, true) => Provisioning::Active,
            _ if observed_generation == 0 => Provisioning::PendingCreate,
            _ => Provisioning::PendingUpdate,
        };
        Progress { observed_generation, in_force, failure, provisioning }
    }

    fn roll_up(&self) -> (Operating, Why) {
        let listeners: Vec<(Uuid, Operating)> = alive::<Listener>(self.tree)
            .map(|listener| (listener.id, self.listener(listener).operating))
            .collect();
        if listeners.is_empty() {
            return (Operating::Online, Why::new(C::NoListener, "it has no listener"));
        }
        let count =
            |wanted: Operating| listeners.iter().filter(|(_, operating)| *operating == wanted).count();
        let (total, errors, degraded, off) =
            (listeners.len(), count(Operating::Error), count(Operating::Degraded), count(Operating::Offline));
        match () {
            () if errors == total => {
                (Operating::Error, Why::new(C::AllListenersFailed, "no listener serves"))
            }
            () if errors + degraded > 0 => (
                Operating::Degraded,
                Why::new(
                    C::SomeListenersFailed,
                    format!("{} of {total} listeners have trouble", errors + degraded),
                ),
            ),
            () if off == total => {
                (Operating::Offline, Why::new(C::AllListenersOffline, "all listeners are offline"))
            }
            () => (Operating::Online, self.first_reason(&listeners)),
        }
    }

    /// Reason of the first listener that serves and has something to explain.
    fn first_reason(&self, listeners: &[(Uuid, Operating)]) -> Why {
        let partners = self.session_partners();
        let serving = listeners.iter().filter(|(_, operating)| *operating == Operating::Online);
        let caveats = serving.filter_map(|(id, _)| self.caveat(*id, &partners));
        caveats.map(|(_, why)| why).next().unwrap_or(Why::NONE)
    }
}

/// Obstacle that keeps a resource from being in force.
enum Obstacle {
    /// It cannot be carried as it is.
    Refusal(Why),
    /// Proxies do not serve it yet.
    Proxies(Why),
}

/// Applied generation of a resource; 0: none.
fn applied_generation<T: Resource>(observation: &Observation, id: Uuid) -> u64 {
    let applied = observation.applied.as_ref();
    applied.and_then(|tree| T::find(tree, id)).map_or(0, |record| record.generation)
}

/// Operating status of a resource that has not been applied yet.
fn not_in_force() -> (Operating, Why) {
    (Operating::Offline, Why::new(C::NotInForce, "not in force yet"))
}

fn alive<T: Resource>(tree: &Tree) -> impl Iterator<Item = &Record<T>> {
    T::records(tree).map(AsRef::as_ref).filter(|record| !record.deleting)
}

#[cfg(test)]
mod tests;
