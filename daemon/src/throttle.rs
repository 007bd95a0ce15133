//! Throttle for log lines that others can cause.

use std::time::Duration;

use tokio::time::Instant;

/// Throttle of one kind of event: one line in a period stands for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    period: Duration,
    next: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// Throttle that lets one line through in each period.
    #[must_use]
    pub const fn new(period: Duration) -> Self {
        Self { period, next: None, suppressed: 0 }
    }

    /// Counts an event. Returns the number of events that the line about it stands for, 1 or more; `None`: write no line.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        self.suppressed = self.suppressed.saturating_add(1);
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + self.period);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stands_for_those_before_it() {
        let period = Duration::from_secs(1);
        let (mut throttle, now) = (Throttle::new(period), Instant::now());
        assert_eq!(throttle.admit(now), Some(1));
        assert_eq!(throttle.admit(now), None);
        assert_eq!(throttle.admit(now + period / 2), None);
        assert_eq!(throttle.admit(now + period), Some(3));
        assert_eq!(throttle.admit(now + 3 * period), Some(1));
    }
}
