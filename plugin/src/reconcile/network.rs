//! Effect of a load balancer on the shared rows of its network. Pure.

use fiberlb_northbound::LoadBalancerGroup;

use crate::datapath::is_direct;
use crate::resources::Tree;

/// True if a load balancer may be the first or the last in its network's group; the last is one that is
/// deleted, or whose VIPs move to nodes. Any other changes only the responder's addresses among the shared
/// rows.
pub(super) fn founds_or_ends_network(tree: &Tree, group: Option<&LoadBalancerGroup>) -> bool {
    match group {
        None => true,
        // Where several leave at once, the group shows that it is empty.
        Some(group) => !is_answered_for(tree) && group.load_balancer.len() <= tree.listeners.len(),
    }
}

/// True if the network's responder answers for the VIPs of a tree: not if it is deleted, nor if a node
/// answers.
pub(super) fn is_answered_for(tree: &Tree) -> bool {
    !tree.load_balancer.deleting && !is_direct(tree)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::resources::examples::{LISTENER, change, tree};
    use crate::resources::{Exposure, Listener};

    #[test]
    fn the_last_one_whose_vip_moves_to_a_node_ends_what_its_network_shares() {
        let group = |rows: u128| LoadBalancerGroup {
            load_balancer: (0..rows).map(Uuid::from_u128).collect(),
            ..LoadBalancerGroup::default()
        };
        let mut tree = tree();
        assert!(founds_or_ends_network(&tree, None));
        assert!(!founds_or_ends_network(&tree, Some(&group(1))));
        change::<Listener>(&mut tree, LISTENER, |listener| listener.exposure = Exposure::Direct);
        assert!(founds_or_ends_network(&tree, Some(&group(1))));
        assert!(!founds_or_ends_network(&tree, Some(&group(2))), "others are in it");
    }
}
