//! Open connections of one listener on one worker, so that they can be awaited and cut.

use std::{cell::RefCell, rc::Rc};

use slab::Slab;
use tokio::{sync::Notify, task::AbortHandle};

/// Slots whose memory is kept when all are empty; memory beyond it, left by a burst, is released.
const KEPT_SLOTS: usize = 256;

/// Open connections. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub(in crate::dataplane) struct OpenConnections(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slots: RefCell<Slab<Option<AbortHandle>>>,
    empty: Notify,
}

/// Slot of a connection, until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionSlot {
    connections: OpenConnections,
    key: usize,
}

impl OpenConnections {
    /// Takes a slot for a connection that is about to start.
    pub(in crate::dataplane) fn open(&self) -> ConnectionSlot {
        ConnectionSlot { connections: self.clone(), key: self.0.slots.borrow_mut().insert(None) }
    }

    /// Sets the task of the connection in a slot. Does nothing if the slot is free again.
    pub(in crate::dataplane) fn set_task(&self, key: usize, task: AbortHandle) {
        if let Some(slot) = self.0.slots.borrow_mut().get_mut(key) {
            *slot = Some(task);
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
        for (_, task) in self.0.slots.borrow().iter() {
            if let Some(task) = task {
                task.abort();
            }
        }
    }
}

impl ConnectionSlot {
    /// Key for [`OpenConnections::set_task`].
    pub(in crate::dataplane) fn key(&self) -> usize {
        self.key
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut slots = self.connections.0.slots.borrow_mut();
        slots.try_remove(self.key);
        if slots.is_empty() {
            if slots.capacity() > KEPT_SLOTS {
                slots.shrink_to_fit();
            }
            self.connections.0.empty.notify_waiters();
        }
    }
}
