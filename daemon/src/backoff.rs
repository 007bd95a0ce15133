//! Exponential backoff with jitter. Pure: the caller has the clock and the random number.

use std::time::Duration;

/// Exponential backoff: waits that double between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    least: Duration,
    most: Duration,
}

impl Backoff {
    /// Backoff that waits `least` after the first failure, and `most` at the longest.
    #[must_use]
    pub const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most }
    }

    /// Wait after so many failures in a row; the first is 1, and 0 counts as 1.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(u32::BITS - 1);
        self.least.saturating_mul(1 << doublings).min(self.most)
    }

    /// The same with jitter: half of the wait, and up to its other half more, by a random number from 0 to 1. Peers that
    /// failed together do not come back together.
    #[must_use]
    pub fn after_with_jitter(self, failures: u32, random: f64) -> Duration {
        self.after(failures).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(1500));

    #[test]
    fn waits_double_up_to_the_bound() {
        let waits: Vec<u128> = (0..=7).map(|failures| BACKOFF.after(failures).as_millis()).collect();
        assert_eq!(waits, [100, 100, 200, 400, 800, 1500, 1500, 1500]);
    }

    #[test]
    fn a_least_above_the_most_is_the_most() {
        let backoff = Backoff::new(Duration::from_secs(9), Duration::from_secs(5));
        assert_eq!(backoff.after(1), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_jitter_takes_at_most_half(failures: u32, random in 0.0..=1.0_f64) {
            let wait = BACKOFF.after(failures);
            prop_assert!(wait >= BACKOFF.least && wait <= BACKOFF.most);
            prop_assert!(BACKOFF.after(failures.saturating_add(1)) >= wait);
            let jittered = BACKOFF.after_with_jitter(failures, random);
            prop_assert!(jittered >= wait / 2 && jittered <= wait);
        }
    }
}
