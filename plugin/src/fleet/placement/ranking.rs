//! Ranking of nodes for a network: a pure function of nodes and networks, stable when nodes are added or
//! removed.

use std::collections::BTreeSet;

use uuid::Uuid;

/// A node that may serve a network, and its failure domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct Candidate<'a> {
    /// Node id.
    pub id: &'a str,
    /// Failure domain. All nodes without one share the zone without a name: nothing is known of them that
    /// would make them safer together than with a node elsewhere.
    pub zone: &'a str,
}

/// Up to `count` of `nodes` for `network`, in order of preference: the best of each zone, then the best of
/// the rest.
///
/// Rendezvous hashing (Thaler and Ravishankar, 1998): each node has a rank of its own for each network, so
/// adding or removing a node moves only the networks that it gains or loses. That stays true with zones: all
/// others keep their order.
pub(in crate::fleet) fn place<'a>(
    network: Uuid,
    nodes: impl IntoIterator<Item = Candidate<'a>>,
    count: usize,
) -> Vec<&'a str> {
    best(rank_all(network, nodes).into_iter(), count).collect()
}

/// The nodes in the order of their ranks, the highest first.
fn rank_all<'a>(network: Uuid, nodes: impl IntoIterator<Item = Candidate<'a>>) -> Vec<Candidate<'a>> {
    let mut ranked: Vec<(u64, Candidate<'_>)> =
        nodes.into_iter().map(|node| (rank(network, node.id), node)).collect();
    ranked.sort_unstable_by_key(|(rank, node)| std::cmp::Reverse((*rank, node.id)));
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// The first of each zone, then the first of the rest.
fn best<'a>(ranked: impl Iterator<Item = Candidate<'a>>, count: usize) -> impl Iterator<Item = &'a str> {
    let mut zones = BTreeSet::new();
    let (first, rest): (Vec<_>, Vec<_>) = ranked.partition(|node| zones.insert(node.zone));
    first.into_iter().chain(rest).take(count).map(|node| node.id)
}

/// Nodes for a network with several requirements: for each of them up to `count` of the nodes that meet it, as
/// [`place`] chooses them. Where all nodes meet all requirements, these are the same nodes.
///
/// A requirement that is added or removed moves the nodes of no other one, so that a listener of another
/// protocol leaves all others as they are, and each listener has its `count` nodes where there are as many.
pub(in crate::fleet) fn place_each<'a, R>(
    network: Uuid,
    nodes: &[Candidate<'a>],
    requirements: impl IntoIterator<Item = R>,
    meets: impl Fn(&Candidate<'a>, &R) -> bool,
    count: usize,
) -> Vec<&'a str> {
    let ranked = rank_all(network, nodes.iter().copied());
    let mut placed: Vec<&str> = Vec::new();
    for requirement in requirements {
        let able = ranked.iter().copied().filter(|node| meets(node, &requirement));
        for node in best(able, count) {
            if !placed.contains(&node) {
                placed.push(node);
            }
        }
    }
    placed
}

/// Rank of a node, the same on every machine and in every release: half of a UUIDv5, which is a SHA-1.
fn rank(network: Uuid, node: &str) -> u64 {
    Uuid::new_v5(&network, node.as_bytes()).as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    type Nodes = BTreeMap<String, String>;

    /// Nodes by id, each with its zone; the zone without a name among them.
    fn nodes(most: usize) -> impl Strategy<Value = Nodes> {
        proptest::collection::btree_map("[a-z]{1,8}", "[xyz]?", 0..most)
    }

    fn placed(network: u128, nodes: &Nodes, count: usize) -> Vec<&str> {
        let candidates = nodes.iter().map(|(id, zone)| Candidate { id, zone });
        place(Uuid::from_u128(network), candidates, count)
    }

    fn zones<'a>(nodes: &'a Nodes, ids: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        ids.into_iter().map(|id| nodes[id].as_str()).collect()
    }

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_what_it_had(network: u128, nodes in nodes(12), count in 1usize..4) {
            let before = placed(network, &nodes, count);
            for gone in nodes.keys() {
                let mut left = nodes.clone();
                left.remove(gone);
                let after = placed(network, &left, count);
                if before.contains(&gone.as_str()) {
                    prop_assert!(before.iter().all(|node| node == gone || after.contains(node)));
                } else {
                    prop_assert_eq!(&before, &after);
                }
            }
        }

        #[test]
        fn there_are_as_many_as_asked_for_where_there_are(network: u128, nodes in nodes(6), count in 0usize..4) {
            let placed = placed(network, &nodes, count);
            prop_assert_eq!(placed.len(), count.min(nodes.len()));
            let different: BTreeSet<_> = placed.iter().collect();
            prop_assert_eq!(different.len(), placed.len());
        }

        #[test]
        fn they_are_in_as_many_zones_as_there_are(network: u128, nodes in nodes(9), count in 1usize..5) {
            let all = zones(&nodes, nodes.keys().map(String::as_str));
            let met = zones(&nodes, placed(network, &nodes, count));
            prop_assert_eq!(met.len(), count.min(all.len()));
        }

        #[test]
        fn without_zones_the_best_are_taken(network: u128, ids in proptest::collection::btree_set("[a-z]{1,8}", 1..9)) {
            let nowhere: Nodes = ids.iter().map(|id| (id.clone(), String::new())).collect();
            let everywhere: Nodes = ids.iter().map(|id| (id.clone(), id.clone())).collect();
            prop_assert_eq!(placed(network, &nowhere, 2), placed(network, &everywhere, 2));
        }
    }

    /// Capabilities of each node, as bits, and requirements, as bits.
    type Abilities = BTreeMap<String, (String, u8)>;

    fn abilities(most: usize) -> impl Strategy<Value = Abilities> {
        proptest::collection::btree_map("[a-z]{1,8}", ("[xyz]?", 0u8..8), 0..most)
    }

    fn placed_each<'a>(
        network: u128,
        nodes: &'a Abilities,
        requirements: &[u8],
        count: usize,
    ) -> Vec<&'a str> {
        let candidates: Vec<_> = nodes.iter().map(|(id, (zone, _))| Candidate { id, zone }).collect();
        let meets = |node: &Candidate<'_>, requirement: &u8| nodes[node.id].1 & requirement == *requirement;
        place_each(Uuid::from_u128(network), &candidates, requirements.iter().copied(), meets, count)
    }

    fn able(nodes: &Abilities, requirement: u8) -> Nodes {
        let able = nodes.iter().filter(|(_, (_, bits))| bits & requirement == requirement);
        able.map(|(id, (zone, _))| (id.clone(), zone.clone())).collect()
    }

    proptest! {
        #[test]
        fn each_requirement_has_the_nodes_that_it_would_have_alone(
            network: u128, nodes in abilities(10), requirements in proptest::collection::btree_set(0u8..8, 1..4), count in 1usize..4,
        ) {
            let requirements: Vec<u8> = requirements.into_iter().collect();
            let all = placed_each(network, &nodes, &requirements, count);
            let mut expected = BTreeSet::new();
            for requirement in requirements {
                let able = able(&nodes, requirement);
                expected.extend(placed(network, &able, count).into_iter().map(str::to_owned));
            }
            let different: BTreeSet<String> = all.iter().map(|id| (*id).to_owned()).collect();
            prop_assert_eq!(different.len(), all.len(), "a node stands there once");
            prop_assert_eq!(different, expected);
        }

        #[test]
        fn a_new_requirement_moves_no_node(
            network: u128, nodes in abilities(10), requirements in proptest::collection::vec(0u8..8, 1..4), count in 1usize..4,
        ) {
            let (_, before) = requirements.split_last().unwrap();
            let before = placed_each(network, &nodes, before, count);
            let after = placed_each(network, &nodes, &requirements, count);
            prop_assert!(after.starts_with(&before), "{:?} {:?}", before, after);
        }

        #[test]
        fn where_all_nodes_can_all_there_are_no_more_of_them(network: u128, nodes in nodes(9), count in 1usize..4) {
            let nodes: Abilities = nodes.into_iter().map(|(id, zone)| (id, (zone, 7))).collect();
            let zones: Nodes = nodes.iter().map(|(id, (zone, _))| (id.clone(), zone.clone())).collect();
            prop_assert_eq!(placed_each(network, &nodes, &[0, 1, 6], count), placed(network, &zones, count));
        }
    }

    #[test]
    fn networks_are_spread_over_the_nodes() {
        let nodes: Nodes = ["a", "b", "c", "d"].map(|id| (id.to_owned(), String::new())).into();
        let mut counts = BTreeMap::new();
        for network in 0..1000u128 {
            for node in placed(network * 7919, &nodes, 2) {
                *counts.entry(node).or_insert(0) += 1;
            }
        }
        assert!(counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_node_that_does_not_say_where_it_is_does_not_crowd_out_a_zone() {
        let nodes = [("a", "x"), ("b", ""), ("c", ""), ("d", "")];
        let nodes: Nodes = nodes.map(|(id, zone)| (id.to_owned(), zone.to_owned())).into();
        assert!((0..100).all(|network| placed(network, &nodes, 2).contains(&"a")));
    }
}
