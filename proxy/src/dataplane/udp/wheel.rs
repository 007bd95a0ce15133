//! Timing wheel of an idle timeout. Pure.
//!
//! Use of an item does not touch the wheel: an item comes up about once in a timeout, and is put back if it was used since. An
//! item costs no timer of its own.

use std::time::{Duration, Instant};

/// Parts of the timeout: an item comes up by at most two of them too late.
const PARTS: u32 = 16;

/// Shortest step of the hand, so that a short timeout does not keep a thread busy.
const SHORTEST_STEP: Duration = Duration::from_millis(5);

/// Items by the time at which they may be due.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    timeout: Duration,
    step: Duration,
    slots: Vec<Vec<T>>,
    /// Slot of the next step.
    hand: usize,
    /// Time of the next step.
    next: Instant,
}

impl<T> Wheel<T> {
    /// A wheel without items.
    pub(super) fn new(timeout: Duration, now: Instant) -> Self {
        let step = (timeout / PARTS).max(SHORTEST_STEP);
        let slots = (0..=PARTS + 1).map(|_| Vec::new()).collect();
        Self { timeout, step, slots, hand: 0, next: now + step }
    }

    /// The idle timeout.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Time of the next step.
    pub(super) fn next_step(&self) -> Instant {
        self.next
    }

    /// Inserts an item that was last used at `used`.
    pub(super) fn insert(&mut self, item: T, used: Instant) {
        let wait = (used + self.timeout).saturating_duration_since(self.next);
        let steps = wait.as_nanos().div_ceil(self.step.as_nanos().max(1));
        let furthest = self.slots.len() - 1;
        let steps = usize::try_from(steps).unwrap_or(furthest).min(furthest);
        let slot = (self.hand + steps) % self.slots.len();
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.push(item);
        }
    }

    /// Takes the items that may be due: each has been idle for the timeout, unless it was used since it was inserted, or
    /// was inserted while the hand was late.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<T> {
        let mut due = Vec::new();
        for _ in 0..self.slots.len() {
            if now < self.next {
                return due;
            }
            if let Some(slot) = self.slots.get_mut(self.hand) {
                if due.is_empty() {
                    // Its memory goes with them.
                    due = std::mem::take(slot);
                } else {
                    due.append(&mut std::mem::take(slot));
                }
            }
            self.hand = (self.hand + 1) % self.slots.len();
            self.next += self.step;
        }
        // The thread did not run for longer than a whole turn.
        self.next = self.next.max(now + self.step);
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_item_comes_up_after_its_timeout_and_soon(
            timeout_ms in 1_u64..100_000, used_ms in 0_u64..100_000, pace_ms in 1_u64..10_000,
        ) {
            let start = Instant::now();
            let at = |ms| start + Duration::from_millis(ms);
            let mut wheel = Wheel::new(Duration::from_millis(timeout_ms), start);
            let mut now = 0;
            while now < used_ms {
                prop_assert!(wheel.take_due(at(now)).is_empty());
                now += pace_ms;
            }
            prop_assert!(wheel.take_due(at(now)).is_empty());
            wheel.insert((), at(now));
            let due = now + timeout_ms;
            let latest = due + 2 * (timeout_ms / 16).max(5) + 1 + pace_ms;
            let found = loop {
                if !wheel.take_due(at(now)).is_empty() {
                    break now;
                }
                prop_assert!(now <= latest, "not yet at {now}, due at {due}");
                now += pace_ms;
            };
            prop_assert!((due..=latest).contains(&found), "{found} is not within {due} and {latest}");
        }
    }

    #[test]
    fn a_long_pause_brings_up_all_once() {
        let start = Instant::now();
        let mut wheel = Wheel::new(Duration::from_secs(16), start);
        (0..10).for_each(|item| wheel.insert(item, start + Duration::from_secs(item)));
        let much_later = start + Duration::from_secs(86_400);
        assert_eq!(wheel.take_due(much_later).len(), 10);
        assert!(wheel.next_step() > much_later);
        assert!(wheel.take_due(much_later + Duration::from_secs(60)).is_empty());
    }
}
