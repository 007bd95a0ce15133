//! Pauses after failures that others would meet in the same way.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Length of a pause.
const PAUSE: Duration = Duration::from_millis(100);

/// A time in which nobody tries what has just failed. Shared by threads without a lock: one of them may try once more
/// than it should.
#[derive(Debug)]
pub(in crate::dataplane) struct RetryPause {
    made: Instant,
    /// Its end, in nanoseconds after it was made. 0: there is none.
    end: AtomicU64,
}

impl Default for RetryPause {
    fn default() -> Self {
        Self { made: Instant::now(), end: AtomicU64::new(0) }
    }
}

impl RetryPause {
    /// Begins, for a tenth of a second.
    pub(in crate::dataplane) fn begin(&self, now: Instant) {
        self.end.store(self.after(now + PAUSE), Relaxed);
    }

    /// True until its end.
    pub(in crate::dataplane) fn is_on(&self, now: Instant) -> bool {
        self.after(now) < self.end.load(Relaxed)
    }

    fn after(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_by_itself() {
        let (pause, now) = (RetryPause::default(), Instant::now());
        assert!(!pause.is_on(now));
        pause.begin(now);
        assert!(pause.is_on(now) && pause.is_on(now + PAUSE / 2));
        assert!(!pause.is_on(now + PAUSE));
    }
}
