//! Idle timeouts of a connection. Pure.

use std::time::{Duration, Instant};

use super::RelayEnd;
use crate::dataplane::spec::Limits;

/// Idle timeout of a connection of which one side has closed its half, where the listener has none for it: a peer that
/// never closes its own cannot hold the connection.
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

/// Idle timeout of the connection, and the end that it makes: `up` is the event that the direction from client to backend
/// waits for, `down` the other one's. No timeout runs for a side that nobody waits for, because the other one does not
/// receive its bytes.
pub(super) fn timeout(limits: &Limits, up: WaitsFor, down: WaitsFor) -> Option<(Duration, RelayEnd)> {
    let client = (up == WaitsFor::Read || down == WaitsFor::Write).then_some(limits.client_data).flatten();
    let backend = (down == WaitsFor::Read || up == WaitsFor::Write).then_some(limits.backend_data).flatten();
    let data = client.into_iter().chain(backend).min();
    let is_half_closed = up == WaitsFor::Nothing || down == WaitsFor::Nothing;
    let half_closed = is_half_closed.then(|| limits.half_close.unwrap_or(HALF_CLOSED));
    match (data, half_closed) {
        (Some(data), Some(half_closed)) if limits.half_close.is_none() && data <= half_closed => {
            Some((data, RelayEnd::TimedOut))
        }
        (_, Some(half_closed)) => Some((half_closed, RelayEnd::HalfClosed)),
        (data, None) => Some((data?, RelayEnd::TimedOut)),
    }
}

/// The time at which the first of two directions goes on that wait for bandwidth; None: none does.
pub(super) fn bandwidth(up: WaitsFor, down: WaitsFor) -> Option<Instant> {
    let ready = |waits| if let WaitsFor::Bandwidth(ready) = waits { Some(ready) } else { None };
    ready(up).into_iter().chain(ready(down)).min()
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
        let after = |up, down| timeout(&both, up, down);
        let timed_out = |timeout| Some((timeout, RelayEnd::TimedOut));
        assert_eq!(after(WaitsFor::Read, WaitsFor::Read), timed_out(BACKEND));
        assert_eq!(after(WaitsFor::Read, WaitsFor::Write), timed_out(CLIENT), "a client that does not read");
        assert_eq!(after(WaitsFor::Write, WaitsFor::Read), timed_out(BACKEND));
        assert_eq!(after(WaitsFor::Nothing, WaitsFor::Read), timed_out(BACKEND));
        assert_eq!(after(WaitsFor::Read, WaitsFor::Nothing), timed_out(CLIENT));
    }

    #[test]
    fn a_half_closed_connection_has_a_timeout_of_its_own_shorter_or_longer() {
        let both = timeouts(Some(CLIENT), Some(BACKEND));
        for half_close in [Duration::from_secs(1), 10 * HALF_CLOSED] {
            let limits = Limits { half_close: Some(half_close), ..both };
            let half_closed = Some((half_close, RelayEnd::HalfClosed));
            assert_eq!(timeout(&limits, WaitsFor::Nothing, WaitsFor::Read), half_closed);
            assert_eq!(timeout(&limits, WaitsFor::Write, WaitsFor::Nothing), half_closed);
            let whole = timeout(&limits, WaitsFor::Read, WaitsFor::Read);
            assert_eq!(whole, Some((BACKEND, RelayEnd::TimedOut)));
        }
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
        let half_closed = Some((HALF_CLOSED, RelayEnd::HalfClosed));
        assert_eq!(timeout(&none, WaitsFor::Read, WaitsFor::Read), None);
        assert_eq!(timeout(&none, WaitsFor::Nothing, WaitsFor::Read), half_closed);
        assert_eq!(timeout(&none, WaitsFor::Write, WaitsFor::Nothing), half_closed);
        let long = timeouts(Some(Duration::from_secs(86_400)), None);
        assert_eq!(timeout(&long, WaitsFor::Read, WaitsFor::Nothing), half_closed);
    }
}
