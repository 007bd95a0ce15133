//! Which nodes serve a network: a pure function of nodes and networks, stable when nodes come and go.

use uuid::Uuid;

/// Up to `count` of `nodes` for `network`, the first choice first.
///
/// Rendezvous hashing (Thaler and Ravishankar, 1998): each node has a rank of its own for each network, so a node that
/// comes or goes moves only the networks that it takes or leaves.
pub(super) fn place<'a>(
    network: Uuid,
    nodes: impl IntoIterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let mut ranked: Vec<(u64, &str)> = nodes.into_iter().map(|node| (rank(network, node), node)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    ranked.into_iter().take(count).map(|(_, node)| node).collect()
}

/// The same on every machine and in every release: half of a UUIDv5, which is a SHA-1.
fn rank(network: Uuid, node: &str) -> u64 {
    Uuid::new_v5(&network, node.as_bytes()).as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_node_that_goes_moves_only_what_it_had(network: u128, nodes in proptest::collection::btree_set("[a-z]{1,8}", 1..12)) {
            let network = Uuid::from_u128(network);
            let before = place(network, nodes.iter().map(String::as_str), 2);
            for gone in &nodes {
                let left = nodes.iter().filter(|node| *node != gone).map(String::as_str);
                let after = place(network, left, 2);
                if before.contains(&gone.as_str()) {
                    let kept: BTreeSet<&str> = before.iter().copied().filter(|node| node != gone).collect();
                    prop_assert!(kept.iter().all(|node| after.contains(node)));
                } else {
                    prop_assert_eq!(&before, &after);
                }
            }
        }

        #[test]
        fn there_are_as_many_as_asked_for_where_there_are(network: u128, nodes in proptest::collection::btree_set("[a-z]{1,8}", 0..6), count in 0usize..4) {
            let placed = place(Uuid::from_u128(network), nodes.iter().map(String::as_str), count);
            prop_assert_eq!(placed.len(), count.min(nodes.len()));
            let different: BTreeSet<_> = placed.iter().collect();
            prop_assert_eq!(different.len(), placed.len());
        }
    }

    #[test]
    fn networks_are_spread_over_the_nodes() {
        let nodes = ["a", "b", "c", "d"];
        let mut counts = std::collections::BTreeMap::new();
        for network in 0..1000u128 {
            for node in place(Uuid::from_u128(network * 7919), nodes, 2) {
                *counts.entry(node).or_insert(0) += 1;
            }
        }
        assert!(counts.values().all(|count| (400..600).contains(count)), "{counts:?}");
    }
}
