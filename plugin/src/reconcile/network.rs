//! Effect of a load balancer on the shared rows of its network. Pure.

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{AnswerForm, Answered, Installation, Network, Reservation};

use crate::datapath::is_direct;
use crate::resources::Tree;
use crate::rows::{answer_row, reservation_row};

/// True if a load balancer may be the first or the last on its network; the last is one that is deleted, or whose
/// VIPs move to nodes. Any other changes nothing that the network's load balancers share but the responder's
/// addresses, where it answers by them.
pub(super) fn founds_or_ends_network(
    tree: &Tree,
    installation: Installation,
    form: AnswerForm,
    nb: &Northbound,
) -> bool {
    let network = tree.load_balancer.spec.network;
    let group = |uuid| nb.load_balancer_group.get(&uuid).map(|group| group.load_balancer.len());
    let listeners = group(Network::group(installation, network));
    // Where several leave at once, a group shows that it is empty.
    let (members, own) = match form {
        AnswerForm::Rows => (listeners.and_then(|_| group(Network::answers(installation, network))), 1),
        AnswerForm::Networks => (listeners, tree.listeners.len()),
    };
    members.is_none_or(|members| !is_answered_for(tree) && members <= own)
}

/// The load balancer of a tree, as its network's responder answers for it.
pub(super) fn answered(tree: &Tree, installation: Installation) -> Answered<'_> {
    let spec = &tree.load_balancer.spec;
    Answered {
        installation,
        switch: spec.network,
        row: answer_row(installation, tree.id()),
        vips: &spec.vips,
    }
}

/// The load balancer of a tree, as ports reserve its VIPs.
pub(super) fn reservation(tree: &Tree, installation: Installation) -> Reservation<'_> {
    let spec = &tree.load_balancer.spec;
    Reservation {
        installation,
        switch: spec.network,
        row: reservation_row(installation, tree.id()),
        vips: &spec.vips,
    }
}

/// True if the network's responder answers for the VIPs of a tree: not if it is deleted, nor if a node
/// answers.
pub(super) fn is_answered_for(tree: &Tree) -> bool {
    !tree.load_balancer.deleting && !is_direct(tree)
}

#[cfg(test)]
mod tests {
    use fiberlb_northbound::LoadBalancerGroup;
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate, TableRow as _};
    use uuid::Uuid;

    use super::*;
    use crate::reconcile::examples::INSTALLATION;
    use crate::resources::examples::{LISTENER, NETWORK, change, tree};
    use crate::resources::{Exposure, Listener};

    /// A database with these groups of the network, each with so many rows.
    fn nb(groups: &[(Uuid, u128)]) -> Northbound {
        let mut nb = Northbound::new("owner");
        for (uuid, rows) in groups {
            let load_balancer = (0..*rows).map(Uuid::from_u128).collect();
            let row = LoadBalancerGroup { load_balancer, ..LoadBalancerGroup::default() };
            let (table, change) = (LoadBalancerGroup::TABLE.to_owned(), RowChange::Insert(row.to_row()));
            nb.apply(vec![RowUpdate { table, uuid: *uuid, change }]).unwrap();
        }
        nb
    }

    #[test]
    fn the_last_one_whose_vip_moves_to_a_node_ends_what_its_network_shares() {
        let (group, answers) =
            (Network::group(INSTALLATION, NETWORK), Network::answers(INSTALLATION, NETWORK));
        let mut direct = tree();
        change::<Listener>(&mut direct, LISTENER, |listener| listener.exposure = Exposure::Direct);
        let founds_or_ends = |form, rows: &[(Uuid, u128)]| {
            let of = |tree| founds_or_ends_network(tree, INSTALLATION, form, &nb(rows));
            (of(&tree()), of(&direct))
        };
        for form in [AnswerForm::Networks, AnswerForm::Rows] {
            assert_eq!(founds_or_ends(form, &[]), (true, true));
            assert_eq!(founds_or_ends(form, &[(group, 1), (answers, 1)]), (false, true));
            assert_eq!(founds_or_ends(form, &[(group, 2), (answers, 2)]), (false, false), "others are in it");
        }
        // A network that has no group of answers yet.
        assert_eq!(founds_or_ends(AnswerForm::Rows, &[(group, 2)]), (true, true));
    }
}
