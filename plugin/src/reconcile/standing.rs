//! Carriers that go on serving a listener until the next one serves. Pure.
//!
//! Only the carrier stays, never the destination: backends, weights, health and administrative state are always those of
//! the current tree.

use std::net::{IpAddr, SocketAddr};

use fiberlb_northbound::plan::{Balancer, Installation};
use fiberlb_northbound::{LoadBalancer, Northbound};
use uuid::Uuid;

use crate::datapath::{Carrier, is_direct};
use crate::resources::{Listener, Record, Tree};
use crate::rows::listener_row;
use crate::status::{FleetView, Observation};

/// Carrier that serves a listener by its row; `None`: none does. Where nothing was observed, as after the loss of a status, a row with
/// entries is taken for OVN's own unless nodes are desired and in it.
pub(super) fn carrier_in_row(
    listener: Uuid,
    row: Option<&LoadBalancer>,
    before: &Observation,
    view: &FleetView,
) -> Option<Carrier> {
    let port = view.proxied.get(&listener).and_then(|proxied| proxied.port);
    let is_node = |address: SocketAddr| {
        port == Some(address.port()) && view.nodes.iter().any(|node| node.hosts.contains(&address.ip()))
    };
    let lists = row.into_iter().flat_map(|row| row.vips.values());
    let mut listed = lists.flat_map(|list| list.split(',')).filter_map(|entry| entry.parse().ok()).peekable();
    let is_empty = listed.peek().is_none();
    match (before.carrier_in_force(listener), listed.any(is_node)) {
        (_, true) => Some(Carrier::Proxy),
        (Some(Carrier::Ovn), false) => Some(Carrier::Ovn),
        (None, false) if !is_empty => Some(Carrier::Ovn),
        (_, false) => None,
    }
}

/// True if a row sends connections to something for each family of the VIPs.
pub(super) fn covers(balancer: &Balancer, vips: &[IpAddr]) -> bool {
    let has = |vip: &IpAddr| balancer.targets().any(|it| it.enabled && it.address.is_ipv4() == vip.is_ipv4());
    vips.iter().all(has)
}

/// True if a DIRECT tree has a row that could go on to serve.
pub(super) fn may_await_holder(tree: &Tree, nb: &Northbound, installation: Installation) -> bool {
    let has_row = |id: &Uuid| nb.load_balancer.get(&listener_row(installation, *id)).is_some();
    is_direct(tree) && tree.listeners.keys().any(has_row)
}

/// True if OVN goes on to answer for the VIPs of a DIRECT tree, since no node serves them yet.
pub(super) fn awaits_holder(
    tree: &Tree,
    view: &FleetView,
    before: &Observation,
    nb: &Northbound,
    installation: Installation,
) -> bool {
    if tree.load_balancer.deleting || !is_direct(tree) {
        return false;
    }
    // A row that is gone serves nobody, whatever was observed of it.
    let stands = |listener: &Record<Listener>| {
        let row = nb.load_balancer.get(&listener_row(installation, listener.id));
        row.is_some() && carrier_in_row(listener.id, row, before, view).is_some()
    };
    // A node that has proxied a listener reports it anew once it serves it by the VIP.
    let generation = |id: &Uuid| tree.listeners.get(id).map_or(0, |listener| listener.generation);
    let serves_all = |node: &String| {
        view.proxied
            .iter()
            .all(|(id, it)| matches!(it.results.get(node), Some(Ok(served)) if *served >= generation(id)))
    };
    let is_held = |vip: &IpAddr| view.holders.get(vip).is_some_and(serves_all);
    tree.listeners.values().filter(|listener| !listener.deleting).any(|listener| stands(listener))
        && (view.proxied.is_empty() || !tree.load_balancer.spec.vips.iter().all(is_held))
}
