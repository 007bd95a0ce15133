//! Hops that a session's datagrams have left. A proxy counts as a router does: what comes with some hops left goes to
//! the backend with one less. So a circle of load balancers, which no single configuration shows, ends by itself. Pure.

/// Most hops that count.
const MOST: u8 = 64;

/// Hops for a datagram of a session to its backend that has come with `received` left; 0: unknown. None:
/// a node has sent it, and no hop is left.
///
/// Datagrams of a client always have one: it may have sent them for its own subnet alone. Routers end a circle through
/// address translation, in which a node looks like a client.
pub(super) fn behind(received: u8, is_from_node: bool) -> Option<u8> {
    let left = received.min(MOST).saturating_sub(1);
    match (left, is_from_node) {
        (0, true) => None,
        (0, false) if received == 0 => Some(MOST - 1),
        (left, _) => Some(left.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_nodes_ends_and_a_client_is_always_served() {
        let mut hops = behind(255, false).unwrap();
        let mut nodes = 0;
        while let Some(left) = behind(hops, true) {
            assert!(left < hops);
            (hops, nodes) = (left, nodes + 1);
        }
        assert_eq!(nodes, 62, "behind the first one, which the client has reached");
        assert_eq!(behind(1, false), Some(1));
        assert_eq!(behind(0, false), Some(MOST - 1));
        assert_eq!(behind(0, true), None);
    }
}
