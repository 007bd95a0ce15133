//! Rate of events: so many in each second, counted without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Number of events in the present second. Workers that meet at its border may admit some more.
#[derive(Debug, Default)]
pub(super) struct SecondRate {
    second: AtomicU64,
    count: AtomicU32,
}

impl SecondRate {
    /// True if another event may be in this second, of which there are `most` at most.
    pub(super) fn admit(&self, most: u32, second: u64) -> bool {
        if self.second.load(Relaxed) != second && self.second.swap(second, Relaxed) != second {
            self.count.store(0, Relaxed);
        }
        // What is refused counts no further, so that nothing overflows.
        self.count.load(Relaxed) < most && self.count.fetch_add(1, Relaxed) < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_number() {
        let rate = SecondRate::default();
        let admitted = |second| (0..10).filter(|_| rate.admit(3, second)).count();
        assert_eq!([0, 0, 1, 5, 5].map(admitted), [3, 0, 3, 3, 0]);
    }
}
