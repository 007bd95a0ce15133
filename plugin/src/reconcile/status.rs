//! What a user sees of each resource: a pure function of what is stored and what was observed.

use uuid::Uuid;

use super::Observation;
use crate::resources::{Backend, HealthCheck, Kind, Listener, Pool, Record, Resource, Tree};

/// How far a resource is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provisioning {
    /// In force.
    Active,
    /// Not in force yet.
    PendingCreate,
    /// In force with an earlier generation.
    PendingUpdate,
    /// Deleted, and not gone from OVN.
    PendingDelete,
    /// The last attempt failed; another one follows.
    Error,
}

/// What a user of a resource meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operating {
    /// Works.
    Online,
    /// Takes no new connections.
    Draining,
    /// Switched off, or not in force.
    Offline,
    /// Partly works.
    Degraded,
    /// Does not work.
    Error,
    /// In rotation, unchecked.
    NoMonitor,
}

/// The status of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// How far it is carried out.
    pub provisioning: Provisioning,
    /// What its user meets.
    pub operating: Operating,
    /// Why, for a person; empty where there is nothing to explain.
    pub reason: String,
    /// When the next attempt follows, in milliseconds since 1970.
    pub next_attempt_at: Option<u64>,
    /// The generation in force; 0: none.
    pub observed_generation: u64,
}

/// The statuses of a tree.
#[derive(Clone, Copy)]
pub struct Statuses<'a> {
    tree: &'a Tree,
    observation: &'a Observation,
    waiting_for: Option<&'a str>,
}

impl<'a> Statuses<'a> {
    /// Statuses of `tree`, by what was observed of it; `waiting_for` says what the reconciler cannot go on without.
    pub fn new(tree: &'a Tree, observation: &'a Observation, waiting_for: Option<&'a str>) -> Self {
        Self { tree, observation, waiting_for }
    }

    /// The load balancer's.
    pub fn load_balancer(&self) -> Status {
        let record = &self.tree.load_balancer;
        let applied = self.observation.applied.as_ref();
        let observed = applied.map_or(0, |tree| tree.load_balancer.generation);
        let (operating, reason) = if !record.spec.admin_state_up {
            (Operating::Offline, "switched off".to_owned())
        } else if observed == 0 {
            (Operating::Offline, "not in force yet".to_owned())
        } else {
            self.roll_up()
        };
        self.status(record.generation, observed, record.deleting, None, (operating, reason))
    }

    /// A listener's.
    pub fn listener(&self, record: &Record<Listener>) -> Status {
        let refused = self.observation.refused.get(&record.id);
        let observed = if refused.is_some() { 0 } else { self.observed::<Listener>(record.id) };
        let operating = match refused {
            Some(reason) => (Operating::Error, reason.clone()),
            None => self.listener_operating(record),
        };
        self.status(record.generation, observed, record.deleting, refused, operating)
    }

    /// A pool's.
    pub fn pool(&self, record: &Record<Pool>) -> Status {
        let observed = self.observed::<Pool>(record.id);
        self.status(record.generation, observed, record.deleting, None, self.pool_operating(record))
    }

    /// A backend's.
    pub fn backend(&self, record: &Record<Backend>) -> Status {
        let observed = self.observed::<Backend>(record.id);
        self.status(record.generation, observed, record.deleting, None, self.backend_operating(record))
    }

    /// A health check's.
    pub fn health_check(&self, record: &Record<HealthCheck>) -> Status {
        let observed = self.observed::<HealthCheck>(record.id);
        let operating = if record.spec.admin_state_up {
            (Operating::NoMonitor, "stored; no health checker carries it out yet".to_owned())
        } else {
            (Operating::Offline, "switched off".to_owned())
        };
        self.status(record.generation, observed, record.deleting, None, operating)
    }

    fn observed<T: Resource>(&self, id: Uuid) -> u64 {
        let applied = self.observation.applied.as_ref();
        applied.and_then(|tree| T::of(tree).get(&id)).map_or(0, |record| record.generation)
    }

    fn status(
        &self,
        generation: u64,
        observed_generation: u64,
        deleting: bool,
        refused: Option<&String>,
        (operating, why): (Operating, String),
    ) -> Status {
        let in_force = observed_generation == generation && !deleting;
        let failure = self.observation.failure.as_ref().filter(|_| !in_force);
        let provisioning = match (deleting, in_force) {
            (true, _) => Provisioning::PendingDelete,
            (_, true) => Provisioning::Active,
            _ if refused.is_some() || failure.is_some() => Provisioning::Error,
            _ if observed_generation == 0 => Provisioning::PendingCreate,
            _ => Provisioning::PendingUpdate,
        };
        let waiting = self.waiting_for.filter(|_| !in_force);
        let reason = match (waiting, failure) {
            (Some(waiting), _) => waiting.to_owned(),
            (None, Some(failure)) => failure.reason.clone(),
            (None, None) => why,
        };
        Status {
            provisioning,
            operating,
            reason,
            next_attempt_at: failure.map(|failure| failure.next_attempt_at),
            observed_generation,
        }
    }

    fn roll_up(&self) -> (Operating, String) {
        let listeners: Vec<(Uuid, Operating)> = alive::<Listener>(self.tree)
            .map(|listener| (listener.id, self.listener(listener).operating))
            .collect();
        if listeners.is_empty() {
            return (Operating::Online, "it has no listener".to_owned());
        }
        let count =
            |wanted: Operating| listeners.iter().filter(|(_, operating)| *operating == wanted).count();
        let (total, errors, degraded, off) =
            (listeners.len(), count(Operating::Error), count(Operating::Degraded), count(Operating::Offline));
        match () {
            () if errors == total => (Operating::Error, "no listener serves".to_owned()),
            () if errors + degraded > 0 => {
                (Operating::Degraded, format!("{} of {total} listeners have trouble", errors + degraded))
            }
            () if off == total => (Operating::Offline, "all listeners are offline".to_owned()),
            () => (Operating::Online, String::new()),
        }
    }

    fn listener_operating(&self, record: &Record<Listener>) -> (Operating, String) {
        if !record.spec.admin_state_up || !self.tree.load_balancer.spec.admin_state_up {
            return (Operating::Offline, "switched off: connections are refused".to_owned());
        }
        let pool = record.spec.default_pool_id.and_then(|id| self.tree.pools.get(&id));
        match pool {
            None => (Operating::Offline, "no default pool: connections are refused".to_owned()),
            Some(pool) => match self.pool_operating(pool) {
                (Operating::NoMonitor, _) => (Operating::Online, String::new()),
                other => other,
            },
        }
    }

    fn pool_operating(&self, record: &Record<Pool>) -> (Operating, String) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, "the pool is switched off: connections are refused".to_owned());
        }
        let backends: Vec<_> = self.tree.backends_of(record.id).filter(|backend| !backend.deleting).collect();
        let serving = |backend: &Record<Backend>| backend.spec.admin_state_up && backend.spec.weight > 0;
        if backends.is_empty() {
            (Operating::Offline, "the pool has no backend: connections are refused".to_owned())
        } else if !backends.into_iter().any(|backend| serving(backend)) {
            (
                Operating::Offline,
                "every backend is switched off or draining: connections are refused".to_owned(),
            )
        } else {
            (Operating::Online, String::new())
        }
    }

    fn backend_operating(&self, record: &Record<Backend>) -> (Operating, String) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, "switched off".to_owned());
        }
        if record.spec.weight == 0 {
            return (Operating::Draining, "weight 0: no new connections".to_owned());
        }
        let checked =
            self.tree.health_check_of(record.spec.pool_id).is_some_and(|check| check.spec.admin_state_up);
        let why =
            if checked { "in rotation; no health checker carries out its pool's check yet" } else { "" };
        (Operating::NoMonitor, why.to_owned())
    }
}

fn alive<T: Resource>(tree: &Tree) -> impl Iterator<Item = &Record<T>> {
    T::of(tree).values().map(AsRef::as_ref).filter(|record| !record.deleting)
}

impl Statuses<'_> {
    /// The status of any resource of the tree.
    pub fn of(&self, kind: Kind, id: Uuid) -> Option<Status> {
        match kind {
            Kind::LoadBalancer => (self.tree.id() == id).then(|| self.load_balancer()),
            Kind::Listener => self.tree.listeners.get(&id).map(|record| self.listener(record)),
            Kind::Pool => self.tree.pools.get(&id).map(|record| self.pool(record)),
            Kind::Backend => self.tree.backends.get(&id).map(|record| self.backend(record)),
            Kind::HealthCheck => self.tree.health_checks.get(&id).map(|record| self.health_check(record)),
        }
    }
}
