//! Chains of load balancers: backends that are VIPs of others. OVN balances a packet once, where the client enters the network, and
//! never at a responder: behind a row of OVN such a backend is dead, though a probe, which enters the network itself, finds it well.
//! Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::Topology;
use uuid::Uuid;

use super::network::is_answered_for;
use crate::catalog::Model;
use crate::resources::Tree;

/// Networks with VIPs that packets to a network's backends may meet: itself, and those behind its routers.
pub(super) fn networks_in_reach(network: Uuid, nb: &Northbound, model: &Model) -> Vec<Uuid> {
    let switches = Topology::of(network, nb).unwrap_or_default().switches;
    switches.into_iter().filter(|switch| model.has_vips(*switch)).collect()
}

/// Backends of a tree that are VIPs of others for which OVN answers.
pub(super) fn chained_backends(
    tree: &Tree,
    networks: &[Uuid],
    holder: impl Fn(Uuid, IpAddr) -> Option<Arc<Tree>>,
) -> BTreeSet<Uuid> {
    let is_vip = |address: IpAddr| {
        let holders = networks.iter().filter_map(|network| holder(*network, address));
        holders.into_iter().any(|other| other.id() != tree.id() && is_answered_for(&other))
    };
    let backends = tree.backends.values().filter(|backend| !backend.deleting);
    backends.filter(|backend| is_vip(backend.spec.address.ip())).map(|backend| backend.id).collect()
}

/// True if a tree has a backend at one of these addresses.
pub(super) fn leads_to(tree: &Tree, vips: &[IpAddr]) -> bool {
    tree.backends.values().any(|backend| vips.contains(&backend.spec.address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::examples::{balancer, id};
    use crate::resources::examples::{NETWORK, POOL, backend, change, pool, put};
    use crate::resources::{Exposure, Listener, Pool};

    #[test]
    fn a_backend_is_chained_if_ovn_answers_for_it_as_the_vip_of_another() {
        let member = Uuid::from_u128(0x77);
        let (mut front, mut rear) = (balancer(1), balancer(2));
        put(&mut front, POOL, Pool { load_balancer_id: id(1), ..pool() });
        put(&mut front, member, backend(2));
        let chained = |rear: &Tree, networks: &[Uuid]| {
            let rear = Arc::new(rear.clone());
            chained_backends(&front, networks, |network, address| {
                (network == NETWORK && rear.load_balancer.spec.vips.contains(&address)).then(|| rear.clone())
            })
        };
        assert_eq!(chained(&rear, &[NETWORK]), [member].into());
        assert_eq!(chained(&rear, &[Uuid::from_u128(5), NETWORK]), [member].into());
        assert_eq!(chained(&rear, &[]), BTreeSet::new(), "a VIP elsewhere");
        let vips = &rear.load_balancer.spec.vips;
        assert!(leads_to(&front, vips) && !leads_to(&rear, vips));
        let listener = *rear.listeners.keys().next().unwrap();
        change::<Listener>(&mut rear, listener, |listener| listener.exposure = Exposure::Direct);
        assert_eq!(chained(&rear, &[NETWORK]), BTreeSet::new(), "a node answers, as a machine does");
    }
}
