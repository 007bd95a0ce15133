//! When a connection has been still for too long. Pure.

use std::time::{Duration, Instant};

use super::super::configuration::Limits;

/// How long a connection with one direction closed waits for the other, where its data timeout is not shorter still: a peer that
/// never closes its half cannot hold the connection.
const HALF_CLOSED: Duration = Duration::from_secs(300);

/// What a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For the sender to send.
    Read,
    /// For the receiver to take what is there.
    Write,
    /// For nothing any more.
    Over,
}

/// How long the connection may be still: `up` is what the direction from client to backend waits for, `down` the other one. Of a
/// side that nobody waits for, because the other one does not take its bytes, no timeout runs.
pub(super) fn patience(limits: &Limits, up: Waits, down: Waits) -> Option<Duration> {
    let client = (up == Waits::Read || down == Waits::Write).then_some(limits.client_data).flatten();
    let backend = (down == Waits::Read || up == Waits::Write).then_some(limits.backend_data).flatten();
    let half_closed = (up == Waits::Over || down == Waits::Over).then_some(HALF_CLOSED);
    [client, backend, half_closed].into_iter().flatten().min()
}

/// The instant until which a connection that last moved at `moved` may be still; far away if it has no limit.
pub(super) fn due(moved: Instant, patience: Option<Duration>) -> Option<Instant> {
    moved.checked_add(patience?)
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
        assert_eq!(patience(&both, Waits::Read, Waits::Read), Some(BACKEND));
        assert_eq!(patience(&both, Waits::Read, Waits::Write), Some(CLIENT), "a client that does not read");
        assert_eq!(patience(&both, Waits::Write, Waits::Read), Some(BACKEND));
        assert_eq!(patience(&both, Waits::Over, Waits::Read), Some(BACKEND));
        assert_eq!(patience(&both, Waits::Read, Waits::Over), Some(CLIENT));
    }

    #[test]
    fn without_timeouts_only_a_half_closed_connection_has_a_limit() {
        let none = timeouts(None, None);
        assert_eq!(patience(&none, Waits::Read, Waits::Read), None);
        assert_eq!(patience(&none, Waits::Over, Waits::Read), Some(HALF_CLOSED));
        assert_eq!(patience(&none, Waits::Write, Waits::Over), Some(HALF_CLOSED));
        let long = timeouts(Some(Duration::from_secs(86_400)), None);
        assert_eq!(patience(&long, Waits::Read, Waits::Over), Some(HALF_CLOSED));
        assert_eq!(due(Instant::now(), None), None);
    }
}
