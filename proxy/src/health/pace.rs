//! Times of probes: pure arithmetic on random numbers.

use std::time::Duration;

/// Jitter: an interval is longer or shorter than the delay by up to this share of it, so that targets that
/// were added together drift apart, and nodes that check the same backend do not meet.
///
/// A dead backend is down after at most fall x delay x (1 + JITTER) + timeout, and some ticks.
pub const JITTER: f64 = 0.1;

/// Share of the first probes' window that each new target adds: 1,000 first probes a second, or as many as
/// the delay asks for anyway.
const FIRST_PROBE: Duration = Duration::from_millis(1);

/// Time from the start of one probe to the start of the next. `random` is from 0..1.
#[must_use]
pub fn interval(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0))
}

/// Delay of the first probe of target number `index` of `count` new ones. `random` is from 0..1.
///
/// Each has a slot of its own in a window that grows with their number, up to the delay.
#[must_use]
pub fn first(index: usize, count: usize, delay: Duration, random: f64) -> Duration {
    let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let window = FIRST_PROBE.saturating_mul(count).min(delay);
    let index = u32::try_from(index).unwrap_or(u32::MAX).min(count - 1);
    window.mul_f64((f64::from(index) + random.clamp(0.0, 1.0)) / f64::from(count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delays() -> impl Strategy<Value = Duration> {
        (100u64..3_600_000).prop_map(Duration::from_millis)
    }

    proptest! {
        #[test]
        fn pauses_stay_within_the_jitter(delay in delays(), lot in 0.0f64..1.0) {
            let pause = interval(delay, lot);
            prop_assert!(pause >= delay.mul_f64(1.0 - JITTER - 1e-9) && pause <= delay.mul_f64(1.0 + JITTER + 1e-9));
        }

        #[test]
        fn first_probes_are_spread_over_their_window(count in 1usize..3000, delay in delays(), lot in 0.0f64..1.0) {
            let window = Duration::from_millis(count as u64).min(delay);
            let mut tenths = [0usize; 10];
            for index in 0..count {
                let at = first(index, count, delay, lot);
                prop_assert!(at <= window, "{:?} of {:?}", at, window);
                tenths[((at.as_secs_f64() / window.as_secs_f64() * 10.0) as usize).min(9)] += 1;
            }
            prop_assert!(tenths.iter().all(|tenth| *tenth <= count / 10 + 2), "{:?}", tenths);
        }
    }

    #[test]
    fn a_single_target_is_probed_at_once() {
        assert!(first(0, 1, Duration::from_secs(3600), 0.99) < Duration::from_millis(1));
    }
}
