//! Idle timeouts of a connection. Pure.

use std::time::{Duration, Instant};

use crate::dataplane::spec::Limits;

/// Idle timeout of a connection with one direction closed, where its data timeout is not shorter still: a
/// peer that never closes its half cannot hold the connection.
const HALF_CLOSED: Duration = Duration::from_secs(300);

/// Event that a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The sender sends.
    Read,
    /// The receiver has room.
    Write,
    /// None: the direction is finished.
    Nothing,
    /// The bandwidth of the listener allows for more, at this time.
    Bandwidth(Instant),
}

/// Idle timeout of the connection: `up` is the event that the direction from client to backend waits for,
/// `down` the other one's. No timeout runs for a side that nobody waits for, because the other one does not
/// receive its bytes.
pub(super) fn idle_timeout(limits: &Limits, up: WaitsFor, down: WaitsFor) -> Option<Duration> {
    let client = (up == WaitsFor::Read || down == WaitsFor::Write).then_some(limits.client_data).flatten();
    let backend = (down == WaitsFor::Read || up == WaitsFor::Write).then_some(limits.backend_data).flatten();
    let half_closed = (up == WaitsFor::Nothing || down == WaitsFor::Nothing).then_some(HALF_CLOSED);
    [client, backend, half_closed].into_iter().flatten().min()
}

/// The time at which the first of two directions goes on that wait for bandwidth; None: none does.
pub(super) fn bandwidth(up: WaitsFor, down: WaitsFor) -> Option<Instant> {
    let ready = |waits| if let WaitsFor::Bandwidth(ready) = waits { Some(ready) } else { None };
    ready(up).into_iter().chain(ready(down)).min()
}

/// Instant at which a connection that was last active at `active` times out; None if it never does.
pub(super) fn deadline(active: Instant, timeout: Option<Duration>) -> Option<Instant> {
    active.checked_add(timeout?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Duration = Duration::from_secs(50);
    const BACKEND: Duration = Duration::from_secs(20);

    fn timeouts(client: Option<Duration>, backend: Option<Duration>) -> Limits {
        Limits { client_data: client, backend_data: backend, ..Limits::default() }
    }

    #[test]
    fn the_side_whose_turn_it_is_sets_the_limit() {
        let both = timeouts(Some(CLIENT), Some(BACKEND));
        assert_eq!(idle_timeout(&both, WaitsFor::Read, WaitsFor::Read), Some(BACKEND));
        assert_eq!(
            idle_timeout(&both, WaitsFor::Read, WaitsFor::Write),
            Some(CLIENT),
            "a client that does not read"
        );
        assert_eq!(idle_timeout(&both, WaitsFor::Write, WaitsFor::Read), Some(BACKEND));
        assert_eq!(idle_timeout(&both, WaitsFor::Nothing, WaitsFor::Read), Some(BACKEND));
        assert_eq!(idle_timeout(&both, WaitsFor::Read, WaitsFor::Nothing), Some(CLIENT));
    }

    #[test]
    fn the_first_of_two_that_wait_for_bandwidth_is_woken() {
        let now = Instant::now();
        let [first, second] = [now, now + CLIENT].map(WaitsFor::Bandwidth);
        assert_eq!(bandwidth(WaitsFor::Read, WaitsFor::Write), None);
        assert_eq!(bandwidth(WaitsFor::Read, second), Some(now + CLIENT));
        assert_eq!(bandwidth(second, first), Some(now));
    }

    #[test]
    fn without_timeouts_only_a_half_closed_connection_has_a_limit() {
        let none = timeouts(None, None);
        assert_eq!(idle_timeout(&none, WaitsFor::Read, WaitsFor::Read), None);
        assert_eq!(idle_timeout(&none, WaitsFor::Nothing, WaitsFor::Read), Some(HALF_CLOSED));
        assert_eq!(idle_timeout(&none, WaitsFor::Write, WaitsFor::Nothing), Some(HALF_CLOSED));
        let long = timeouts(Some(Duration::from_secs(86_400)), None);
        assert_eq!(idle_timeout(&long, WaitsFor::Read, WaitsFor::Nothing), Some(HALF_CLOSED));
        assert_eq!(deadline(Instant::now(), None), None);
    }
}
