//! Nodes with different capabilities, and listeners that need different ones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::resources::Backend;
use crate::resources::examples::{BACKENDS, change, listener, put as put_in};

/// A listener that needs the capability `later`; the world's other one needs `tcp` alone.
const LATER: Uuid = Uuid::from_u128(77);
const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn features(words: &[&str]) -> NodeFeatures {
    NodeFeatures::stated(words.iter().map(|word| (*word).to_owned()))
}

fn old() -> NodeFeatures {
    NodeFeatures::of_old_agents()
}

fn new() -> NodeFeatures {
    features(&["tcp", "later"])
}

/// A world of old nodes.
fn world(nodes: &[&str]) -> World {
    World::new(2, nodes)
}

impl World {
    /// Adds the listener that needs `later`.
    fn add_later(&mut self) {
        let later = Listener { port: 81, datapath: Datapath::Proxy, ..listener() };
        put_in(&mut self.tree, LATER, later);
        self.needs.insert(LATER, features(&["later"]));
        self.begin();
        self.settle();
    }

    /// A node connects with these capabilities, and its record is stored.
    fn join_with(&mut self, node: &str, capabilities: NodeFeatures) {
        let hello = crate::agents::Hello { capabilities, ..hello(node) };
        self.state.joined(&hello, 1, self.now.at);
        for (record, _) in self.state.unregistered(self.now.ms) {
            self.write(&[put(&FleetKey::Node(record.id.clone()), &record).unwrap()]);
        }
    }

    /// A node acknowledges its configuration snapshot, which has the listeners that it can serve.
    fn serve_able(&mut self, node: &str) {
        let demand = self.state.demands.of(LOAD_BALANCER).unwrap().clone();
        let reporter = self.state.node_of_stream(node, 1).unwrap();
        let able = demand.proxied.iter().filter(|(_, listener)| reporter.can_serve(&listener.needs));
        let results: Vec<_> = able.map(|(id, _)| (*id, Ok(1))).collect();
        reporter.results.extend(results);
        reporter.results.insert(NETWORK, Ok(0));
        reporter.is_settled = true;
    }

    fn serve_all_able(&mut self) {
        for node in self.on() {
            self.serve_able(&node);
        }
        self.settle();
    }

    /// The nodes that OVN sends new connections of a listener to.
    fn row_of(&self, listener: Uuid) -> BTreeSet<String> {
        self.view().serving(listener).map(|node| node.id.clone()).collect()
    }

    /// Lets moves come to their end.
    fn finish_moves(&mut self) {
        for _ in 0..6 {
            self.serve_all_able();
            for node in self.on() {
                self.count(&node, 0);
                self.count_of(LATER, &node, 0);
            }
            self.northbound_follows();
            self.settle();
        }
    }
}

fn set(nodes: &[&str]) -> BTreeSet<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

#[test]
fn a_listener_whose_backends_no_node_reaches_for_want_of_an_address_says_so() {
    let mut world = world(&["a", "b"]);
    world.serve_all();
    assert_eq!(world.row_of(LISTENER), set(&["a", "b"]));
    for id in BACKENDS {
        change::<Backend>(&mut world.tree, id, |it| it.address.set_ip("fd00::1".parse().unwrap()));
    }
    assert_eq!(world.row_of(LISTENER), set(&[]));
    let reason = world.view().trouble_of(LISTENER).unwrap();
    assert!(reason.starts_with("its backends have IPv6 addresses, and node "), "{reason}");
}

#[test]
fn a_listener_that_no_node_can_serve_says_so_and_leaves_the_others_alone() {
    let mut world = world(&NODES);
    world.serve_all();
    let before = world.on();
    world.add_later();
    world.serve_all_able();
    assert_eq!((world.on(), world.row_of(LISTENER)), (before.clone(), before.iter().cloned().collect()));
    assert_eq!(world.row_of(LATER), set(&[]));
    let reason = world.view().trouble_of(LATER).unwrap();
    assert!(reason.contains("the capabilities later, tcp, and there is none"), "{reason}");
    assert_eq!(world.view().trouble_of(LISTENER), None);
}

#[test]
fn nodes_that_are_updated_one_by_one_take_over_what_they_alone_can_serve() {
    let mut world = world(&NODES);
    world.add_later();
    world.serve_all_able();
    let before = world.row_of(LISTENER);
    for (count, node) in (1..).zip(NODES) {
        world.join_with(node, new());
        world.settle();
        world.finish_moves();
        assert_eq!(world.row_of(LATER).len(), count.min(2), "after {node}");
        assert!(world.row_of(LISTENER).is_superset(&before), "its nodes are as good as before");
        assert!(world.view().trouble_of(LISTENER).is_none());
    }
    assert_eq!(world.row_of(LATER), before, "all nodes are alike again: no network has more of them");
    assert_eq!(world.on().len(), 2);
}

#[test]
fn a_node_that_loses_a_capability_leaves_that_listeners_row_at_once() {
    let mut world = world(&NODES);
    for node in NODES {
        world.join_with(node, new());
    }
    world.add_later();
    world.serve_all_able();
    let on = world.row_of(LATER);
    let older = on.first().unwrap().clone();
    // Nothing is acknowledged yet, so that OVN's rows decide for what the node can serve.
    world.join_with(&older, old());
    let view = world.view();
    let node = view.nodes.iter().find(|node| node.id == older).unwrap();
    assert!(view.serves(LISTENER, node, true));
    assert!(!view.serves(LATER, node, true));
    world.settle();
    world.finish_moves();
    assert_eq!(world.row_of(LATER).len(), 2);
    assert!(!world.row_of(LATER).contains(&older));
}

#[test]
fn the_last_node_with_a_capability_is_not_drained_of_what_it_alone_serves() {
    let mut world = World::new(1, &["a", "b"]);
    world.join_with("a", new());
    world.add_later();
    world.serve_all_able();
    assert_eq!(world.row_of(LATER), set(&["a"]));
    let record = NodeRecord::new("a", "", "", "", 0).with_capabilities(new()).with_duty(Duty::Draining);
    world.write(&[put(&FleetKey::Node("a".to_owned()), &record).unwrap()]);
    world.settle();
    world.finish_moves();
    assert_eq!((world.row_of(LATER), world.drains("a")), (set(&["a"]), false));
    let why = world.wait("a").unwrap();
    assert!(why.contains(&format!("no other node can serve listener {LATER}")), "{why}");
    world.join_with("b", new());
    world.settle();
    world.finish_moves();
    assert_eq!((world.row_of(LATER), world.on()), (set(&["b"]), vec!["b".to_owned()]));
}

#[test]
fn a_restarted_plugin_knows_the_capabilities_before_the_nodes_return() {
    let mut world = world(&NODES);
    for node in ["a", "b", "c"] {
        world.join_with(node, new());
    }
    world.add_later();
    world.serve_all_able();
    let (on, row) = (world.on(), world.row_of(LATER));
    world.restart();
    world.settle();
    assert_eq!(world.on(), on, "nothing moves");
    let view = world.view();
    let kept = view.nodes.iter().filter(|node| view.serves(LATER, node, row.contains(&node.id)));
    assert_eq!(kept.map(|node| node.id.clone()).collect::<BTreeSet<_>>(), row);
}

#[test]
fn a_direct_vip_goes_to_a_node_that_can_serve_all_of_its_listeners() {
    let mut world = World::new(2, &NODES);
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    change::<Listener>(&mut world.tree, LISTENER, |listener| listener.exposure = Exposure::Direct);
    world.begin();
    world.settle();
    let assign = |world: &mut World| {
        let now = world.now.at;
        world.state.assign_vips(LOAD_BALANCER, NETWORK, &[vip], now);
        world.state.holder(LOAD_BALANCER, vip).unwrap().to_owned()
    };
    let first = assign(&mut world);
    world.add_later();
    assert_eq!(assign(&mut world), first, "no other node could serve more");
    let capable = NODES.into_iter().find(|node| *node != first).unwrap();
    world.join_with(capable, new());
    world.settle();
    assert_eq!(assign(&mut world), capable);
    world.join_with(&first, new());
    world.settle();
    assert_eq!(assign(&mut world), capable, "it does not go back");
}

/// Event of a random run.
#[derive(Clone, Debug)]
enum Event {
    /// A node connects, with the capabilities of one of the three releases.
    Join(usize, usize),
    Die(usize),
    Duty(usize, Duty),
    Serve(usize),
    Northbound,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let duty = prop_oneof![3 => Just(Duty::Active), 1 => Just(Duty::Cordoned), 1 => Just(Duty::Draining)];
    prop_oneof![
        4 => (0..NODES.len(), 0..3_usize).prop_map(|(node, release)| Event::Join(node, release)),
        1 => (0..NODES.len()).prop_map(Event::Die),
        2 => (0..NODES.len(), duty).prop_map(|(node, duty)| Event::Duty(node, duty)),
        5 => (0..NODES.len()).prop_map(Event::Serve),
        3 => Just(Event::Northbound),
        1 => Just(Event::Restart),
    ]
}

/// Capabilities by release: an old one, a new one, and one that relays no byte streams.
fn release(number: usize) -> NodeFeatures {
    [old(), new(), features(&["later"])][number].clone()
}

fn happen(world: &mut World, event: &Event) {
    let connected = |world: &World, node: &str| world.state.node(node).is_some_and(|it| it.contact.connected);
    match event {
        Event::Join(node, number) => world.join_with(NODES[*node], release(*number)),
        Event::Die(node) if connected(world, NODES[*node]) => world.die(NODES[*node]),
        Event::Duty(node, duty) => {
            let record = world.state.node(NODES[*node]).unwrap().record.clone().unwrap().with_duty(*duty);
            world.write(&[put(&FleetKey::Node(record.id.clone()), &record).unwrap()]);
        }
        Event::Serve(node)
            if connected(world, NODES[*node]) && world.on().iter().any(|on| on == NODES[*node]) =>
        {
            world.serve_able(NODES[*node]);
        }
        Event::Northbound => world.northbound_follows(),
        Event::Restart => world.restart(),
        Event::Die(_) | Event::Serve(_) => {}
    }
}

fn needs(world: &World, listener: Uuid) -> NodeFeatures {
    world.state.demands.of(LOAD_BALANCER).unwrap().proxied[&listener].needs.clone()
}

/// Checks that no row has a node that cannot serve, and that allocating and releasing empties none.
fn settle(world: &mut World) -> Result<(), TestCaseError> {
    let before = [LISTENER, LATER].map(|listener| world.row_of(listener));
    world.settle();
    for (listener, before) in [LISTENER, LATER].into_iter().zip(before) {
        let (row, needs) = (world.row_of(listener), needs(world, listener));
        prop_assert!(row.iter().all(|node| world.state.can_serve(node, &needs)), "{:?} in the row", row);
        prop_assert!(before.is_empty() || !row.is_empty(), "the row of {} is empty now", listener);
        let view = world.view();
        let placed = view.nodes.iter().filter(|node| world.state.can_serve(&node.id, &needs)).count();
        let reason = view.proxied[&listener].lack.as_ref();
        let is_known = !view.nodes.is_empty() || !is_anywhere(world, &needs);
        prop_assert_eq!(reason.is_some(), placed == 0 && is_known);
    }
    Ok(())
}

fn is_anywhere(world: &World, needs: &NodeFeatures) -> bool {
    NODES.iter().any(|node| world.state.can_serve(node, needs))
}

/// Makes all nodes live and active, and lets everything converge: each listener has its nodes.
fn calm_down(world: &mut World) -> Result<(), TestCaseError> {
    for node in NODES {
        let record = world.state.node(node).unwrap().record.clone().unwrap().with_duty(Duty::Active);
        let capabilities = record.capabilities.clone();
        world.write(&[put(&FleetKey::Node(node.to_owned()), &record).unwrap()]);
        world.join_with(node, capabilities);
    }
    settle(world)?;
    world.finish_moves();
    let (state, now) = (&world.state, world.now);
    prop_assert!(!state.is_moving(NETWORK, now), "{:?}", state.fates(NETWORK, now));
    for listener in [LISTENER, LATER] {
        let needs = needs(world, listener);
        let able = NODES.iter().filter(|node| state.can_serve(node, &needs)).count();
        let row = world.row_of(listener);
        prop_assert!(row.len() >= able.min(2), "{:?} of {} nodes that could", row, able);
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_listener_is_left_to_a_node_that_cannot_serve_it(
        releases in proptest::collection::vec(0..3_usize, NODES.len()), events in proptest::collection::vec(event(), 1..40),
    ) {
        let mut world = world(&NODES);
        for (node, number) in NODES.into_iter().zip(releases) {
            world.join_with(node, release(number));
        }
        world.settle();
        world.add_later();
        settle(&mut world)?;
        for event in &events {
            happen(&mut world, event);
            settle(&mut world)?;
        }
        calm_down(&mut world)?;
    }
}
