//! A pool as connections meet it: what is configured, shared by all workers, and the turns, of each worker its own.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use uuid::Uuid;

use super::{
    configuration::{Algorithm, Backend, Pool},
    rotation::{BackendState, Rotation},
    selection::{self, Chooser, Eligible, Persistence, Standing},
};

/// A pool as it is configured. Only health and counts of connections change, behind it.
#[derive(Debug)]
pub(super) struct PoolSnapshot {
    id: Uuid,
    algorithm: Algorithm,
    members: Vec<Member>,
    places: HashMap<Uuid, usize>,
    persistence: Option<Arc<Persistence>>,
}

/// A backend and what changes about it.
#[derive(Debug)]
pub(super) struct Member {
    backend: Backend,
    identity: u64,
    state: Arc<BackendState>,
}

impl Member {
    pub(super) fn id(&self) -> Uuid {
        self.backend.id
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.backend.address
    }

    pub(super) fn state(&self) -> &Arc<BackendState> {
        &self.state
    }

    fn standing(&self) -> Standing {
        Standing {
            up: self.backend.enabled && self.state.is_up(),
            weight: self.backend.weight,
            backup: self.backend.backup,
            active: self.state.active(),
            identity: self.identity,
        }
    }
}

impl PoolSnapshot {
    /// Joins what is configured with what is known of the backends, and of the clients that an `older` snapshot remembers.
    pub(super) fn new(pool: &Pool, rotation: &Rotation, older: Option<&Self>) -> Self {
        let members: Vec<Member> = pool.backends.iter().map(|backend| member(backend, rotation)).collect();
        let places = members.iter().enumerate().map(|(place, member)| (member.id(), place)).collect();
        Self {
            id: pool.id,
            algorithm: pool.algorithm,
            members,
            places,
            persistence: persistence(pool, older),
        }
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }
}

fn member(backend: &Backend, rotation: &Rotation) -> Member {
    Member {
        identity: selection::identity(backend.id),
        state: rotation.state(backend.id, backend.starts_in_rotation),
        backend: backend.clone(),
    }
}

fn persistence(pool: &Pool, older: Option<&PoolSnapshot>) -> Option<Arc<Persistence>> {
    let timeout = pool.persistence?.timeout;
    let kept = older.and_then(|older| older.persistence.as_ref()).filter(|table| table.timeout() == timeout);
    Some(kept.map_or_else(|| Arc::new(Persistence::new(timeout)), Arc::clone))
}

/// A pool on one worker.
#[derive(Debug)]
pub(super) struct WorkerPool {
    snapshot: Arc<PoolSnapshot>,
    turns: RefCell<Turns>,
}

#[derive(Debug)]
struct Turns {
    chooser: Chooser,
    /// Memory for the choice, used again.
    eligible: Vec<Eligible>,
}

impl WorkerPool {
    /// The pool on worker number `worker`, with the turns that an `older` one on it had.
    pub(super) fn new(snapshot: Arc<PoolSnapshot>, worker: usize, older: Option<&Self>) -> Self {
        let mut chooser = Chooser::new(snapshot.algorithm, snapshot.members.len(), worker);
        if let Some(older) = older {
            chooser.inherit(&older.turns.borrow().chooser, |place| {
                snapshot
                    .members
                    .get(place)
                    .and_then(|member| older.snapshot.places.get(&member.id()).copied())
            });
        }
        Self { snapshot, turns: RefCell::new(Turns { chooser, eligible: Vec::new() }) }
    }

    /// Whether it is this very snapshot.
    pub(super) fn is(&self, snapshot: &Arc<PoolSnapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
    }

    /// The next backend to try for a client, with its place, which belongs into `tried` if it fails. None: none is left.
    pub(super) fn next(&self, client: SocketAddr, tried: &[usize], now: Instant) -> Option<(usize, &Member)> {
        let members = &self.snapshot.members;
        let mut turns = self.turns.borrow_mut();
        let Turns { chooser, eligible } = &mut *turns;
        selection::eligible(members.iter().map(Member::standing), tried, eligible);
        let place = self.persistent(client, eligible, now).or_else(|| chooser.choose(client, eligible))?;
        members.get(place).map(|member| (place, member))
    }

    /// The place of the backend that the client had, while it may be chosen.
    fn persistent(&self, client: SocketAddr, eligible: &[Eligible], now: Instant) -> Option<usize> {
        let had = self.snapshot.persistence.as_ref()?.find(client.ip(), now)?;
        let place = *self.snapshot.places.get(&had)?;
        eligible.iter().any(|candidate| candidate.index == place).then_some(place)
    }

    /// The client has reached a backend.
    pub(super) fn remember(&self, client: SocketAddr, backend: Uuid, now: Instant) {
        if let Some(table) = &self.snapshot.persistence {
            table.remember(client.ip(), backend, now);
        }
    }
}
