//! Index of a listener's open connections on one worker by their backends, and which of them are to be cut: those of a
//! backend that is gone for longer than its pool's drain timeout. Pure but for the health of backends.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::dataplane::{
    account::BackendLoad,
    balance::{PoolDivision, WorkerPool},
};

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

    /// Follows the pools in force, which take the place of those `before`. `open`: all connections that have a backend;
    /// those of a pool that had no drain timeout before, or was not there, may be in no group yet.
    pub(super) fn renew(
        &mut self,
        before: &PoolDivision,
        pools: &PoolDivision,
        open: &(impl Iterator<Item = (usize, Uuid)> + Clone),
    ) {
        self.is_watched |= pools.pools().any(|pool| pool.drain_timeout().is_some());
        for pool in pools.pools() {
            self.renew_pool(before.pool(pool.id()).map(Rc::as_ref), pool, open.clone());
        }
    }

    fn renew_pool(
        &mut self,
        before: Option<&WorkerPool>,
        pool: &WorkerPool,
        open: impl Iterator<Item = (usize, Uuid)>,
    ) {
        // One that was not there may have been before, with connections.
        if before.is_some_and(|before| before.drain_timeout() == pool.drain_timeout()) {
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
        if before.and_then(WorkerPool::drain_timeout).is_none() {
            for (key, backend) in open {
                let load = before.and_then(|before| before.load(backend));
                if let Some(load) = load.or_else(|| pool.load(backend)) {
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
        in_force: &PoolDivision,
    ) -> bool {
        let same = in_force.pool(pool.id()).map(Rc::as_ref);
        let Some(timeout) = same.unwrap_or(pool).drain_timeout() else { return false };
        let Some(load) = pool.load(backend) else { return false };
        self.add(key, (backend, load), pool.id(), timeout);
        !in_force.is_there(pool.id(), backend)
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
    pub(super) fn review(&mut self, in_force: &PoolDivision, now: Instant) -> DueConnections {
        let mut due = DueConnections::default();
        self.groups.retain(|backend, group| {
            if in_force.is_there(group.pool, *backend) {
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
