//! How many connections the process may have: each takes descriptors, and one that cannot get them fails a client that had been
//! accepted. So clients are left in the kernel's queue while there is no room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Room for connections, shared by all workers.
#[derive(Debug)]
pub(super) struct Room {
    taken: AtomicUsize,
    size: usize,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Room {
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), size })
    }

    /// Whether nobody else should be let in. Those that ask at the same moment may all hear no: one for each listening socket.
    pub(super) fn is_full(&self) -> bool {
        self.taken.load(Relaxed) >= self.size
    }

    /// Takes a place for a connection that is there.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        self.taken.fetch_add(1, Relaxed);
        Place(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let room = Room::new(1);
        assert!(!room.is_full());
        let place = room.enter();
        assert!(room.is_full());
        drop(place);
        assert!(!room.is_full());
    }
}
