//! Index of a listener's open connections on one worker by their backends, and which of them are to be cut: those of a
//! backend that is gone for longer than its pool's drain timeout. Pure but for the health of backends.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::dataplane::{account::BackendLoad, balance::WorkerPool};

/// Connections by backend. Empty as long as no pool has had a drain timeout.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// True once a pool in force has had a drain timeout: there may be groups, now or later.
    is_watched: bool,
    groups: HashMap<Uuid, BackendGroup>,
}

/// Open connections of one backend.
#[derive(Debug)]
struct BackendGroup {
    connections: HashSet<usize>,
    /// Is told the deadline.
    load: Arc<BackendLoad>,
    pool: Uuid,
    timeout: Duration,
    /// Time at which the backend was first seen gone; None: it is there.
    gone_since: Option<Instant>,
}

/// Connections that are to be cut.
#[derive(Debug, Default)]
pub(super) struct DueConnections {
    /// Their keys, by backend.
    pub(super) by_backend: Vec<(Uuid, HashSet<usize>)>,
    /// Time at which the next ones are due, if their backends do not return.
    pub(super) next: Option<Instant>,
}

impl Departures {
    /// True if connections may have to be cut, now or later.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Follows the pool in force, which takes the place of the one `before`. `open`: all connections that have a backend;
    /// those of a pool that had no drain timeout before are in no group yet.
    pub(super) fn renew(
        &mut self,
        before: Option<&WorkerPool>,
        pool: Option<&WorkerPool>,
        open: impl Iterator<Item = (usize, Uuid)>,
    ) {
        self.is_watched |= pool.is_some_and(|pool| pool.drain_timeout().is_some());
        let (Some(before), Some(pool)) = (before, pool) else { return };
        if before.id() != pool.id() || before.drain_timeout() == pool.drain_timeout() {
            return;
        }
        let Some(timeout) = pool.drain_timeout() else {
            let kept = |_: &Uuid, group: &mut BackendGroup| group.pool == pool.id();
            self.groups.extract_if(kept).for_each(|(_, group)| group.load.set_drain_deadline(None));
            return;
        };
        self.groups
            .values_mut()
            .filter(|group| group.pool == pool.id())
            .for_each(|group| group.timeout = timeout);
        if before.drain_timeout().is_none() {
            for (key, backend) in open {
                if let Some(load) = before.load(backend).or_else(|| pool.load(backend)) {
                    self.add(key, (backend, load), pool.id(), timeout);
                }
            }
        }
    }

    /// Adds a connection that a backend has accepted, as one of `pool`, which has it. True: the backend is gone already.
    pub(super) fn insert(
        &mut self,
        key: usize,
        backend: Uuid,
        pool: &WorkerPool,
        in_force: Option<&WorkerPool>,
    ) -> bool {
        let same = in_force.filter(|it| it.id() == pool.id());
        let Some(timeout) = same.unwrap_or(pool).drain_timeout() else { return false };
        let Some(load) = pool.load(backend) else { return false };
        self.add(key, (backend, load), pool.id(), timeout);
        !is_there(in_force, pool.id(), backend)
    }

    fn add(&mut self, key: usize, (backend, load): (Uuid, &Arc<BackendLoad>), pool: Uuid, timeout: Duration) {
        let group = self.groups.entry(backend).or_insert_with(|| BackendGroup {
            connections: HashSet::new(),
            load: Arc::clone(load),
            pool,
            timeout,
            gone_since: None,
        });
        group.connections.insert(key);
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, key: usize, backend: Uuid) {
        let Some(group) = self.groups.get_mut(&backend) else { return };
        group.connections.remove(&key);
        if group.connections.is_empty() {
            self.groups.remove(&backend);
        }
    }

    /// Looks at all backends with connections, tells their deadlines, and takes out of the index what is due.
    pub(super) fn review(&mut self, in_force: Option<&WorkerPool>, now: Instant) -> DueConnections {
        let mut due = DueConnections::default();
        self.groups.retain(|backend, group| {
            if is_there(in_force, group.pool, *backend) {
                if group.gone_since.take().is_some() {
                    group.load.set_drain_deadline(None);
                }
                return true;
            }
            let deadline = *group.gone_since.get_or_insert(now) + group.timeout;
            if deadline > now {
                group.load.set_drain_deadline(Some(deadline.into_std()));
                due.next = Some(due.next.map_or(deadline, |next| next.min(deadline)));
                return true;
            }
            due.by_backend.push((*backend, std::mem::take(&mut group.connections)));
            false
        });
        due
    }
}

/// True if a backend of a pool is one that the pool in force may send new connections to.
fn is_there(in_force: Option<&WorkerPool>, pool: Uuid, backend: Uuid) -> bool {
    in_force.is_some_and(|in_force| in_force.id() == pool && in_force.is_there(backend))
}
