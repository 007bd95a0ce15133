//! Throttles of log lines that a tenant can cause.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Least time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Throttle of one kind of line, of one listener on one worker.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct LogThrottle {
    next: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl LogThrottle {
    /// Admits a line: the number of lines that were suppressed since the last one. None: this one is
    /// suppressed too.
    pub(in crate::dataplane) fn admit(&self, now: Instant) -> Option<u64> {
        if self.next.get().is_some_and(|next| now < next) {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return None;
        }
        self.next.set(Some(now + INTERVAL));
        Some(self.suppressed.take())
    }
}

/// Throttles of a listener on one worker.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct ListenerThrottles {
    /// A backend cannot be connected to.
    pub(in crate::dataplane) connect: LogThrottle,
    /// No backend is left.
    pub(in crate::dataplane) no_backend: LogThrottle,
    /// All backends are at their limits.
    pub(in crate::dataplane) full: LogThrottle,
    /// The connection limit is reached.
    pub(in crate::dataplane) limit: LogThrottle,
    /// A client has too many connections.
    pub(in crate::dataplane) client_limit: LogThrottle,
    /// A client connects too often.
    pub(in crate::dataplane) client_rate: LogThrottle,
    /// All clients connect too often.
    pub(in crate::dataplane) rate: LogThrottle,
    /// The share of the network is used up.
    pub(in crate::dataplane) share: LogThrottle,
    /// The bandwidth is used up.
    pub(in crate::dataplane) bandwidth: LogThrottle,
    /// The client's address is not allowed.
    pub(in crate::dataplane) cidr: LogThrottle,
    /// A trusted proxy has sent no valid header.
    pub(in crate::dataplane) header: LogThrottle,
    /// The configuration leads back to itself.
    pub(in crate::dataplane) looped: LogThrottle,
    /// The node is short of a resource of its own.
    pub(in crate::dataplane) exhausted: LogThrottle,
    /// A backend is left out, since it fails connections.
    pub(in crate::dataplane) ejected: LogThrottle,
    /// A backend that fails connections is not left out, since others are.
    pub(in crate::dataplane) withheld: LogThrottle,
    /// A backend that was left out accepts connections again.
    pub(in crate::dataplane) back: LogThrottle,
    /// Connections are cut since their backend is gone.
    pub(in crate::dataplane) gone: LogThrottle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppressed_lines_are_counted_in_the_next_one() {
        let (throttle, now) = (LogThrottle::default(), Instant::now());
        assert_eq!(throttle.admit(now), Some(0));
        assert_eq!(throttle.admit(now), None);
        assert_eq!(throttle.admit(now + INTERVAL / 2), None);
        assert_eq!(throttle.admit(now + INTERVAL), Some(2));
        assert_eq!(throttle.admit(now + INTERVAL + INTERVAL), Some(0));
    }
}
