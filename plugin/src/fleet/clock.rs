//! Time of the fleet: the clock by which stored durations are measured.
//!
//! It counts milliseconds in which a plugin led, by that plugin's monotonic clock, and what was counted is stored from time to
//! time: the next leader goes on from there. So no clock of a machine that is set or jumps ends or stretches a drain. Time
//! without a leader does not count, nor do up to [`STEP`] before a leader's end.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::directory::records::VERSION;

/// Time after which the clock is stored again while a stored duration runs.
pub(in crate::fleet) const STEP: Duration = Duration::from_secs(5);

/// Time of the fleet in milliseconds, from the first leader on.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) struct FleetClock {
    /// Time of the fleet at `started`.
    base_ms: u64,
    started: Instant,
    /// Time that is stored.
    stored_ms: u64,
}

/// Stored form of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fleet) struct ClockRecord {
    version: u32,
    /// Time of the fleet, in milliseconds.
    pub ms: u64,
}

impl ClockRecord {
    /// Record of a time of the fleet.
    pub(in crate::fleet) fn new(ms: u64) -> Self {
        Self { version: VERSION, ms }
    }
}

impl FleetClock {
    /// The clock of a fleet that has stored nothing, from `started` on.
    pub(in crate::fleet) fn new(started: Instant) -> Self {
        Self { base_ms: 0, started, stored_ms: 0 }
    }

    /// Time of the fleet at `now`, in milliseconds.
    pub(in crate::fleet) fn ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        self.base_ms.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Goes on from a time that is stored, where that is later.
    pub(in crate::fleet) fn restore(&mut self, stored_ms: u64, now: Instant) {
        self.stored_ms = self.stored_ms.max(stored_ms);
        let behind = stored_ms.saturating_sub(self.ms(now));
        self.base_ms = self.base_ms.saturating_add(behind);
    }

    /// Time that is to be stored at `now`; `None`: what is stored is recent enough.
    pub(in crate::fleet) fn unstored(&self, now: Instant) -> Option<u64> {
        let ms = self.ms(now);
        let step = u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX);
        (ms.saturating_sub(self.stored_ms) >= step).then_some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_from_what_is_stored_and_never_back() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut clock = FleetClock::new(start);
        assert_eq!((clock.ms(at(3)), clock.unstored(at(3))), (3000, None));
        assert_eq!(clock.unstored(at(5)), Some(5000));
        clock.restore(5000, at(5));
        assert_eq!((clock.ms(at(5)), clock.unstored(at(9))), (5000, None));
        let mut next = FleetClock::new(at(60));
        next.restore(5000, at(60));
        assert_eq!(next.ms(at(61)), 6000, "time without a leader does not count");
        next.restore(1000, at(61));
        assert_eq!(next.ms(at(61)), 6000);
    }
}
