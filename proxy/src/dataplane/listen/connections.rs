//! Open connections of one listener on one worker, so that they can be awaited and cut.

use std::{cell::RefCell, rc::Rc};

use slab::Slab;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use uuid::Uuid;

use super::departures::Departures;
use crate::dataplane::{
    account::Parting,
    balance::{PoolDivision, WorkerPool},
};

/// Slots whose memory is kept when all are empty; memory beyond it, left by a burst, is released.
const KEPT_SLOTS: usize = 256;

/// Open connections. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct OpenConnections(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slots: RefCell<Slab<OpenConnection>>,
    empty: Notify,
    /// The listener's pools in force.
    pools: RefCell<Rc<PoolDivision>>,
    departures: RefCell<Departures>,
    /// Told that connections are to be cut.
    wake: Rc<Notify>,
}

/// State of an open connection.
#[derive(Debug, Default)]
struct OpenConnection {
    task: Option<AbortHandle>,
    /// The backend that has accepted it.
    backend: Option<Uuid>,
    /// Tells that backend that the listener sends it no others.
    parting: Option<Parting>,
    /// True if it is cut since its backend is gone.
    is_abandoned: bool,
}

/// Slot of a connection, until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionSlot {
    connections: OpenConnections,
    key: usize,
}

impl OpenConnections {
    /// None yet. `wake` is told whenever [`Self::cut_due`] has something to do that it did not foresee.
    pub(in crate::dataplane) fn new(wake: Rc<Notify>) -> Self {
        Self(Rc::new(Inner { wake, ..Inner::default() }))
    }

    /// Puts pools in force: their drain timeouts, which of their backends are there, and what clients wait for.
    pub(in crate::dataplane) fn set_pools(&self, pools: &Rc<PoolDivision>) {
        let before = self.0.pools.replace(Rc::clone(pools));
        let mut slots = self.0.slots.borrow_mut();
        part(&before, pools, &mut slots);
        let open = slots.iter().filter_map(|(key, slot)| Some((key, slot.backend?)));
        self.0.departures.borrow_mut().renew(&before, pools, &open);
        // Their clients may have other pools now.
        before.pools().for_each(|before| before.wake());
    }

    /// The pools in force.
    pub(in crate::dataplane) fn pools(&self) -> Rc<PoolDivision> {
        Rc::clone(&self.0.pools.borrow())
    }

    /// True if [`Self::cut_due`] may ever have something to do.
    pub(in crate::dataplane) fn is_watched(&self) -> bool {
        self.0.departures.borrow().is_watched()
    }

    /// Cuts the connections whose backend is gone for longer than the drain timeout, and tells their backend and their
    /// number. Returns when the next ones are due.
    pub(in crate::dataplane) fn cut_due(&self, now: Instant, cut: impl Fn(Uuid, usize)) -> Option<Instant> {
        let due = self.0.departures.borrow_mut().review(&self.0.pools.borrow(), now);
        let mut slots = self.0.slots.borrow_mut();
        for (backend, keys) in due.by_backend {
            cut(backend, keys.len());
            for key in keys {
                if let Some(slot) = slots.get_mut(key) {
                    slot.is_abandoned = true;
                    slot.task.as_ref().inspect(|task| task.abort());
                }
            }
        }
        due.next
    }

    /// Takes a slot for a connection that is about to start.
    pub(in crate::dataplane) fn open(&self) -> ConnectionSlot {
        ConnectionSlot {
            connections: self.clone(),
            key: self.0.slots.borrow_mut().insert(OpenConnection::default()),
        }
    }

    /// Sets the task of the connection in a slot. Does nothing if the slot is free again.
    pub(in crate::dataplane) fn set_task(&self, key: usize, task: AbortHandle) {
        if let Some(slot) = self.0.slots.borrow_mut().get_mut(key) {
            slot.task = Some(task);
        }
    }

    /// Number of connections.
    pub(in crate::dataplane) fn len(&self) -> usize {
        self.0.slots.borrow().len()
    }

    /// Waits until there is none.
    pub(in crate::dataplane) async fn drained(&self) {
        while self.len() > 0 {
            self.0.empty.notified().await;
        }
    }

    /// Cuts them all: each ends, and is reset, as soon as its task runs again.
    pub(in crate::dataplane) fn cut(&self) {
        for (_, slot) in self.0.slots.borrow().iter() {
            if let Some(task) = &slot.task {
                task.abort();
            }
        }
    }
}

/// Counts the connections as parting from their backends whose pool has no weight any more, and no longer as that where it has some
/// again.
fn part(before: &PoolDivision, pools: &PoolDivision, slots: &mut Slab<OpenConnection>) {
    let changes = |pool: &Rc<WorkerPool>| before.has_weight(pool.id()) != pools.has_weight(pool.id());
    if !before.pools().chain(pools.pools()).any(changes) {
        return;
    }
    for (_, slot) in slots.iter_mut() {
        let Some(backend) = slot.backend else { continue };
        let Some(pool) = pools.pool_with(backend).or_else(|| before.pool_with(backend)) else { continue };
        if pools.has_weight(pool.id()) {
            slot.parting = None;
        } else if slot.parting.is_none() {
            slot.parting = pool.load(backend).map(Parting::new);
        }
    }
}

impl ConnectionSlot {
    /// Key for [`OpenConnections::set_task`].
    pub(in crate::dataplane) fn key(&self) -> usize {
        self.key
    }

    /// Notes that a backend of `pool` has accepted the connection.
    pub(in crate::dataplane) fn assign(&self, backend: Uuid, pool: &WorkerPool) {
        let inner = &self.connections.0;
        let in_force = inner.pools.borrow();
        if let Some(slot) = inner.slots.borrow_mut().get_mut(self.key) {
            slot.backend = Some(backend);
            let load = pool.load(backend).filter(|_| !in_force.has_weight(pool.id()));
            slot.parting = load.map(Parting::new);
        }
        if inner.departures.borrow_mut().insert(self.key, backend, pool, &in_force) {
            inner.wake.notify_one();
        }
    }

    /// True if the connection is cut since its backend is gone.
    pub(in crate::dataplane) fn is_abandoned(&self) -> bool {
        self.connections.0.slots.borrow().get(self.key).is_some_and(|slot| slot.is_abandoned)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut slots = self.connections.0.slots.borrow_mut();
        if let Some(backend) = slots.try_remove(self.key).and_then(|slot| slot.backend) {
            self.connections.0.departures.borrow_mut().remove(self.key, backend);
        }
        if slots.is_empty() {
            if slots.capacity() > KEPT_SLOTS {
                slots.shrink_to_fit();
            }
            self.connections.0.empty.notify_waiters();
        }
    }
}
