//! Parts of a number that several nodes share, such as a limit of connections: their sum is the number. Pure.

use uuid::Uuid;

/// Place of a node among those that share something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct NodePlace {
    /// Its place in the order of the nodes' ids.
    pub index: usize,
    /// Number of nodes.
    pub nodes: usize,
}

impl NodePlace {
    /// The only node.
    pub(in crate::fleet) const ALONE: Self = Self { index: 0, nodes: 1 };

    /// The node's equal part of `total`. What is left over goes to some nodes, one for each: others for each `subject`, so that
    /// no node has all of it.
    pub(in crate::fleet) fn part(self, total: u32, subject: Uuid) -> u32 {
        let nodes = u32::try_from(self.nodes).unwrap_or(u32::MAX).max(1);
        total / nodes + u32::from(self.turn(subject) < total % nodes)
    }

    /// The node's turn among the nodes, from 0, where something cannot be divided.
    pub(in crate::fleet) fn turn(self, subject: Uuid) -> u32 {
        let nodes = u128::try_from(self.nodes).unwrap_or(u128::MAX).max(1);
        let index = u128::try_from(self.index).unwrap_or(u128::MAX);
        u32::try_from((index % nodes + subject.as_u128() % nodes) % nodes).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sum_of_all_parts_is_the_whole_and_no_two_differ_by_more_than_one(
            total in any::<u32>(),
            nodes in 1_usize..200,
            subject in any::<u128>(),
        ) {
            let subject = Uuid::from_u128(subject);
            let parts: Vec<u32> = (0..nodes).map(|index| NodePlace { index, nodes }.part(total, subject)).collect();
            prop_assert_eq!(parts.iter().map(|part| u64::from(*part)).sum::<u64>(), u64::from(total));
            prop_assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn what_is_left_over_is_spread_over_the_nodes() {
        let part = |index, subject| NodePlace { index, nodes: 3 }.part(4, Uuid::from_u128(subject));
        let of = |subject| [0, 1, 2].map(|index| part(index, subject));
        assert_eq!([of(0), of(1), of(2)], [[2, 1, 1], [1, 1, 2], [1, 2, 1]]);
        assert_eq!(NodePlace::ALONE.part(7, Uuid::nil()), 7);
    }
}
