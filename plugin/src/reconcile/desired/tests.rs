use std::collections::BTreeMap;
use std::sync::Arc;

use ovsdb::replica::{Replica as _, RowChange, RowUpdate};

use super::*;
use crate::datapath::is_direct;
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, POOL, change, pool, put, tree};
use crate::resources::{
    Algorithm, Datapath, Exposure, LoadBalancer, PoolProtocol, ProxyLimits, WeightedPool,
};
use crate::rows::answer_row;
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
    let before = Observation::default();
    desired_state(tree, view, &before, NetworkTraits::default(), nb, INSTALLATION, &Capabilities::ALL)
}

/// The backends of the listener's row.
fn backends(desired: &DesiredState) -> Vec<String> {
    let Some(Row::LoadBalancer(row)) = desired.rows.rows.get(&listener_row(INSTALLATION, LISTENER)) else {
        return Vec::new();
    };
    let vip = row.vips.get("10.0.0.100:80").unwrap();
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
    let proxied = BTreeMap::from([(LISTENER, Proxied { port: Some(10_000), results, ..Proxied::default() })]);
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
fn connections_are_cut_by_a_row_over_backends_and_never_by_one_over_nodes() {
    for (timeout, by_ovn) in [(None, false), (Some(0), true), (Some(5_000), false)] {
        for (mut tree, is_over_nodes) in [(tree(), timeout == Some(5_000)), (carried_by_proxies(), true)] {
            change::<Pool>(&mut tree, POOL, |pool| pool.drain_timeout_ms = timeout);
            let view = if is_over_nodes { one_node(Some(Ok(1))) } else { health(Health::Up) };
            let desired = desired_of(&tree, view, &Northbound::default());
            let row = &desired.rows.rows[&listener_row(INSTALLATION, LISTENER)];
            let Row::LoadBalancer(row) = row else { panic!("{row:?}") };
            assert_eq!(row.options.contains_key("ct_flush"), by_ovn && !is_over_nodes, "{timeout:?}");
        }
    }
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
    assert_eq!(backends(&desired_of(&tree, proxied(nodes(), &[]), &all)).len(), 3, "silence changes nothing");
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
        let (before, nb) = (Observation::default(), Northbound::default());
        let desired = desired_state(tree, view, &before, traits, &nb, INSTALLATION, capabilities);
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
    assert_eq!(row(&tree, &old), (false, false, Some("60".to_owned())), "a hash would not know its clients");
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
fn a_node_without_share_in_the_limit_is_in_the_row_only_where_it_would_be_empty_without() {
    let (tree, nb) = (carried_by_proxies(), Northbound::default());
    let row = |b_drains: bool, without: &[&str]| {
        let b = PlacedNode { draining: b_drains, ..node("b", "10.0.0.251", Liveness::Alive) };
        let nodes = vec![node("a", "10.0.0.250", Liveness::Alive), b];
        let mut view = proxied(nodes, &[("a", Ok(1)), ("b", Ok(1))]);
        let proxied = view.proxied.get_mut(&LISTENER).unwrap();
        proxied.without_share = without.iter().map(|id| (*id).to_owned()).collect();
        let serving: Vec<String> = view.serving(LISTENER).map(|node| node.id.clone()).collect();
        (backends(&desired_of(&tree, view, &nb)), serving)
    };
    let both = vec!["10.0.0.250:10000".to_owned(), "10.0.0.251:10000".to_owned()];
    assert_eq!(row(false, &[]), (both.clone(), vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(row(false, &["a"]), (vec![both[1].clone()], vec!["b".to_owned()]));
    assert_eq!(row(true, &["a"]), (vec![both[1].clone()], vec!["b".to_owned()]), "a would turn all away");
    assert_eq!(row(false, &["a", "b"]).0, both);
}

/// A state as it was applied, and observed.
fn observed(tree: &Tree, desired: &DesiredState) -> Observation {
    let (applied, carried) = (Some(Arc::new(tree.clone())), Arc::new(desired.carried.clone()));
    Observation { applied, carried, ..Observation::default() }
}

fn after(tree: &Tree, view: FleetView, before: &Observation, nb: &Northbound) -> DesiredState {
    desired_state(tree, view, before, NetworkTraits::default(), nb, INSTALLATION, &Capabilities::ALL)
}

const ALL: [&str; 3] = ["10.0.0.11:8080", "10.0.0.12:8080", "10.0.0.13:8080"];
const NODE: &str = "10.0.0.250:10000";

fn one_node(result: Option<Result<u64, String>>) -> FleetView {
    let results: Vec<_> = result.into_iter().map(|result| ("a", result)).collect();
    let mut view = proxied(vec![node("a", "10.0.0.250", Liveness::Alive)], &results);
    view.health = health(Health::Up).health;
    view
}

#[test]
fn ovn_serves_until_a_proxy_does_and_not_again_when_none_does_any_more() {
    let first = desired_of(&tree(), health(Health::Up), &Northbound::default());
    let (ovn, nb) = (observed(&tree(), &first), database(&first));
    let mut wanted = tree();
    let limits = ProxyLimits { connections: Some(10), ..ProxyLimits::default() };
    change::<Listener>(&mut wanted, LISTENER, |listener| listener.limits = limits);
    let refused = || Some(Err("the port is taken".to_owned()));
    // Also after a restart that knows of no observation: the row tells.
    for before in [&ovn, &Observation::default()] {
        for result in [None, refused()] {
            let waiting = after(&wanted, one_node(result), before, &nb);
            assert_eq!(backends(&waiting), ALL);
            assert_eq!(waiting.carried.standing, [(LISTENER, Carrier::Ovn)].into());
            assert_eq!(observed(&wanted, &waiting).carrier_in_force(LISTENER), Some(Carrier::Ovn));
        }
    }
    let waiting = after(&wanted, FleetView::default(), &ovn, &nb);
    assert_eq!(backends(&waiting), ALL, "there is no node at all");
    let standing = observed(&wanted, &waiting);

    let served = after(&wanted, one_node(Some(Ok(1))), &standing, &nb);
    assert_eq!((backends(&served), served.carried.standing.len()), (vec![NODE.to_owned()], 0));
    let (serves, nb) = (observed(&wanted, &served), database(&served));
    for before in [&serves, &standing, &Observation::default()] {
        let died = after(&wanted, one_node(refused()), before, &nb);
        assert_eq!((backends(&died).len(), died.carried.standing.len()), (0, 0), "its limit holds");
    }
    // Nor is it brought back from an emptied row.
    let emptied = database(&after(&wanted, one_node(refused()), &serves, &nb));
    assert_eq!(backends(&after(&wanted, one_node(refused()), &serves, &emptied)).len(), 0);
}

#[test]
fn what_stays_is_the_carrier_and_never_what_it_carries_to() {
    let first = desired_of(&tree(), health(Health::Up), &Northbound::default());
    let (before, nb) = (observed(&tree(), &first), database(&first));
    let waiting = |edit: &dyn Fn(&mut Tree)| {
        let mut wanted = carried_by_proxies();
        edit(&mut wanted);
        let desired = after(&wanted, one_node(None), &before, &nb);
        let row = desired.rows.rows.contains_key(&listener_row(INSTALLATION, LISTENER));
        (row, backends(&desired))
    };
    assert_eq!(waiting(&|_| {}), (true, ALL.map(str::to_owned).into()));
    let none = || (true, Vec::new());
    let off = |tree: &mut Tree| change::<Listener>(tree, LISTENER, |it| it.admin_state_up = false);
    assert_eq!(waiting(&off), none());
    assert_eq!(
        waiting(&|tree| change::<LoadBalancer>(tree, LOAD_BALANCER, |it| it.admin_state_up = false)),
        none()
    );
    assert_eq!(waiting(&|tree| change::<Pool>(tree, POOL, |it| it.admin_state_up = false)), none());
    assert_eq!(waiting(&|tree| change::<Listener>(tree, LISTENER, |it| it.default_pool_id = None)), none());
    let removed = |tree: &mut Tree| drop(tree.backends.remove(&BACKENDS[0]));
    assert_eq!(waiting(&removed), (true, ALL[1..].iter().map(|it| (*it).to_owned()).collect()));
    let deleted = |tree: &mut Tree| {
        let record = tree.listeners[&LISTENER].deleted();
        tree.listeners.insert(LISTENER, Arc::new(record));
    };
    assert!(!waiting(&deleted).0, "a listener that is deleted goes at once");
}

#[test]
fn proxies_serve_until_a_backend_of_ovn_does() {
    let first = desired_of(&carried_by_proxies(), one_node(Some(Ok(1))), &Northbound::default());
    assert_eq!(backends(&first), [NODE]);
    let (before, nb) = (observed(&carried_by_proxies(), &first), database(&first));
    let all = |health: Health| {
        let mut view = one_node(Some(Ok(1)));
        view.health = BACKENDS.map(|backend| (backend, health.clone())).into();
        view
    };
    let waiting = after(&tree(), all(Health::Unknown), &before, &nb);
    assert_eq!(backends(&waiting), [NODE]);
    assert_eq!(waiting.carried.standing, [(LISTENER, Carrier::Proxy)].into());
    let standing = observed(&tree(), &waiting);
    for health in [Health::Up, Health::NotChecked, Health::Unchecked] {
        assert_eq!(backends(&after(&tree(), all(health), &standing, &nb)), ALL);
    }
    // Where all are down nothing serves, whoever carries.
    assert_eq!(backends(&after(&tree(), all(Health::Down("x".into())), &standing, &nb)).len(), 0);
}

#[test]
fn what_the_connected_ovn_lacks_takes_nothing_from_what_it_serves() {
    let old = Capabilities { selection_fields: false, ..Capabilities::ALL };
    let desired = |tree: &Tree, before: &Observation, nb: &Northbound| {
        desired_state(tree, health(Health::Up), before, NetworkTraits::default(), nb, INSTALLATION, &old)
    };
    let mut pinned = tree();
    change::<Listener>(&mut pinned, LISTENER, |listener| listener.datapath = Datapath::Ovn);
    let first = desired(&pinned, &Observation::default(), &Northbound::default());
    let (mut before, mut nb) = (observed(&pinned, &first), database(&first));
    change::<Pool>(&mut pinned, POOL, |pool| pool.algorithm = Algorithm::SourceIp);
    for _ in 0..2 {
        let refused = desired(&pinned, &before, &nb);
        assert!(refused.carried.refused[&LISTENER].contains("OVN 20.03"), "{:?}", refused.carried.refused);
        assert_eq!(backends(&refused), ALL, "as before, as far as it can");
        assert_eq!(refused.carried.standing, [(LISTENER, Carrier::Ovn)].into());
        (before, nb) = (observed(&pinned, &refused), database(&refused));
        assert_eq!(before.carrier_in_force(LISTENER), Some(Carrier::Ovn));
    }
    let never = desired(&pinned, &Observation::default(), &Northbound::default());
    assert_eq!((backends(&never).len(), never.carried.standing.len()), (0, 0), "what has never served");
}

#[test]
fn what_ovn_cannot_take_over_stays_with_proxies() {
    let old = Capabilities { selection_fields: false, ..Capabilities::ALL };
    let mut wanted = carried_by_proxies();
    let first = desired_of(&wanted, one_node(Some(Ok(1))), &Northbound::default());
    let (before, nb) = (observed(&wanted, &first), database(&first));
    change::<Pool>(&mut wanted, POOL, |pool| pool.algorithm = Algorithm::SourceIp);
    change::<Listener>(&mut wanted, LISTENER, |listener| {
        (listener.datapath, listener.limits) = (Datapath::Ovn, ProxyLimits::default());
    });
    let (view, traits) = (one_node(Some(Ok(1))), NetworkTraits::default());
    let refused = desired_state(&wanted, view, &before, traits, &nb, INSTALLATION, &old);
    assert!(refused.carried.refused.contains_key(&LISTENER));
    assert_eq!(backends(&refused), [NODE]);
    assert_eq!(refused.carried.standing, [(LISTENER, Carrier::Proxy)].into());
}

#[test]
fn ovn_lets_nobody_write_the_header_that_backends_believe() {
    let first = desired_of(&tree(), health(Health::Up), &Northbound::default());
    let (ovn, nb) = (observed(&tree(), &first), database(&first));
    let mut wanted = tree();
    change::<Pool>(&mut wanted, POOL, |pool| pool.protocol = PoolProtocol::ProxyV2);
    let waiting = after(&wanted, one_node(None), &ovn, &nb);
    assert_eq!(
        (backends(&waiting).len(), &waiting.carried.standing),
        (0, &[(LISTENER, Carrier::Ovn)].into())
    );
    let served = after(&wanted, one_node(Some(Ok(1))), &observed(&wanted, &waiting), &nb);
    assert_eq!(backends(&served), [NODE]);
}

#[test]
fn ovn_answers_for_a_vip_until_its_node_serves_it() {
    let first = desired_of(&tree(), health(Health::Up), &Northbound::default());
    let (before, nb) = (observed(&tree(), &first), database(&first));
    let mut wanted = tree();
    change::<Listener>(&mut wanted, LISTENER, |listener| listener.exposure = Exposure::Direct);
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    let ports = |desired: &DesiredState| {
        let has = |uuid: &Uuid| desired.rows.rows.contains_key(uuid);
        let virtual_port = plan::virtual_port_row(INSTALLATION, LOAD_BALANCER, vip);
        (has(&answer_row(INSTALLATION, LOAD_BALANCER)), has(&virtual_port))
    };
    let held_by = |node: &str, result| {
        let mut view = one_node(result);
        view.holders = [(vip, node.to_owned())].into();
        view
    };
    for view in [FleetView::default(), one_node(Some(Ok(1))), held_by("a", None)] {
        let waiting = after(&wanted, view, &before, &nb);
        assert_eq!((backends(&waiting), ports(&waiting)), (ALL.map(str::to_owned).into(), (true, true)));
        assert_eq!(waiting.carried.standing, [(LISTENER, Carrier::Ovn)].into());
    }
    let served = after(&wanted, held_by("a", Some(Ok(1))), &before, &nb);
    assert_eq!((backends(&served).len(), ports(&served)), (0, (false, true)));
    let died = after(&wanted, held_by("a", None), &observed(&wanted, &served), &database(&served));
    assert_eq!((backends(&died).len(), ports(&died)), (0, (false, true)), "a node held it once");
}

#[test]
fn proxies_behind_ovn_serve_until_a_node_does_by_the_vip() {
    let mut wanted = carried_by_proxies();
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    let view = |generation, holder: Option<&str>| {
        let nodes = vec![node("a", "10.0.0.250", Liveness::Alive), node("b", "10.0.0.251", Liveness::Alive)];
        let mut view = proxied(nodes, &[("a", Ok(generation)), ("b", Ok(generation))]);
        view.holders = holder.map(|holder| (vip, holder.to_owned())).into_iter().collect();
        view
    };
    let first = desired_of(&wanted, view(1, None), &Northbound::default());
    let (before, nb) = (observed(&wanted, &first), database(&first));
    change::<Listener>(&mut wanted, LISTENER, |listener| listener.exposure = Exposure::Direct);
    Arc::make_mut(wanted.listeners.get_mut(&LISTENER).unwrap()).generation = 2;
    for (holder, rows) in [(None, vec![NODE, "10.0.0.251:10000"]), (Some("b"), vec!["10.0.0.251:10000"])] {
        let waiting = after(&wanted, view(1, holder), &before, &nb);
        assert_eq!(backends(&waiting), rows, "those that clients meet by the MAC of whoever has the VIP");
        assert_eq!(waiting.carried.standing, [(LISTENER, Carrier::Proxy)].into());
        assert!(waiting.rows.rows.contains_key(&answer_row(INSTALLATION, LOAD_BALANCER)));
        assert_eq!(observed(&wanted, &waiting).carrier_in_force(LISTENER), Some(Carrier::Proxy));
    }
    let served = after(&wanted, view(2, Some("b")), &before, &nb);
    assert_eq!((backends(&served).len(), served.carried.standing.len()), (0, 0));
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
    assert_eq!(port.options.get("virtual-parents").unwrap(), "port-a,port-b");
    assert!(desired.rows.members.iter().all(|member| member.row == NETWORK));
}

#[test]
fn pools_share_a_row_by_weight_and_what_nobody_serves_is_the_others() {
    const GREEN: Uuid = Uuid::from_u128(33);
    let mut tree = tree();
    put(&mut tree, GREEN, pool());
    change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.pool_id = GREEN);
    let divide = |tree: &mut Tree, weights: [u16; 2]| {
        let pools = [POOL, GREEN].into_iter().zip(weights);
        let pools = pools.map(|(pool_id, weight)| WeightedPool { pool_id, weight }).collect();
        change::<Listener>(tree, LISTENER, |listener| {
            (listener.default_pool_id, listener.weighted_pools) = (None, pools);
        });
    };
    let shares = |tree: &Tree, first: Health| {
        let list = backends(&desired_of(tree, health(first), &Northbound::default()));
        let times = |number: u8| list.iter().filter(|it| **it == format!("10.0.0.{number}:8080")).count();
        [11, 12, 13].map(times)
    };
    divide(&mut tree, [80, 20]);
    assert_eq!(shares(&tree, Health::Up), [1, 2, 2]);
    assert_eq!(shares(&tree, Health::Down("refused".to_owned())), [0, 1, 1]);
    divide(&mut tree, [0, 100]);
    assert_eq!(shares(&tree, Health::Up), [1, 0, 0]);
    assert_eq!(shares(&tree, Health::Down("refused".to_owned())), [0, 0, 0], "no share is nobody's");
    divide(&mut tree, [80, 20]);
    change::<Pool>(&mut tree, POOL, |pool| pool.admin_state_up = false);
    assert_eq!(shares(&tree, Health::Up), [1, 0, 0]);

    // Behind proxies, clients that stay have one node.
    change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
    change::<Pool>(&mut tree, GREEN, |pool| pool.algorithm = Algorithm::SourceIp);
    let view = proxied(vec![node("a", "10.0.0.21", Liveness::Alive)], &[("a", Ok(2))]);
    let desired = desired_of(&tree, view, &Northbound::default());
    let Some(Row::LoadBalancer(row)) = desired.rows.rows.get(&listener_row(INSTALLATION, LISTENER)) else {
        panic!("no row");
    };
    assert!(row.selection_fields.iter().any(|field| field == "ip_src"), "{row:?}");
}
