//! What a tree asks of OVN. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fiberlb_ovn::nb::{Northbound, TableKind};
use fiberlb_ovn::plan::{
    self, Balancer, Capabilities, Desired, Installation, Network, Row, Selection, Target,
};
use uuid::Uuid;

use crate::resources::{
    Algorithm, Backend, Listener, ListenerProtocol, Persistence, Pool, Record, Transport, Tree,
};

/// What a tree asks of OVN.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// The rows; none when it is deleted.
    pub(super) rows: Desired,
    /// Listeners that the connected OVN cannot carry out, with the reason.
    pub(super) refused: BTreeMap<Uuid, String>,
}

/// UUID of the logical switch port that keeps a load balancer's addresses.
pub fn reservation_row(installation: Installation, load_balancer: Uuid) -> Uuid {
    installation.row("vip", &load_balancer.to_string())
}

/// UUID of the `Load_Balancer` row of a listener.
fn listener_row(installation: Installation, listener: Uuid) -> Uuid {
    installation.row("listener", &listener.to_string())
}

/// What a tree asks of OVN: a row for each listener, all of them in the network's group, and the port that keeps its
/// addresses. What is marked as deleted asks for nothing.
pub(super) fn wish(tree: &Tree, installation: Installation, capabilities: &Capabilities) -> Wish {
    let mut wish = Wish::default();
    if tree.load_balancer.deleting {
        return wish;
    }
    let spec = &tree.load_balancer.spec;
    let owner = installation.load_balancer(tree.id());
    plan::reservation(
        &mut wish.rows,
        owner,
        reservation_row(installation, tree.id()),
        spec.network,
        &spec.vips,
    );
    let group = Network::group(installation, spec.network);
    for listener in tree.listeners.values().filter(|listener| !listener.deleting) {
        let balancer = balancer(tree, listener, installation);
        match plan::balancer(&balancer, capabilities) {
            Ok(row) => {
                let in_group = (TableKind::LoadBalancerGroup, group, "load_balancer");
                wish.rows.add(balancer.uuid, Row::LoadBalancer(row), [in_group]);
            }
            Err(error) => {
                wish.refused.insert(listener.id, error.to_string());
            }
        }
    }
    wish
}

/// Why a tree cannot be carried out on its network at all, as long as it is like that.
pub(super) fn obstacle(
    tree: &Tree,
    installation: Installation,
    nb: &Northbound,
    capabilities: &Capabilities,
) -> Option<String> {
    let spec = &tree.load_balancer.spec;
    if tree.load_balancer.deleting {
        return None;
    }
    if !capabilities.groups {
        return Some(
            "the connected OVN has no Load_Balancer_Group: FiberLB needs OVN 21.12 or later".to_owned(),
        );
    }
    if nb.logical_switch.get(&spec.network).is_none() {
        return Some(format!(
            "the logical switch {} does not exist in the northbound database",
            spec.network
        ));
    }
    // Once reserved, an address stays in service whoever else turns up with it: taking it away would stop traffic.
    let own = reservation_row(installation, tree.id());
    if nb.logical_switch_port.get(&own).is_some() {
        return None;
    }
    let holder = |vip| plan::address_holder(spec.network, vip, own, nb).map(|holder| (vip, holder));
    let (vip, holder) = spec.vips.iter().copied().find_map(holder)?;
    Some(format!("the VIP {vip} is in use by {} on the network", holder.0))
}

fn balancer(tree: &Tree, listener: &Record<Listener>, installation: Installation) -> Balancer {
    let spec = &listener.spec;
    let pool = spec.default_pool_id.and_then(|id| tree.pools.get(&id)).filter(|pool| !pool.deleting);
    let enabled = |pool: &Record<Pool>| pool.spec.admin_state_up;
    let name =
        if spec.common.name.is_empty() { &tree.load_balancer.spec.common.name } else { &spec.common.name };
    Balancer {
        uuid: listener_row(installation, listener.id),
        owner: installation.load_balancer(tree.id()),
        name: name.clone(),
        protocol: protocol(spec.protocol),
        vips: tree.load_balancer.spec.vips.iter().map(|vip| SocketAddr::new(*vip, spec.port)).collect(),
        targets: pool.map(|pool| targets(tree, pool.id)).unwrap_or_default(),
        selection: pool.map_or(Selection::FiveTuple, |pool| selection(pool.spec.algorithm)),
        affinity_timeout: pool
            .and_then(|pool| pool.spec.persistence)
            .map(|Persistence::SourceIp { timeout_s }| timeout_s),
        enabled: tree.load_balancer.spec.admin_state_up
            && spec.admin_state_up
            && pool.is_some_and(|pool| enabled(pool)),
    }
}

fn targets(tree: &Tree, pool: Uuid) -> Vec<Target> {
    tree.backends_of(pool).filter(|backend| !backend.deleting).map(|backend| target(&backend.spec)).collect()
}

fn target(backend: &Backend) -> Target {
    Target {
        address: backend.address,
        weight: backend.weight,
        backup: backend.backup,
        enabled: backend.admin_state_up,
    }
}

fn protocol(protocol: ListenerProtocol) -> plan::Protocol {
    match protocol.transport() {
        Transport::Tcp => plan::Protocol::Tcp,
        Transport::Udp => plan::Protocol::Udp,
        Transport::Sctp => plan::Protocol::Sctp,
    }
}

fn selection(algorithm: Algorithm) -> Selection {
    match algorithm {
        Algorithm::RoundRobin => Selection::FiveTuple,
        Algorithm::SourceIp => Selection::SourceIp,
        Algorithm::SourceIpPort => Selection::SourceIpPort,
    }
}
