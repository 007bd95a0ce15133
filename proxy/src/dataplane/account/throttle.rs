//! Log lines that a tenant can cause, at most one in a while.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How long one line speaks for those that follow.
const QUIET: Duration = Duration::from_secs(10);

/// One kind of line of one listener on one worker.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    next: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Throttle {
    /// Whether to write the line now: if so, how many were left out since the last one.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        if self.next.get().is_some_and(|next| now < next) {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return None;
        }
        self.next.set(Some(now + QUIET));
        Some(self.suppressed.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_speaks_for_those_that_follow() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.admit(now), Some(0));
        assert_eq!(throttle.admit(now), None);
        assert_eq!(throttle.admit(now + QUIET / 2), None);
        assert_eq!(throttle.admit(now + QUIET), Some(2));
        assert_eq!(throttle.admit(now + QUIET + QUIET), Some(0));
    }
}
