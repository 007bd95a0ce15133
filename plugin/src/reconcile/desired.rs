//! Desired OVN state of a tree. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use fiberlb_northbound::plan::{
    self, AnswerForm, Balancer, Capabilities, Desired, Installation, Network, NetworkTraits, Row, Selection,
    Target,
};
use fiberlb_northbound::{Northbound, TableKind};
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::network::answered;
use crate::datapath::{Carrier, Decision, decide, is_direct};
use crate::resources::{
    Algorithm, Backend, Listener, ListenerProtocol, Persistence, Pool, Record, Transport, Tree, vip_fault,
};
use crate::rows::{listener_row, reservation_row};
use crate::status::{Carried, FailureScope, FleetView, Health, NetworkCaveats, PlacedNode};

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
    traits: NetworkTraits,
    nb: &Northbound,
    installation: Installation,
    capabilities: &Capabilities,
) -> DesiredState {
    let mut desired = DesiredState::default();
    if tree.load_balancer.deleting {
        return desired;
    }
    hold_addresses(&mut desired.rows, tree, &view, installation, capabilities.answer_form());
    desired.carried.view = view;
    let NetworkTraits { is_physical, has_stateless_acls, .. } = traits;
    desired.carried.caveats = NetworkCaveats { is_physical, has_stateless_acls };
    for listener in tree.listeners.values().filter(|listener| !listener.deleting) {
        if let Err(reason) = add_listener(&mut desired, tree, listener, nb, installation, capabilities) {
            desired.carried.refused.insert(listener.id, reason);
        }
    }
    desired
}

/// Ports that keep the VIPs out of OVN's IPAM, and the row by which the responder answers for them. DIRECT VIPs are nodes', which bind
/// their ports and answer.
fn hold_addresses(
    rows: &mut Desired,
    tree: &Tree,
    view: &FleetView,
    installation: Installation,
    form: AnswerForm,
) {
    let (owner, spec) = (installation.load_balancer(tree.id()), &tree.load_balancer.spec);
    if !is_direct(tree) {
        let row = reservation_row(installation, tree.id());
        plan::reservation(rows, owner, row, spec.network, &spec.vips, form);
        if form == AnswerForm::Rows {
            answered(tree, installation).add_row(rows, owner, &spec.common.name);
        }
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
    nb: &Northbound,
    installation: Installation,
    capabilities: &Capabilities,
) -> Result<(), String> {
    let decision = decide(tree, &listener.spec, capabilities).map_err(|conflict| conflict.reason)?;
    let row = nb.load_balancer.get(&listener_row(installation, listener.id));
    let in_row = |address: SocketAddr| row.is_some_and(|row| has_backend(row, address));
    let balancer = match decision.carrier {
        Carrier::Direct => None,
        Carrier::Ovn => Some(over_backends(tree, listener, &in_row, &mut desired.carried, installation)),
        Carrier::Proxy => {
            Some(over_proxies(tree, listener, &in_row, &desired.carried.view, installation, capabilities))
        }
    };
    if decision != Decision::OVN {
        desired.carried.decisions.insert(listener.id, decision);
    }
    let Some(balancer) = balancer else { return Ok(()) };
    let row = plan::balancer(&balancer, capabilities).map_err(|error| error.to_string())?;
    let group = Network::group(installation, tree.load_balancer.spec.network);
    let in_group = (TableKind::LoadBalancerGroup, group, "load_balancer");
    desired.rows.add(balancer.uuid, Row::LoadBalancer(row), [in_group]);
    Ok(())
}

/// Checks whether a row sends new connections to an address.
fn has_backend(row: &fiberlb_northbound::LoadBalancer, address: SocketAddr) -> bool {
    let text = address.to_string();
    row.vips.values().flat_map(|backends| backends.split(',')).any(|backend| backend == text)
}

/// What blocks a tree as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// Reason, for the owner of the load balancer.
    pub(super) reason: String,
    /// Whether it serves nevertheless.
    pub(super) scope: FailureScope,
}

impl Obstacle {
    /// One that ends nothing that serves.
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), scope: FailureScope::Tree }
    }
}

/// What of the network blocks a tree as a whole, for as long as it does. `subnets`: those of networks that were looked up
/// before.
pub(super) fn obstacle(
    tree: &Tree,
    installation: Installation,
    nb: &Northbound,
    capabilities: &Capabilities,
    subnets: &mut HashMap<Uuid, Vec<IpNetwork>>,
) -> Option<Obstacle> {
    let spec = &tree.load_balancer.spec;
    if tree.load_balancer.deleting {
        return None;
    }
    if !capabilities.groups {
        return Some(Obstacle::new(
            "the connected OVN has no Load_Balancer_Group: FiberLB needs OVN 21.12 or later",
        ));
    }
    if nb.logical_switch.get(&spec.network).is_none() {
        let reason = format!("the logical switch {} does not exist in the northbound database", spec.network);
        return Some(Obstacle { reason, scope: FailureScope::NetworkGone });
    }
    // Once reserved, an address stays in service even if another port claims it: releasing it would stop
    // traffic.
    let own = reservation_row(installation, tree.id());
    let virtual_row = |vip: &IpAddr| plan::virtual_port_row(installation, tree.id(), *vip);
    let rows = spec.vips.iter().map(virtual_row).chain([own]);
    if rows.into_iter().any(|row| nb.logical_switch_port.get(&row).is_some()) {
        return None;
    }
    // It was stored while the network was not known, or the network's subnet is another one now.
    let subnets = subnets.entry(spec.network).or_insert_with(|| plan::subnets(spec.network, nb));
    if let Some(why) = spec.vips.iter().find_map(|vip| vip_fault(*vip, subnets, true)) {
        return Some(Obstacle::new(format!("a VIP cannot be served: {why}")));
    }
    let holder = |vip| plan::address_holder(spec.network, vip, own, nb).map(|holder| (vip, holder));
    let (vip, holder) = spec.vips.iter().copied().find_map(holder)?;
    Some(Obstacle::new(format!("the VIP {vip} is in use by {} on the network", holder.0)))
}

/// A row that spreads connections over the backends in rotation.
fn over_backends(
    tree: &Tree,
    listener: &Record<Listener>,
    in_row: &dyn Fn(SocketAddr) -> bool,
    carried: &mut Carried,
    installation: Installation,
) -> Balancer {
    let pool = pool_of(tree, listener);
    let backends = pool.map(|pool| tree.backends_of(pool.id)).into_iter().flatten();
    let mut targets = Vec::new();
    for backend in backends.filter(|backend| !backend.deleting) {
        let health = carried.view.health(backend.id);
        // A backup is in the row only while it is needed: its absence means nothing.
        let is_in_rotation = backend.spec.backup || in_row(backend.spec.address);
        let serves = health.serves(is_in_rotation);
        if *health == Health::Unknown && serves {
            carried.unjudged.insert(backend.id);
        }
        targets.push(target(&backend.spec, serves));
    }
    Balancer {
        targets,
        selection: pool.map_or(Selection::FiveTuple, |pool| selection(pool.spec.algorithm)),
        affinity_timeout: pool.and_then(affinity_timeout),
        enabled: is_enabled(tree, listener) && pool.is_some_and(|pool| pool.spec.admin_state_up),
        ..frame(tree, listener, installation)
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
    let pool = pool_of(tree, listener);
    let port = view.proxied.get(&listener.id).and_then(|proxied| proxied.port);
    let addresses = |node: &PlacedNode| {
        node.hosts.iter().filter_map(|host| Some(SocketAddr::new(*host, port?))).collect::<Vec<_>>()
    };
    let mut targets = Vec::new();
    for (node, address) in
        view.nodes.iter().flat_map(|node| addresses(node).into_iter().map(move |it| (node, it)))
    {
        let serves = view.serves(listener.id, node, in_row(address));
        // Draining nodes come last: they are in the row only where it would be empty without them.
        let is_relieved = |other: &Target| other.enabled && other.address.is_ipv4() == address.is_ipv4();
        let enabled = serves && !(node.draining && targets.iter().any(is_relieved));
        targets.push(Target { address, weight: 1, backup: false, enabled });
    }
    let by_client = pool
        .is_some_and(|pool| pool.spec.algorithm == Algorithm::SourceIp || pool.spec.persistence.is_some());
    let has_v6 = tree.load_balancer.spec.vips.iter().any(IpAddr::is_ipv6);
    let can_select = capabilities.selection_fields && (capabilities.ipv6_selection || !has_v6);
    // The proxies remember their clients, so the same node is enough; and OVN's own affinity loses
    // connections.
    let by_hash = by_client && can_select;
    let affinity_timeout = pool.and_then(affinity_timeout).filter(|_| capabilities.affinity && !by_hash);
    Balancer {
        targets,
        selection: if by_hash { Selection::SourceIp } else { Selection::FiveTuple },
        affinity_timeout,
        enabled: is_enabled(tree, listener),
        ..frame(tree, listener, installation)
    }
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
        targets: Vec::new(),
        selection: Selection::FiveTuple,
        affinity_timeout: None,
        enabled: false,
    }
}

fn is_enabled(tree: &Tree, listener: &Record<Listener>) -> bool {
    tree.load_balancer.spec.admin_state_up && listener.spec.admin_state_up
}

fn pool_of<'a>(tree: &'a Tree, listener: &Record<Listener>) -> Option<&'a Record<Pool>> {
    let pool = tree.pools.get(&listener.spec.default_pool_id?)?;
    (!pool.deleting).then_some(pool)
}

fn affinity_timeout(pool: &Record<Pool>) -> Option<u16> {
    pool.spec.persistence.map(|Persistence::SourceIp { timeout_s }| timeout_s)
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
        Algorithm::RoundRobin | Algorithm::LeastConnections => Selection::FiveTuple,
        Algorithm::SourceIp => Selection::SourceIp,
        Algorithm::SourceIpPort => Selection::SourceIpPort,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

    use super::*;
    use crate::datapath::is_direct;
    use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, POOL, change, tree};
    use crate::resources::{Datapath, Exposure, LoadBalancer};
    use crate::status::{Liveness, Proxied};
    use crate::vips::vips_bytes;
    use uuid::Uuid;

    const INSTALLATION: Installation = Installation(Uuid::from_u128(9));

    /// A database that holds the desired rows.
    fn database(desired: &DesiredState) -> Northbound {
        let mut nb = Northbound::default();
        let updates = desired.rows.rows.iter().filter_map(|(uuid, row)| {
            let (table, columns) = match row {
                Row::LoadBalancer(row) => ("Load_Balancer", row.to_row()),
                Row::LogicalSwitchPort(row) => ("Logical_Switch_Port", row.to_row()),
                _ => return None,
            };
            Some(RowUpdate { table: table.to_owned(), uuid: *uuid, change: RowChange::Insert(columns) })
        });
        nb.apply(updates.collect()).unwrap();
        nb
    }

    fn desired_of(tree: &Tree, view: FleetView, nb: &Northbound) -> DesiredState {
        desired_state(tree, view, NetworkTraits::default(), nb, INSTALLATION, &Capabilities::ALL)
    }

    /// The backends of the listener's row.
    fn backends(desired: &DesiredState) -> Vec<String> {
        let Some(Row::LoadBalancer(row)) = desired.rows.rows.get(&listener_row(INSTALLATION, LISTENER))
        else {
            return Vec::new();
        };
        let vip = &row.vips["10.0.0.100:80"];
        vip.split(',').filter(|backend| !backend.is_empty()).map(str::to_owned).collect()
    }

    fn health(first: Health) -> FleetView {
        let others = BACKENDS.iter().skip(1).map(|id| (*id, Health::Up));
        FleetView { health: others.chain([(BACKENDS[0], first)]).collect(), ..FleetView::default() }
    }

    fn node(id: &str, host: &str, liveness: Liveness) -> PlacedNode {
        PlacedNode {
            id: id.to_owned(),
            port_name: format!("port-{id}"),
            hosts: vec![host.parse().unwrap()],
            liveness,
            draining: false,
            trouble: None,
        }
    }

    fn proxied(nodes: Vec<PlacedNode>, results: &[(&str, Result<u64, String>)]) -> FleetView {
        let results = results.iter().map(|(id, result)| ((*id).to_owned(), result.clone())).collect();
        let proxied =
            BTreeMap::from([(LISTENER, Proxied { port: Some(10_000), results, ..Proxied::default() })]);
        FleetView { nodes, proxied, ..FleetView::default() }
    }

    fn carried_by_proxies() -> Tree {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        tree
    }

    #[test]
    fn rows_take_no_more_bytes_than_were_foreseen() {
        let nb = Northbound::default();
        let mut tree = tree();
        change::<LoadBalancer>(&mut tree, LOAD_BALANCER, |root| root.vips.push("fd00::9".parse().unwrap()));
        for (weight, proxied) in [(1, false), (2, false), (256, false), (256, true)] {
            change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.weight = weight);
            let datapath = if proxied { Datapath::Proxy } else { Datapath::Auto };
            change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = datapath);
            for first in [Health::Up, Health::Down("x".into())] {
                let desired = desired_of(&tree, health(first), &nb);
                let rows = desired.rows.rows.values().filter_map(|row| match row {
                    Row::LoadBalancer(row) => Some(&row.vips),
                    _ => None,
                });
                let bytes: usize = rows.flatten().map(|(key, value)| key.len() + value.len()).sum();
                assert!(bytes as u64 <= vips_bytes(&tree), "{weight} {proxied}: {bytes}");
                assert!(bytes > 0);
            }
        }
    }

    #[test]
    fn a_backend_that_is_down_leaves_the_row_and_one_that_is_in_doubt_stays() {
        let (tree, nb) = (tree(), Northbound::default());
        let all = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
        assert_eq!(backends(&desired_of(&tree, health(Health::Up), &nb)), all);
        assert_eq!(backends(&desired_of(&tree, health(Health::Degraded("x".into())), &nb)), all);
        assert_eq!(backends(&desired_of(&tree, health(Health::NotChecked), &nb)), all);
        assert_eq!(backends(&desired_of(&tree, health(Health::Down("x".into())), &nb)), all[1..]);
    }

    #[test]
    fn without_a_verdict_a_backend_stays_as_the_database_has_it() {
        let tree = tree();
        let unknown = || health(Health::Unknown);
        let new = desired_of(&tree, unknown(), &Northbound::default());
        assert_eq!(backends(&new).len(), 2, "a new one waits");
        assert!(new.carried.unjudged.is_empty());
        let before = database(&desired_of(&tree, health(Health::Up), &Northbound::default()));
        let after = desired_of(&tree, unknown(), &before);
        assert_eq!(backends(&after).len(), 3);
        assert_eq!(after.carried.unjudged, [BACKENDS[0]].into());
        let without = database(&desired_of(&tree, health(Health::Down("x".into())), &Northbound::default()));
        assert_eq!(backends(&desired_of(&tree, unknown(), &without)).len(), 2);
    }

    #[test]
    fn a_proxied_row_has_the_nodes_that_say_that_they_serve() {
        let (tree, nb) = (carried_by_proxies(), Northbound::default());
        let nodes = || {
            let alive = |id, host| node(id, host, Liveness::Alive);
            vec![alive("a", "10.0.0.250"), alive("b", "10.0.0.251"), alive("c", "10.0.0.252")]
        };
        let refused = || Err("the port is taken".to_owned());
        let view = proxied(nodes(), &[("a", Ok(1)), ("b", refused())]);
        let desired = desired_of(&tree, view, &nb);
        assert_eq!(backends(&desired), ["10.0.0.250:10000"]);
        assert_eq!(desired.carried.decisions[&LISTENER].carrier, Carrier::Proxy);

        let all =
            database(&desired_of(&tree, proxied(nodes(), &[("a", Ok(1)), ("b", Ok(1)), ("c", Ok(1))]), &nb));
        assert_eq!(
            backends(&desired_of(&tree, proxied(nodes(), &[]), &all)).len(),
            3,
            "silence changes nothing"
        );
        let dead = vec![node("a", "10.0.0.250", Liveness::Dead), node("b", "10.0.0.251", Liveness::Silent)];
        assert_eq!(backends(&desired_of(&tree, proxied(dead, &[("a", Ok(1))]), &all)), ["10.0.0.251:10000"]);
    }

    #[test]
    fn what_is_to_stay_with_one_backend_stays_with_one_node_by_a_hash_where_ovn_has_one() {
        let mut tree = carried_by_proxies();
        change::<Pool>(&mut tree, POOL, |pool| {
            pool.persistence = Some(Persistence::SourceIp { timeout_s: 60 });
        });
        let row = |tree: &Tree, capabilities| {
            let view = proxied(vec![node("a", "10.0.0.250", Liveness::Alive)], &[("a", Ok(1))]);
            let traits = NetworkTraits::default();
            let desired =
                desired_state(tree, view, traits, &Northbound::default(), INSTALLATION, capabilities);
            let row = desired.rows.rows.get(&listener_row(INSTALLATION, LISTENER));
            let Some(Row::LoadBalancer(row)) = row else { panic!("{desired:?}") };
            let affinity = row.options.get("affinity_timeout").cloned();
            (row.selection_fields.contains("ip_src"), row.selection_fields.contains("ipv6_src"), affinity)
        };
        let old = Capabilities { ipv6_selection: false, ..Capabilities::ALL };
        assert_eq!(row(&tree, &old), (true, false, None));
        let mut root = LoadBalancer::clone(&tree.load_balancer.spec);
        root.vips.push("fd00::100".parse().unwrap());
        tree.load_balancer = Arc::new(tree.load_balancer.changed(root));
        assert_eq!(row(&tree, &Capabilities::ALL), (true, true, None));
        assert_eq!(
            row(&tree, &old),
            (false, false, Some("60".to_owned())),
            "a hash would not know its clients"
        );
    }

    #[test]
    fn a_node_that_drains_is_in_the_row_only_where_it_would_be_empty_without() {
        let (tree, nb) = (carried_by_proxies(), Northbound::default());
        let row = |other: Result<u64, String>| {
            let draining = PlacedNode { draining: true, ..node("a", "10.0.0.250", Liveness::Alive) };
            let nodes = vec![node("b", "10.0.0.251", Liveness::Alive), draining];
            backends(&desired_of(&tree, proxied(nodes, &[("a", Ok(1)), ("b", other)]), &nb))
        };
        assert_eq!(row(Ok(1)), ["10.0.0.251:10000"]);
        assert_eq!(row(Err("the port is taken".to_owned())), ["10.0.0.250:10000"]);
    }

    #[test]
    fn a_direct_vip_has_no_row_but_a_virtual_port_with_the_nodes_as_parents() {
        let mut tree = carried_by_proxies();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.exposure = Exposure::Direct);
        assert!(is_direct(&tree));
        let nodes = vec![node("a", "10.0.0.250", Liveness::Alive), node("b", "10.0.0.251", Liveness::Dead)];
        let desired = desired_of(&tree, proxied(nodes, &[]), &Northbound::default());
        let vip = "10.0.0.100".parse().unwrap();
        let uuid = plan::virtual_port_row(INSTALLATION, LOAD_BALANCER, vip);
        let Some(Row::LogicalSwitchPort(port)) = desired.rows.rows.get(&uuid) else { panic!("{desired:?}") };
        assert_eq!(desired.rows.rows.len(), 1);
        assert_eq!(port.options["virtual-parents"], "port-a,port-b");
        assert!(desired.rows.members.iter().all(|member| member.row == NETWORK));
    }
}
