//! Desired OVN state of a tree. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use fiberlb_northbound::plan::{
    self, AddressUse, AnswerForm, Balancer, Capabilities, Desired, Installation, Network, NetworkTraits, Row,
    Selection, Target, TargetPool,
};
use fiberlb_northbound::{LoadBalancer, Northbound, TableKind};
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::network::{answered, reservation};
use super::standing::{awaits_holder, carrier_in_row, covers};
use crate::datapath::{Carrier, Decision, decide, is_direct};
use crate::resources::{
    Algorithm, Backend, Listener, ListenerProtocol, Persistence, Pool, Record, Transport, Tree, vip_fault,
};
use crate::rows::{listener_row, reservation_row};
use crate::status::{
    Carried, FailureScope, FleetView, Health, NetworkCaveats, Observation, PlacedNode, Reserve,
};

/// Desired rows of a tree, and how they carry it.
#[derive(Debug, Default)]
pub(super) struct DesiredState {
    /// Rows; none for a deleted tree.
    pub(super) rows: Desired,
    /// Carriers and refusals.
    pub(super) carried: Carried,
}

/// Desired OVN state of a tree: a row for each listener that OVN balances, over backends or over proxy nodes,
/// all of them in the network's group, the ports that reserve its addresses, and the row by which they are answered for where that
/// is the form. Deleted resources have none.
///
/// `nb` tells which targets take connections now: they stay as they are where nothing else is known.
pub(super) fn desired_state(
    tree: &Tree,
    view: FleetView,
    before: &Observation,
    traits: NetworkTraits,
    nb: &Northbound,
    installation: Installation,
    capabilities: &Capabilities,
) -> DesiredState {
    let mut desired = DesiredState::default();
    if tree.load_balancer.deleting {
        return desired;
    }
    let awaits = awaits_holder(tree, &view, before, nb, installation);
    hold_addresses(&mut desired.rows, tree, awaits, &view, installation, capabilities.answer_form());
    desired.carried.view = view;
    let NetworkTraits { is_physical, has_stateless_acls, .. } = traits;
    desired.carried.caveats = NetworkCaveats { is_physical, has_stateless_acls };
    for listener in tree.listeners.values().filter(|listener| !listener.deleting) {
        let row = nb.load_balancer.get(&listener_row(installation, listener.id));
        let now = ListenerNow {
            row,
            stands: carrier_in_row(listener.id, row, before, &desired.carried.view),
            awaits,
        };
        if let Err(reason) = add_listener(&mut desired, tree, listener, &now, installation, capabilities) {
            desired.carried.refused.insert(listener.id, reason);
        }
    }
    desired
}

/// State of a listener in OVN.
struct ListenerNow<'a> {
    /// Its row.
    row: Option<&'a LoadBalancer>,
    /// Carrier that serves it by that row.
    stands: Option<Carrier>,
    /// True if OVN goes on to answer for DIRECT VIPs.
    awaits: bool,
}

/// The row by which the responder answers for the VIPs, or the port that keeps them out of OVN's IPAM; where answers are rows, ports of
/// the network do. DIRECT VIPs are nodes', which bind their ports and answer; `awaits`: OVN answers for these until nodes do.
fn hold_addresses(
    rows: &mut Desired,
    tree: &Tree,
    awaits: bool,
    view: &FleetView,
    installation: Installation,
    form: AnswerForm,
) {
    let (owner, spec) = (installation.load_balancer(tree.id()), &tree.load_balancer.spec);
    if awaits || !is_direct(tree) {
        match form {
            AnswerForm::Rows => answered(tree, installation).add_row(rows, owner, &spec.common.name),
            AnswerForm::Networks => reservation(tree, installation).add_port(rows, owner),
        }
    }
    if !is_direct(tree) {
        return;
    }
    let parents: BTreeSet<String> = view.nodes.iter().map(|node| node.port_name.clone()).collect();
    for vip in &spec.vips {
        let row = plan::virtual_port_row(installation, tree.id(), *vip);
        plan::virtual_port(rows, owner, row, spec.network, *vip, &parents);
    }
}

fn add_listener(
    desired: &mut DesiredState,
    tree: &Tree,
    listener: &Record<Listener>,
    now: &ListenerNow<'_>,
    installation: Installation,
    capabilities: &Capabilities,
) -> Result<(), String> {
    let decided = decide(tree, &listener.spec, capabilities).map_err(|conflict| conflict.reason);
    let listed = now.row.map(|row| listed(row, listener.spec.port)).unwrap_or_default();
    let in_row = |address: SocketAddr| listed.contains(&address);
    let carried = &mut desired.carried;
    let backends = |carried: &mut Carried| over_backends(tree, listener, &in_row, carried, installation);
    let as_before = |carried: &mut Carried| within(backends(carried), capabilities);
    let proxies =
        |carried: &Carried| over_proxies(tree, listener, &in_row, &carried.view, installation, capabilities);
    let stays = |carrier| now.stands == Some(carrier);
    let vips = &tree.load_balancer.spec.vips;
    // The carrier before stays until this one serves; what is refused takes nothing from those that it serves.
    let (balancer, standing) = match decided.as_ref().map(|decision| decision.carrier) {
        Err(_) if stays(Carrier::Ovn) => (Some(as_before(carried)), Some(Carrier::Ovn)),
        Err(_) if stays(Carrier::Proxy) => (Some(proxies(carried)), Some(Carrier::Proxy)),
        Err(_) => (None, None),
        Ok(Carrier::Direct) => match now.stands.filter(|_| now.awaits) {
            Some(Carrier::Ovn) => (Some(as_before(carried)), Some(Carrier::Ovn)),
            Some(Carrier::Proxy) => {
                (Some(on_holder(proxies(carried), &carried.view, vips)), Some(Carrier::Proxy))
            }
            Some(Carrier::Direct) | None => (None, None),
        },
        Ok(Carrier::Proxy) => match proxies(carried) {
            next if stays(Carrier::Ovn) && !covers(&next, vips) => {
                (Some(as_before(carried)), Some(Carrier::Ovn))
            }
            next => (Some(next), None),
        },
        Ok(Carrier::Ovn) => match backends(carried) {
            next if stays(Carrier::Proxy) && awaits_probes(tree, listener, &next, carried) => {
                (Some(proxies(carried)), Some(Carrier::Proxy))
            }
            next => (Some(next), None),
        },
    };
    if let Ok(decision) = &decided
        && *decision != Decision::OVN
    {
        desired.carried.decisions.insert(listener.id, decision.clone());
    }
    if let Some(balancer) = balancer {
        let row = plan::balancer(&balancer, capabilities).map_err(|error| error.to_string())?;
        let group = Network::group(installation, tree.load_balancer.spec.network);
        let in_group = (TableKind::LoadBalancerGroup, group, "load_balancer");
        desired.rows.add(balancer.uuid, Row::LoadBalancer(row), [in_group]);
    }
    if let Some(carrier) = standing {
        desired.carried.standing.insert(listener.id, carrier);
    }
    decided.map(drop)
}

/// True if a row over backends is empty for want of first good probes.
fn awaits_probes(tree: &Tree, listener: &Record<Listener>, row: &Balancer, carried: &Carried) -> bool {
    let is_unknown = |backend: &Record<Backend>| {
        let spec = &backend.spec;
        let may_serve = !backend.deleting && spec.admin_state_up && spec.weight > 0;
        may_serve && *carried.view.health(backend.id) == Health::Unknown
    };
    let may_serve = |pool: &Pool, weight: u16| pool.admin_state_up && weight > 0;
    let serving = tree.pools_of(&listener.spec).filter(|(pool, weight)| may_serve(&pool.spec, *weight));
    let serving: Vec<Uuid> = serving.map(|(pool, _)| pool.id).collect();
    let mut backends = tree.backends_of_any(&serving);
    let is_empty = !row.targets().any(|target| target.enabled && target.weight > 0);
    row.enabled && is_empty && backends.any(|backend| is_unknown(backend))
}

/// Addresses to which a row sends new connections at a port of its VIPs.
fn listed(row: &LoadBalancer, port: u16) -> HashSet<SocketAddr> {
    let port = format!(":{port}");
    let lists = row.vips.iter().filter(|(vip, _)| vip.ends_with(&port)).map(|(_, list)| list);
    lists.flat_map(|backends| backends.split(',')).filter_map(|backend| backend.parse().ok()).collect()
}

/// Obstacle in the network that blocks a tree as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NetworkObstacle {
    /// Reason, for the owner of the load balancer.
    pub(super) reason: String,
    /// Scope of the failure: a listener that serves already may go on.
    pub(super) scope: FailureScope,
}

impl NetworkObstacle {
    /// One that ends nothing that serves.
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), scope: FailureScope::Tree }
    }
}

/// Finds an obstacle in the network that blocks a tree as a whole. `subnets` caches those of networks looked up before.
pub(super) fn obstacle(
    tree: &Tree,
    installation: Installation,
    nb: &Northbound,
    capabilities: &Capabilities,
    subnets: &mut HashMap<Uuid, Vec<IpNetwork>>,
) -> Option<NetworkObstacle> {
    let spec = &tree.load_balancer.spec;
    if tree.load_balancer.deleting {
        return None;
    }
    if !capabilities.groups {
        return Some(NetworkObstacle::new(
            "the connected OVN has no Load_Balancer_Group: FiberLB needs OVN 21.12 or later",
        ));
    }
    if nb.logical_switch.get(&spec.network).is_none() {
        let reason = format!("the logical switch {} does not exist in the northbound database", spec.network);
        return Some(NetworkObstacle { reason, scope: FailureScope::NetworkGone });
    }
    // Once reserved, an address stays in service even if another port claims it: releasing it would stop
    // traffic.
    let own = reservation_row(installation, tree.id());
    let virtual_row = |vip: &IpAddr| plan::virtual_port_row(installation, tree.id(), *vip);
    let rows = spec.vips.iter().map(virtual_row).chain([own]);
    let has_port = |row: Uuid| nb.logical_switch_port.get(&row).is_some();
    if rows.into_iter().any(has_port) || reservation(tree, installation).is_kept(nb) {
        return None;
    }
    // It was stored while the network was not known, or the network's subnet is another one now.
    let subnets = subnets.entry(spec.network).or_insert_with(|| plan::subnets(spec.network, nb));
    if let Some(why) = spec.vips.iter().find_map(|vip| vip_fault(*vip, subnets, true)) {
        return Some(NetworkObstacle::new(format!("a VIP cannot be served: {why}")));
    }
    let addresses = AddressUse::on(spec.network, installation, nb);
    let holder = |vip| addresses.holder(vip, own).map(|holder| (vip, holder));
    let (vip, holder) = spec.vips.iter().copied().find_map(holder)?;
    Some(NetworkObstacle::new(format!("the VIP {vip} is in use by {} on the network", holder.0)))
}

/// A row that spreads connections over the backends in rotation.
fn over_backends(
    tree: &Tree,
    listener: &Record<Listener>,
    in_row: &dyn Fn(SocketAddr) -> bool,
    carried: &mut Carried,
    installation: Installation,
) -> Balancer {
    // Pools of one row do not differ in what the row has once.
    let first = tree.pools_of(&listener.spec).next().map(|(pool, _)| &pool.spec);
    let mut backends: HashMap<Uuid, Vec<&Record<Backend>>> = HashMap::new();
    for backend in tree.backends_behind(&listener.spec) {
        backends.entry(backend.spec.pool_id).or_default().push(backend);
    }
    let pools = tree.pools_of(&listener.spec).map(|(pool, weight)| {
        let backends = backends.remove(&pool.id).unwrap_or_default();
        target_pool(&pool.spec, weight, &backends, in_row, carried)
    });
    Balancer {
        pools: pools.collect(),
        selection: first.map_or(Selection::FiveTuple, |pool| selection(pool.algorithm)),
        affinity_timeout: first.and_then(affinity_timeout),
        cut: first.is_some_and(|pool| pool.drain_timeout_ms == Some(0)),
        enabled: is_enabled(tree, listener),
        ..frame(tree, listener, installation)
    }
}

/// A pool with its backends, as the row of a listener has them.
fn target_pool(
    pool: &Pool,
    weight: u16,
    backends: &[&Record<Backend>],
    in_row: &dyn Fn(SocketAddr) -> bool,
    carried: &mut Carried,
) -> TargetPool {
    // Backends that believe a header of PROXY protocol must meet no client that could write it. OVN sends them no
    // connections, should it still carry the listener.
    let takes = pool.admin_state_up && !pool.protocol.has_header();
    let mut targets = Vec::with_capacity(backends.len());
    for backend in backends {
        let health = carried.view.health(backend.id);
        // A backup is in the row only while it is needed: its absence means nothing.
        let is_in_rotation = backend.spec.backup || in_row(backend.spec.address);
        let serves = health.serves(is_in_rotation);
        if *health == Health::Unknown && serves {
            carried.unjudged.insert(backend.id);
        }
        targets.push(target(&backend.spec, takes && serves));
    }
    TargetPool { weight, targets }
}

/// A row without what the connected OVN cannot do.
fn within(row: Balancer, capabilities: &Capabilities) -> Balancer {
    let has_v6 = row.vips.iter().any(SocketAddr::is_ipv6);
    let can_select = match row.selection {
        Selection::FiveTuple => true,
        Selection::SourceIp => capabilities.selection_fields && (capabilities.ipv6_selection || !has_v6),
        Selection::SourceIpPort => capabilities.selection_fields,
    };
    Balancer {
        selection: if can_select { row.selection } else { Selection::FiveTuple },
        affinity_timeout: row.affinity_timeout.filter(|_| capabilities.affinity),
        ..row
    }
}

/// A row that spreads connections over the nodes whose proxies serve the listener. Persistence to a backend
/// requires persistence to a node.
fn over_proxies(
    tree: &Tree,
    listener: &Record<Listener>,
    in_row: &dyn Fn(SocketAddr) -> bool,
    view: &FleetView,
    installation: Installation,
    capabilities: &Capabilities,
) -> Balancer {
    let port = view.proxied.get(&listener.id).and_then(|proxied| proxied.port);
    let addresses = |node: &PlacedNode| {
        node.hosts.iter().filter_map(|host| Some(SocketAddr::new(*host, port?))).collect::<Vec<_>>()
    };
    let mut nodes: Vec<(Reserve, &PlacedNode)> =
        view.nodes.iter().map(|node| (view.reserve(listener.id, node), node)).collect();
    // Nodes that are to be spared come last: they are in the row only where it would be empty without them.
    nodes.sort_by_key(|(reserve, _)| *reserve);
    let (mut targets, mut relieved) = (Vec::<Target>::new(), BTreeMap::new());
    for (reserve, node) in nodes {
        for address in addresses(node) {
            let least = relieved.get(&address.is_ipv4()).copied().unwrap_or(reserve);
            let enabled = view.serves(listener.id, node, in_row(address)) && least == reserve;
            if enabled {
                relieved.insert(address.is_ipv4(), reserve);
            }
            targets.push(Target { address, weight: 1, backup: false, enabled });
        }
    }
    let pools = || tree.pools_of(&listener.spec).map(|(pool, _)| &pool.spec);
    let by_client = pools().any(|pool| pool.algorithm == Algorithm::SourceIp || pool.persistence.is_some());
    let has_v6 = tree.load_balancer.spec.vips.iter().any(IpAddr::is_ipv6);
    let can_select = capabilities.selection_fields && (capabilities.ipv6_selection || !has_v6);
    // The proxies remember their clients, so the same node is enough; and OVN's own affinity loses
    // connections.
    let by_hash = by_client && can_select;
    let affinity_timeout = pools().filter_map(affinity_timeout).max();
    let affinity_timeout = affinity_timeout.filter(|_| capabilities.affinity && !by_hash);
    Balancer {
        pools: vec![TargetPool::alone(targets)],
        selection: if by_hash { Selection::SourceIp } else { Selection::FiveTuple },
        affinity_timeout,
        enabled: is_enabled(tree, listener),
        ..frame(tree, listener, installation)
    }
}

/// A row over proxies with the one node that has the VIPs alone, if it serves: neighbours meet it by whichever MAC they know.
fn on_holder(row: Balancer, view: &FleetView, vips: &[IpAddr]) -> Balancer {
    let holds_all = |node: &&PlacedNode| vips.iter().all(|vip| view.holders.get(vip) == Some(&node.id));
    let Some(holder) = view.nodes.iter().find(holds_all) else { return row };
    let targets = row.targets().filter(|target| holder.hosts.contains(&target.address.ip()));
    let alone = vec![TargetPool::alone(targets.copied().collect())];
    let alone = Balancer { pools: alone, ..row.clone() };
    if covers(&alone, vips) { alone } else { row }
}

/// Common fields of all listener rows.
fn frame(tree: &Tree, listener: &Record<Listener>, installation: Installation) -> Balancer {
    let spec = &listener.spec;
    let name =
        if spec.common.name.is_empty() { &tree.load_balancer.spec.common.name } else { &spec.common.name };
    Balancer {
        uuid: listener_row(installation, listener.id),
        owner: installation.load_balancer(tree.id()),
        name: name.clone(),
        protocol: protocol(spec.protocol),
        vips: tree.load_balancer.spec.vips.iter().map(|vip| SocketAddr::new(*vip, spec.port)).collect(),
        ports: spec.port_count(),
        pools: Vec::new(),
        selection: Selection::FiveTuple,
        affinity_timeout: None,
        cut: false,
        enabled: false,
    }
}

fn is_enabled(tree: &Tree, listener: &Record<Listener>) -> bool {
    tree.load_balancer.spec.admin_state_up && listener.spec.admin_state_up
}

fn affinity_timeout(pool: &Pool) -> Option<u16> {
    pool.persistence.map(|Persistence::SourceIp { timeout_s }| timeout_s)
}

fn target(backend: &Backend, serves: bool) -> Target {
    Target {
        address: backend.address,
        weight: backend.weight,
        backup: backend.backup,
        enabled: backend.admin_state_up && serves,
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
        // Unsupported algorithms never get here: proxies carry them.
        Algorithm::RoundRobin
        | Algorithm::LeastConnections
        | Algorithm::Random
        | Algorithm::PowerOfTwoChoices => Selection::FiveTuple,
        Algorithm::SourceIp => Selection::SourceIp,
        Algorithm::SourceIpPort => Selection::SourceIpPort,
    }
}

#[cfg(test)]
mod tests;
