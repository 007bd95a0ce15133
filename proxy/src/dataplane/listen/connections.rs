//! The connections of one listener on one worker, so that they can be awaited and cut.

use std::{cell::RefCell, rc::Rc};

use slab::Slab;
use tokio::{sync::Notify, task::AbortHandle};

/// The memory of so many seats is kept when all are empty; what a rush has left behind beyond it is given back.
const KEPT_SEATS: usize = 256;

/// Connections that are there. Clones are the same roster.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seats: RefCell<Slab<Option<AbortHandle>>>,
    empty: Notify,
}

/// A place on the roster, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    roster: Roster,
    key: usize,
}

impl Roster {
    /// Takes a seat for a connection that is about to start.
    pub(super) fn enter(&self) -> Seat {
        Seat { roster: self.clone(), key: self.0.seats.borrow_mut().insert(None) }
    }

    /// Says which task has the seat. Does nothing if the seat has been left.
    pub(super) fn settle(&self, key: usize, task: AbortHandle) {
        if let Some(seat) = self.0.seats.borrow_mut().get_mut(key) {
            *seat = Some(task);
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.0.seats.borrow().len()
    }

    /// Waits until there is none.
    pub(super) async fn emptied(&self) {
        while self.len() > 0 {
            self.0.empty.notified().await;
        }
    }

    /// Cuts them all: each ends, and is reset, as soon as its task gets its turn.
    pub(super) fn cut(&self) {
        for (_, task) in self.0.seats.borrow().iter() {
            if let Some(task) = task {
                task.abort();
            }
        }
    }
}

impl Seat {
    /// What [`Roster::settle`] takes.
    pub(super) fn key(&self) -> usize {
        self.key
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.roster.0.seats.borrow_mut();
        seats.try_remove(self.key);
        if seats.is_empty() {
            if seats.capacity() > KEPT_SEATS {
                seats.shrink_to_fit();
            }
            self.roster.0.empty.notify_waiters();
        }
    }
}
