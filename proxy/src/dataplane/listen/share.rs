//! Shares of a node's connections: what one network may have, so that none takes what others need. Pure.
//!
//! Half of the connections are reserved, the same part for each network: its guarantee, which it gets whatever
//! the others hold. From the other half all may borrow, each at most as much as it leaves free. So a network in
//! need has at least half of the node while the others are idle, and each further one in need finds something
//! left. A network that is alone on its node has all of it.

use std::net::IpAddr;

use crate::dataplane::spec::NodeAddresses;

/// Division of the connections among networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// Connections that each network gets.
    pub(super) guarantee: usize,
    /// Connections that may be borrowed.
    pub(super) common: usize,
}

impl Division {
    /// Division of `limit` connections among so many networks.
    pub(super) fn new(limit: usize, networks: usize) -> Self {
        let guarantee = if networks < 2 { limit } else { limit / 2 / networks };
        Self { guarantee, common: limit.saturating_sub(guarantee.saturating_mul(networks.max(1))) }
    }

    /// Connections that a network may have in all, while the others have borrowed so many.
    pub(super) fn allowance(self, borrowed_by_others: usize) -> usize {
        self.guarantee + self.common.saturating_sub(borrowed_by_others).div_ceil(2)
    }
}

/// Place that a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum Origin {
    /// A client, for all that is known.
    Client,
    /// A proxy node, this one or another: a load balancer has the VIP of another one for its backend, or a
    /// configuration leads back to itself.
    Node,
    /// This node's own address, to which it is made: nothing but a configuration that leads back to itself makes
    /// one.
    Itself,
}

impl Origin {
    /// Origin of a connection of `peer` to the address `local` of a network with these nodes.
    pub(super) fn of(peer: IpAddr, local: IpAddr, nodes: &NodeAddresses) -> Self {
        if peer == local && nodes.own.contains(&local) {
            Self::Itself
        } else if nodes.all.contains(&peer) {
            Self::Node
        } else {
            Self::Client
        }
    }
}

/// Connections of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkUse {
    /// All of them.
    pub(super) held: usize,
    /// Connections that come from nodes.
    pub(super) from_nodes: usize,
}

/// Reason why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum ClientRefusal {
    /// Its network has used up its share of the node's connections, or those from nodes half of it.
    Share,
    /// It comes from this node itself.
    Loop,
    /// The listener does not admit clients with its address.
    Cidr,
}

/// Decides on one more connection of a network that may have `allowance`. Those that come from nodes have at most
/// half of it: a loop through several load balancers, which no single configuration shows, leaves the other half
/// to clients.
///
/// # Errors
/// The reason why it is refused.
pub(super) fn admit(network: NetworkUse, allowance: usize, origin: Origin) -> Result<(), ClientRefusal> {
    let is_within = match origin {
        Origin::Itself => return Err(ClientRefusal::Loop),
        Origin::Client => true,
        Origin::Node => network.from_nodes < allowance.div_ceil(2),
    };
    if is_within && network.held < allowance { Ok(()) } else { Err(ClientRefusal::Share) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_that_meets_itself_is_a_loop_and_a_vip_that_does_is_a_chain() {
        let [own, peer, vip, client] = [1, 2, 3, 4].map(|last| IpAddr::from([10, 0, 0, last]));
        let nodes = NodeAddresses { own: [own].into(), all: [own, peer, vip].into() };
        assert_eq!(Origin::of(own, own, &nodes), Origin::Itself);
        assert_eq!(
            Origin::of(vip, vip, &nodes),
            Origin::Node,
            "a VIP on this node is the backend of another"
        );
        for node in [own, peer, vip] {
            assert_eq!(Origin::of(node, if node == own { vip } else { own }, &nodes), Origin::Node);
        }
        assert_eq!(Origin::of(client, own, &nodes), Origin::Client);
        assert_eq!(Origin::of(own, own, &NodeAddresses::default()), Origin::Client);
    }

    #[test]
    fn a_network_alone_has_all_and_one_of_many_half() {
        assert_eq!(Division::new(1000, 1).allowance(0), 1000);
        assert_eq!(Division::new(1000, 2).allowance(0), 250 + 250);
        let many = Division::new(1_000_000, 1000);
        assert_eq!((many.guarantee, many.allowance(0)), (500, 500 + 250_000));
        assert_eq!(Division::new(0, 3).allowance(0), 0);
    }

    /// Networks that ask in turn, and of which some hold what they have got.
    fn asked(limit: usize, networks: usize, turns: &[usize]) -> Vec<usize> {
        let division = Division::new(limit, networks);
        let mut held = vec![0; networks];
        for network in turns.iter().map(|turn| turn % networks) {
            let borrowed = |held: &usize| held.saturating_sub(division.guarantee);
            let others: usize = held.iter().map(borrowed).sum::<usize>() - borrowed(&held[network]);
            let it = NetworkUse { held: held[network], from_nodes: 0 };
            if admit(it, division.allowance(others), Origin::Client).is_ok() {
                held[network] += 1;
            }
        }
        held
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_there_is_and_everybody_their_guarantee(
            limit in 0_usize..400,
            networks in 1_usize..30,
            turns in prop::collection::vec(0_usize..30, 0..2000),
        ) {
            let guarantee = Division::new(limit, networks).guarantee;
            let held = asked(limit, networks, &turns);
            prop_assert!(held.iter().sum::<usize>() <= limit, "{held:?}");
            for (network, held) in held.iter().enumerate() {
                let turns = turns.iter().filter(|turn| *turn % networks == network).count();
                prop_assert!(*held >= turns.min(guarantee), "{network} has {held} after {turns} turns");
            }
        }

        #[test]
        fn one_in_need_leaves_half_of_the_common_part_and_the_guarantees(limit in 0_usize..100_000, networks in 2_usize..500) {
            let division = Division::new(limit, networks);
            let most = division.allowance(0);
            prop_assert!(most >= limit / 2 - limit / 4 && most <= limit.div_ceil(2) + 1, "{most} of {limit}");
            let second = division.allowance(most - division.guarantee);
            prop_assert!(second + most <= limit);
            prop_assert!(second >= division.common / 4, "{second} for the second of {limit}");
        }

        #[test]
        fn connections_of_nodes_leave_half_of_the_share_to_clients(allowance in 1_usize..1000) {
            let mut network = NetworkUse::default();
            while admit(network, allowance, Origin::Node).is_ok() {
                network = NetworkUse { held: network.held + 1, from_nodes: network.from_nodes + 1 };
            }
            prop_assert_eq!(network.held, allowance.div_ceil(2));
            let clients = (0..allowance).take_while(|more| {
                admit(NetworkUse { held: network.held + more, ..network }, allowance, Origin::Client).is_ok()
            });
            prop_assert_eq!(clients.count(), allowance / 2);
            prop_assert_eq!(admit(NetworkUse::default(), allowance, Origin::Itself), Err(ClientRefusal::Loop));
        }
    }
}
