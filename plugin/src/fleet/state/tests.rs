use std::collections::BTreeSet;

use fiberlb_northbound::plan::Capabilities;
use ipnetwork::IpNetwork;

use super::*;
use crate::fleet::delivery::share_book::{Sharer, SharerState};
use crate::fleet::examples::{hello, rules};
use crate::fleet::verdicts::VerdictChange;
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, change, tree};
use crate::resources::{Backend, Datapath, Exposure, Listener, now_ms};
use crate::status::{
    BackendVerdict, DEAD_AFTER, EjectedBackend, FleetView, Health, InconclusiveCheck, RECONNECT_GRACE,
};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

/// Nodes a and b, stored and without contact yet, on the network of a tree with a proxied listener.
fn known(now: Instant) -> (FleetState, Tree) {
    let mut state = FleetState::new(rules(2), now);
    for node in ["a", "b"] {
        let record = serde_json::to_vec(&NodeRecord::new(node, "", "", "", 0)).unwrap();
        state.apply(&FleetKey::Node(node.to_owned()), Some(&record), Revision(1), now);
        let address: IpNetwork = format!("10.0.0.{}/24", 200 + node.as_bytes()[0] % 50).parse().unwrap();
        let port = serde_json::to_vec(&PortRecord::new(vec![address])).unwrap();
        state.apply(&FleetKey::Port(NETWORK, node.to_owned()), Some(&port), Revision(1), now);
    }
    let mut tree = tree();
    change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
    let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default());
    state.set_tree(LOAD_BALANCER, Some(&tree), demand, Now { at: now, ms: now_ms() });
    (state, tree)
}

fn leave(state: &mut FleetState, node: &str, last: Instant) {
    let node = state.node_of_stream(node, 1).unwrap();
    node.contact = NodeContact { connected: false, last: Some(last), ..node.contact };
}

fn verdict(up: bool) -> BackendVerdict {
    BackendVerdict {
        up,
        reason: if up { String::new() } else { "connection refused".to_owned() },
        since_ms: 0,
    }
}

fn view(state: &FleetState, tree: &Tree, now: Instant) -> FleetView {
    let demand = state.demands.of(tree.id()).unwrap();
    state.view(tree, demand, now, |node| format!("port-{node}"))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_plugin_that_has_just_started_takes_nothing_out_and_puts_nothing_in() {
    let now = Instant::now();
    let (state, tree) = known(now);
    let view = view(&state, &tree, now + seconds(1));
    assert_eq!(view.nodes.len(), 2);
    for node in &view.nodes {
        assert!(view.serves(LISTENER, node, true) && !view.serves(LISTENER, node, false));
    }
    assert!(BACKENDS.iter().all(|id| *view.health(*id) == Health::Unknown));
}

#[test]
fn a_node_serves_by_its_own_word_until_it_is_dead() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    for node in ["a", "b"] {
        state.joined(&hello(node), 1, now);
        state.node_of_stream(node, 1).unwrap().results.insert(LISTENER, Ok(1));
    }
    state.node_of_stream("b", 1).unwrap().results.insert(LISTENER, Err("the port is taken".to_owned()));
    let serving = |state: &FleetState, now| {
        view(state, &tree, now).serving(LISTENER).map(|node| node.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(serving(&state, now), ["a"]);
    leave(&mut state, "a", now);
    assert_eq!(state.next_death(), Some(now + DEAD_AFTER));
    assert_eq!(serving(&state, now + DEAD_AFTER / 2), ["a"]);
    assert!(state.mark_dead(now + DEAD_AFTER / 2).is_empty());
    assert_eq!(state.mark_dead(now + DEAD_AFTER), ["a"]);
    assert!(state.mark_dead(now + DEAD_AFTER).is_empty(), "a node dies once");
    assert!(serving(&state, now + DEAD_AFTER).is_empty());
}

#[test]
fn what_a_dead_node_said_is_void_and_changes_nothing_by_itself() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    let health = |state: &FleetState| view(state, &tree, now + DEAD_AFTER).health(BACKENDS[0]).clone();
    for node in ["a", "b"] {
        state.joined(&hello(node), 1, now);
    }
    state.record_verdict(LOAD_BALANCER, BACKENDS[0], "a", verdict(true), now);
    let change = state.record_verdict(LOAD_BALANCER, BACKENDS[0], "b", verdict(false), now);
    assert_eq!(change, VerdictChange::Health);
    assert!(matches!(health(&state), Health::Degraded(_)));
    leave(&mut state, "b", now);
    state.mark_dead(now + DEAD_AFTER);
    assert_eq!(health(&state), Health::Up);
    leave(&mut state, "a", now);
    state.mark_dead(now + DEAD_AFTER);
    assert_eq!(health(&state), Health::Up, "nobody says anything: it stays");
}

#[test]
fn a_new_backend_that_nobody_can_check_is_taken_in_after_a_while() {
    let now = Instant::now();
    let (state, tree) = known(now);
    // Both nodes are dead: no node can check.
    let early = view(&state, &tree, now + RECONNECT_GRACE);
    assert_eq!(*early.health(BACKENDS[0]), Health::Unknown);
    assert_eq!(early.look_again, Some(now + seconds(7)), "delay and timeout of the check");
    let late = view(&state, &tree, now + seconds(7));
    assert_eq!(*late.health(BACKENDS[0]), Health::NotChecked);
    assert_eq!(late.look_again, None);
}

#[test]
fn a_vip_stays_with_the_node_that_has_it_and_moves_when_that_dies() {
    let now = Instant::now();
    let (mut state, _) = known(now);
    assert!(
        !state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now),
        "somebody may hold it who was not heard of yet"
    );
    state.held(LOAD_BALANCER, VIP, "b");
    for node in ["a", "b"] {
        state.joined(&hello(node), 1, now);
    }
    assert!(!state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now));
    assert_eq!(state.holder(LOAD_BALANCER, VIP), Some("b"));
    leave(&mut state, "b", now);
    assert!(!state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now + DEAD_AFTER / 2));
    assert!(state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now + DEAD_AFTER));
    assert_eq!(state.holder(LOAD_BALANCER, VIP), Some("a"));
    state.joined(&hello("b"), 1, now);
    assert!(!state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now + seconds(9)), "it does not go back");
}

#[test]
fn a_vip_leaves_a_node_that_has_no_address_to_reach_backends_from() {
    let now = Instant::now();
    let (mut state, mut tree) = known(now);
    change::<Listener>(&mut tree, LISTENER, |listener| listener.exposure = Exposure::Direct);
    let set = |state: &mut FleetState, tree: &Tree| {
        let demand = Demand::of(tree, &Capabilities::ALL, &crate::status::Observation::default());
        state.set_tree(LOAD_BALANCER, Some(tree), demand, Now { at: now, ms: now_ms() });
    };
    set(&mut state, &tree);
    for node in ["a", "b"] {
        state.joined(&hello(node), 1, now);
    }
    state.held(LOAD_BALANCER, VIP, "b");
    assert!(!state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now));
    let addresses = ["10.0.0.201/24", "fd00::201/64"].map(|text| text.parse::<IpNetwork>().unwrap());
    let port = serde_json::to_vec(&PortRecord::new(addresses.to_vec())).unwrap();
    state.apply(&FleetKey::Port(NETWORK, "a".to_owned()), Some(&port), Revision(2), now);
    for id in BACKENDS {
        change::<Backend>(&mut tree, id, |backend| backend.address.set_ip("fd00::1".parse().unwrap()));
    }
    set(&mut state, &tree);
    assert!(state.assign_vips(LOAD_BALANCER, NETWORK, &[VIP], now), "it is not sent the listener");
    assert_eq!(state.holder(LOAD_BALANCER, VIP), Some("a"));
}

#[test]
fn networks_move_away_from_a_node_that_is_dead_for_long() {
    let now = Instant::now();
    let (mut state, _) = known(now);
    state.joined(&hello("a"), 1, now);
    assert_eq!(state.placed(NETWORK, now + seconds(30)).len(), 2);
    let gone = now + RECONNECT_GRACE + seconds(60);
    assert_eq!(state.next_move(), Some(gone));
    assert_eq!(state.placed(NETWORK, gone), ["a"]);
}

fn remove_port(state: &mut FleetState, node: &str) {
    let now = Instant::now();
    state.apply(&FleetKey::Port(NETWORK, node.to_owned()), None, Revision(2), now);
}

#[test]
fn what_a_node_said_of_a_network_that_has_moved_away_from_it_is_void() {
    let now = Instant::now();
    let (mut state, _) = known(now);
    for node in ["a", "b"] {
        state.joined(&hello(node), 1, now);
    }
    state.record_verdict(LOAD_BALANCER, BACKENDS[0], "a", verdict(true), now);
    state.record_verdict(LOAD_BALANCER, BACKENDS[0], "b", verdict(false), now);
    remove_port(&mut state, "a");
    assert!(matches!(state.verdicts.health(BACKENDS[0]), Health::Down(_)), "the one that checks it decides");
}

#[test]
fn a_network_does_not_go_back_to_a_node_that_the_plugin_has_not_heard_of_since_it_started() {
    let now = Instant::now();
    let (mut state, _) = known(now);
    // The previous leader had moved it to c.
    let first = state.placed(NETWORK, now)[0].to_owned();
    remove_port(&mut state, &first);
    let port = serde_json::to_vec(&PortRecord::new(vec!["10.0.0.199/24".parse().unwrap()])).unwrap();
    state.apply(&FleetKey::Port(NETWORK, "c".to_owned()), Some(&port), Revision(1), now);
    let record = serde_json::to_vec(&NodeRecord::new("c", "", "", "", 0)).unwrap();
    state.apply(&FleetKey::Node("c".to_owned()), Some(&record), Revision(1), now);
    let holders: BTreeSet<&str> = state.allocations.ports(NETWORK).map(|(node, _)| node).collect();
    assert_eq!(state.placed(NETWORK, now).into_iter().collect::<BTreeSet<_>>(), holders);
    state.joined(&hello(&first), 1, now);
    assert!(state.placed(NETWORK, now).contains(&first.as_str()), "it returns by itself");
}

#[test]
fn after_a_restart_one_node_alone_takes_nothing_out_before_the_others_can_speak() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    let health = |state: &FleetState, at| view(state, &tree, at).health(BACKENDS[0]).clone();
    state.joined(&hello("a"), 1, now);
    state.record_verdict(LOAD_BALANCER, BACKENDS[0], "a", verdict(false), now);
    assert_eq!(health(&state, now + seconds(1)), Health::Unknown, "b may say that it is up");
    assert_eq!(state.mark_dead(now + RECONNECT_GRACE), ["b"]);
    assert!(matches!(health(&state, now + RECONNECT_GRACE), Health::Down(_)));
}

#[test]
fn what_was_out_before_a_restart_stays_out_when_nobody_can_check_it() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    let long_ago = now_ms() + 60_000;
    state.mark_established(&tree, long_ago);
    assert_eq!(*view(&state, &tree, now + seconds(60)).health(BACKENDS[0]), Health::Unknown);
    let (mut state, tree) = known(now);
    state.mark_established(&tree, now_ms());
    assert_eq!(*view(&state, &tree, now + seconds(60)).health(BACKENDS[0]), Health::NotChecked, "it is new");
}

#[test]
fn a_move_that_came_due_while_nobody_looked_is_made_all_the_same() {
    let now = Instant::now();
    let (state, _) = known(now);
    let late = now + RECONNECT_GRACE + seconds(60) + seconds(1);
    assert_eq!(state.next_move(), Some(now + RECONNECT_GRACE + seconds(60)));
    let mut state = state;
    assert_eq!(state.mark_gone(late).len(), 2);
    assert_eq!((state.mark_gone(late).len(), state.next_move()), (0, None));
    assert!(state.joined(&hello("a"), 1, late), "networks may come back to it");
    assert!(!state.joined(&hello("a"), 2, late), "it was not away");
}

#[test]
fn networks_may_be_told_never_to_move() {
    let now = Instant::now();
    let mut state = FleetState::new(Rules { move_after: Duration::MAX, ..rules(2) }, now);
    let record = serde_json::to_vec(&NodeRecord::new("a", "", "", "", 0)).unwrap();
    state.apply(&FleetKey::Node("a".to_owned()), Some(&record), Revision(1), now);
    assert_eq!((state.next_move(), state.mark_gone(now + RECONNECT_GRACE).len()), (None, 0));
}

#[test]
fn a_record_that_cannot_be_read_changes_nothing() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    let port = ProxyPortRecord::new(LOAD_BALANCER, LISTENER, 0);
    let keys = [
        FleetKey::Node("a".to_owned()),
        FleetKey::Port(NETWORK, "a".to_owned()),
        FleetKey::ProxyPort(NETWORK, 40_000),
    ];
    state.apply(&keys[2], Some(&serde_json::to_vec(&port).unwrap()), Revision(1), now);
    let before = view(&state, &tree, now);
    assert_eq!((before.nodes.len(), before.proxied[&LISTENER].port), (2, Some(40_000)));
    for value in [br#"{"version":99}"#.as_slice(), b"{}", b"garbage"] {
        for key in &keys {
            assert_eq!(state.apply(key, Some(value), Revision(2), now), Concern::Nothing, "{key}");
        }
        assert_eq!(view(&state, &tree, now), before);
    }
    for key in &keys {
        state.apply(key, None, Revision(3), now);
    }
    assert_eq!(view(&state, &tree, now).proxied[&LISTENER].port, None, "a deletion is one");
}

#[test]
fn what_was_said_to_the_leader_before_stays_until_nodes_say_otherwise_or_nothing() {
    let now = Instant::now();
    let (mut state, tree) = known(now);
    let ejection = EjectedBackend { until_ms: 1, reason: "connection refused".to_owned() };
    let check = InconclusiveCheck { reason: "no descriptors".to_owned(), since_ms: 1 };
    let by = ["a", "b", "removed"].map(str::to_owned);
    let before = FleetView {
        ejections: [(BACKENDS[0], by.clone().map(|node| (node, ejection.clone())).into())].into(),
        inconclusive: [(BACKENDS[1], by.map(|node| (node, check.clone())).into())].into(),
        ..FleetView::default()
    };
    state.restore_health(&tree, &before, now);
    let nodes = |state: &FleetState| {
        let names = |nodes: Option<Vec<String>>| nodes.unwrap_or_default().join(" ");
        let ejections = state.ejections_on(&tree);
        let ejections = ejections.get(&BACKENDS[0]).map(|nodes| nodes.keys().cloned().collect());
        let doubts = state.inconclusive_on(&tree);
        let doubts = doubts.get(&BACKENDS[1]).map(|nodes| nodes.keys().cloned().collect());
        (names(ejections), names(doubts))
    };
    assert_eq!(nodes(&state), ("a b".to_owned(), "a b".to_owned()));
    assert!(state.ejections.record(LOAD_BALANCER, BACKENDS[0], "a", None, now), "it is news");
    assert_eq!(state.inconclusive.retain_known("a", &BTreeSet::new()), [BACKENDS[1]]);
    assert_eq!(nodes(&state), ("b".to_owned(), "b".to_owned()));
    assert!(state.ejections.expire(LOAD_BALANCER, now + seconds(60)), "b does not return");
    assert_eq!(nodes(&state).0, "");
}

#[test]
fn shares_end_with_the_limit_and_with_the_spread_over_nodes() {
    let now = Instant::now();
    let (mut state, mut tree) = known(now);
    let mut set = |state: &mut FleetState, exposure, connections| {
        change::<Listener>(&mut tree, LISTENER, |listener| {
            (listener.exposure, listener.limits.connections) = (exposure, connections);
        });
        let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default());
        state.set_tree(LOAD_BALANCER, Some(&tree), demand, Now { at: now, ms: now_ms() });
    };
    for (exposure, connections) in [(Exposure::Direct, Some(1)), (Exposure::Auto, None)] {
        set(&mut state, Exposure::Auto, Some(1));
        let sharers = ["a", "b"].map(|node| Sharer { node, state: SharerState::Serves });
        state.shares().share((LOAD_BALANCER, LISTENER), 1, &sharers, "a", now).unwrap();
        set(&mut state, Exposure::Auto, Some(1));
        assert_eq!(state.shares().without(LISTENER).count(), 1);
        set(&mut state, exposure, connections);
        assert_eq!(state.shares().without(LISTENER).count(), 0, "{exposure:?}");
    }
}
