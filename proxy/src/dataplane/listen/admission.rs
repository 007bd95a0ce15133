//! Admission: budget of connections of the process. Each takes descriptors, and one that cannot get them
//! fails a client that had been accepted. So clients are left in the kernel's queue while the budget is
//! spent.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Budget of connections, shared by all workers.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionBudget {
    used: AtomicUsize,
    limit: usize,
}

/// One connection's part of the budget, until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Permit(Arc<ConnectionBudget>);

impl ConnectionBudget {
    /// A budget of `limit` connections.
    pub(in crate::dataplane) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// True if no further client should be accepted. Acceptors that ask at the same moment may all get false:
    /// the limit can be exceeded by one for each listening socket.
    pub(in crate::dataplane) fn is_spent(&self) -> bool {
        self.used.load(Relaxed) >= self.limit
    }

    /// Takes the part of an accepted connection.
    pub(in crate::dataplane) fn take(self: &Arc<Self>) -> Permit {
        self.used.fetch_add(1, Relaxed);
        Permit(Arc::clone(self))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_is_returned() {
        let budget = ConnectionBudget::new(1);
        assert!(!budget.is_spent());
        let permit = budget.take();
        assert!(budget.is_spent());
        drop(permit);
        assert!(!budget.is_spent());
    }
}
