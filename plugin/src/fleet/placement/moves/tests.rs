//! Lifecycle of a network on its nodes: moves, drains, returns, and a restart in between. A list of records
//! stands in for the store, so that a restarted plugin reads what its predecessor has written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fiberlb_northbound::plan::Capabilities;

use super::*;
use crate::agents::{Hello, TrafficReport};
use crate::datapath::NodeFeature;
use crate::fleet::clock::{self, ClockRecord};
use crate::fleet::delivery::share_book::{ShareReport, Sharer, SharerState};
use crate::fleet::directory::records::{FleetKey, NodeRecord, put};
use crate::fleet::examples::{hello, rules};
use crate::fleet::placement::allocator::{self, Space};
use crate::fleet::placement::demand::Demand;
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, change, tree};
use crate::resources::{Datapath, Exposure, Listener, Tree};
use crate::status::{BackendVerdict, DEAD_AFTER, FleetView, Health, NodeContact};
use fiberlb_store::{Revision, Write};

mod capabilities;
mod random;

/// A plugin, its store, and the current time.
struct World {
    state: FleetState,
    stored: BTreeMap<String, Vec<u8>>,
    tree: Tree,
    now: Now,
    nodes_per_network: usize,
    /// Capabilities that listeners need beyond those of their protocols.
    needs: BTreeMap<Uuid, NodeFeatures>,
}

impl World {
    /// A proxied listener on one network, and nodes that are connected; each network is on `count` of them.
    fn new(count: usize, nodes: &[&str]) -> World {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        let now = Now { at: Instant::now(), ms: 1_000_000 };
        let (state, stored) = (FleetState::new(rules(count), now.at), BTreeMap::new());
        let needs = BTreeMap::new();
        let mut world = World { state, stored, tree, now, nodes_per_network: count, needs };
        world.begin();
        for node in nodes {
            let record = NodeRecord::new(node, "", "", "", 0);
            world.write(&[put(&FleetKey::Node((*node).to_owned()), &record).unwrap()]);
            world.join(node);
        }
        world.settle();
        world
    }

    /// A network on one of two nodes, which serves it; that one, and the other.
    fn served() -> (Self, String, &'static str) {
        let mut world = Self::new(1, &["a", "b"]);
        world.serve_all();
        let [from] = world.on().try_into().unwrap();
        let to = if from == "a" { "b" } else { "a" };
        (world, from, to)
    }

    fn begin(&mut self) {
        let mut demand =
            Demand::of(&self.tree, &Capabilities::ALL, &crate::status::Observation::default()).unwrap();
        for (listener, needs) in &self.needs {
            demand.proxied.get_mut(listener).unwrap().needs.add(needs);
        }
        self.state.set_tree(LOAD_BALANCER, Some(&self.tree), Some(demand), self.now);
    }

    /// Restarts the plugin: only stored records are left.
    fn restart(&mut self) {
        self.state = FleetState::new(rules(self.nodes_per_network), self.now.at);
        for (key, value) in &self.stored {
            let Some(key) = FleetKey::parse(key) else { continue };
            self.state.apply(&key, Some(value), Revision(1), self.now.at);
        }
        self.begin();
    }

    fn write(&mut self, writes: &[Write]) {
        for write in writes {
            let value = match write {
                Write::Put { key, value } => {
                    self.stored.insert(key.clone(), value.clone());
                    Some(value)
                }
                Write::Delete { key } => self.stored.remove(key).and(None),
            };
            let Some(key) = FleetKey::parse(write.key()) else { continue };
            self.state.apply(&key, value.map(Vec::as_slice), Revision(1), self.now.at);
        }
    }

    /// Allocates and releases until nothing is left to do now.
    fn settle(&mut self) {
        let space = Space::new(&["10.0.0.0/24".parse().unwrap()], &|_| false);
        for _ in 0..20 {
            let transaction = allocator::next(&self.state, NETWORK, &space, self.now).unwrap();
            if transaction.writes.is_empty() {
                return self.store_clock();
            }
            self.write(&transaction.writes);
        }
        panic!("it does not come to an end");
    }

    /// As the controller does it.
    fn store_clock(&mut self) {
        if let Some(ms) = self.state.clock.unstored(self.now.at) {
            self.write(&[put(&FleetKey::Clock, &ClockRecord::new(ms)).unwrap()]);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.ms += u64::try_from(time.as_millis()).unwrap();
        if !self.state.drains.is_empty() {
            self.store_clock();
        }
    }

    /// The clock of the machine is set.
    fn jump(&mut self, seconds: i64) {
        self.now.ms = self.now.ms.checked_add_signed(seconds * 1000).unwrap();
    }

    fn join(&mut self, node: &str) {
        self.state.joined(&hello(node), 1, self.now.at);
    }

    fn die(&mut self, node: &str) {
        let last = self.now.at;
        let reporter = self.state.node_of_stream(node, 1).unwrap();
        reporter.contact = NodeContact { connected: false, last: Some(last), ..reporter.contact };
        self.pass(DEAD_AFTER);
        assert!(self.state.mark_dead(self.now.at).iter().any(|died| died == node));
    }

    /// A node acknowledges its configuration snapshot.
    fn serve(&mut self, node: &str) {
        let reporter = self.state.node_of_stream(node, 1).unwrap();
        reporter.results.extend([(NETWORK, Ok(0)), (LISTENER, Ok(1))]);
        reporter.is_settled = true;
    }

    fn serve_all(&mut self) {
        for node in self.on() {
            self.serve(&node);
        }
        self.settle();
    }

    fn store_duty(&mut self, node: &str, duty: Duty) {
        let record = NodeRecord::new(node, "", "", "", 0).with_duty(duty);
        self.write(&[put(&FleetKey::Node(node.to_owned()), &record).unwrap()]);
    }

    fn duty(&mut self, node: &str, duty: Duty) {
        self.store_duty(node, duty);
        self.settle();
    }

    /// A node reports that it cannot serve the listener.
    fn refuse(&mut self, node: &str) {
        let reporter = self.state.node_of_stream(node, 1).unwrap();
        reporter.results.insert(LISTENER, Err("the port is taken".to_owned()));
    }

    fn count(&mut self, node: &str, connections_active: u64) {
        self.count_of(LISTENER, node, connections_active);
    }

    fn count_of(&mut self, listener: Uuid, node: &str, connections_active: u64) {
        let now = self.now.at;
        let counters = TrafficReport {
            subject: listener,
            connections_total: 9,
            connections_active,
            ..TrafficReport::default()
        };
        self.state.node_of_stream(node, 1).unwrap().count(vec![counters], now);
    }

    fn judge(&mut self, node: &str, up: bool) {
        for backend in BACKENDS {
            let verdict = BackendVerdict { up, reason: String::new(), since_ms: 0 };
            self.state.record_verdict(LOAD_BALANCER, backend, node, verdict, self.now.at);
        }
    }

    /// The nodes with a port on the network.
    fn on(&self) -> Vec<String> {
        self.state.allocations.ports(NETWORK).map(|(node, _)| node.to_owned()).collect()
    }

    fn drains(&self, node: &str) -> bool {
        self.state.allocations.is_draining(NETWORK, node)
    }

    fn view(&self) -> FleetView {
        let demand = self.state.demands.of(self.tree.id()).unwrap();
        self.state.view(&self.tree, demand, self.now.at, str::to_owned)
    }

    /// The nodes that OVN sends new connections to.
    fn row(&self) -> Vec<String> {
        self.view().serving(LISTENER).map(|node| node.id.clone()).collect()
    }

    /// Applies the desired rows in OVN, and lets all connections on their way arrive.
    fn northbound_follows(&mut self) {
        let row = self.row();
        for node in self.on().into_iter().filter(|node| self.drains(node)).collect::<Vec<_>>() {
            self.state.set_listed(NETWORK, &node, row.contains(&node), self.now.at);
        }
        self.pass(SETTLE);
    }

    fn wait(&self, node: &str) -> Option<String> {
        assert_eq!(self.state.waits(self.now).remove(node), self.state.wait_of(node, self.now));
        let draining = self.state.draining(self.now).remove(node).unwrap_or_default();
        assert_eq!(draining, self.state.draining_of(node, self.now));
        let wait = self.state.wait_of(node, self.now)?;
        assert_eq!(wait.network, NETWORK);
        Some(wait.why)
    }
}

#[test]
fn a_network_moves_only_once_the_next_node_serves_and_the_row_is_never_empty() {
    let (mut world, from, to) = World::served();
    world.duty(&from, Duty::Draining);
    assert_eq!((world.on().len(), world.row(), world.drains(&from)), (2, vec![from.clone()], false));
    assert!(world.wait(&from).unwrap().ends_with(&format!("node {to} does not serve it yet")));
    world.serve(to);
    world.settle();
    assert_eq!((world.row(), world.drains(&from)), (vec![to.to_owned()], true));

    // Its connections go on, and keep its port.
    world.count(&from, 3);
    world.northbound_follows();
    world.settle();
    assert_eq!(world.on().len(), 2, "nothing was counted since it left the row");
    world.count(&from, 3);
    world.settle();
    let why = "3 connections go through it";
    assert_eq!((world.drains(&from), world.wait(&from).as_deref()), (true, Some(why)));
    let left = world.state.draining_of(&from, world.now);
    let longest = world.now.ms + u64::try_from(world.state.rules.drain.as_millis()).unwrap();
    assert_eq!(left.connections, 3);
    assert!(left.deadline_ms.is_some_and(|at| at > world.now.ms && at < longest), "{left:?}");
    assert_eq!(world.state.draining_of(to, world.now), Draining::default());
    world.count(&from, 0);
    world.settle();
    assert_eq!((world.on(), world.wait(&from)), (vec![to.to_owned()], None));
    assert!(!world.state.is_moving(NETWORK, world.now));
}

#[test]
fn a_listener_with_a_limit_does_not_keep_a_node_from_draining() {
    for node_obeys in [true, false] {
        let (mut world, from, to) = World::served();
        change::<Listener>(&mut world.tree, LISTENER, |listener| listener.limits.connections = Some(1));
        world.needs.insert(LISTENER, [NodeFeature::CLIENT_LIMITS].into_iter().collect());
        for node in [&from, to] {
            let capabilities = ["tcp", "client-limits"].map(str::to_owned);
            let capabilities = NodeFeatures::stated(capabilities);
            world.state.joined(&Hello { capabilities, ..hello(node) }, 1, world.now.at);
            world.serve(node);
        }
        world.begin();
        world.settle();
        let mut shares: BTreeMap<String, u32> = BTreeMap::new();
        let mut second = |world: &mut World| {
            let on = world.on();
            let state =
                |node: &String| if world.drains(node) { SharerState::Drains } else { SharerState::Serves };
            let sharers: Vec<_> = on.iter().map(|node| Sharer { node, state: state(node) }).collect();
            for node in &on {
                let now = world.now.at;
                let share =
                    world.state.shares().share((LOAD_BALANCER, LISTENER), 1, &sharers, node, now).unwrap();
                if node_obeys || *node != from {
                    shares.insert(node.clone(), share);
                }
                let in_force = *shares.entry(node.clone()).or_insert(1);
                let report = ShareReport { in_force, active: 0, above_total: 0 };
                world.state.shares().report(LISTENER, node, report);
                world.state.shares().rebalance(LISTENER, now);
                world.count(node, 0);
            }
            let row = world.row();
            assert!(!row.is_empty());
            for node in on.into_iter().filter(|node| world.drains(node)).collect::<Vec<_>>() {
                world.state.set_listed(NETWORK, &node, row.contains(&node), world.now.at);
            }
            world.settle();
            world.pass(Duration::from_secs(1));
        };
        second(&mut world);
        world.duty(&from, Duty::Draining);
        world.serve(to);
        let began = world.now.at;
        while world.on().contains(&from) && world.now.at < began + Duration::from_secs(400) {
            second(&mut world);
            world.serve(to);
        }
        let took = (world.now.at - began).as_secs();
        let most = if node_obeys { 20 } else { 320 };
        assert!(took < most, "{took} s, {:?}", world.wait(&from));
        assert_eq!(world.row(), [to]);
    }
}

/// A port that drains for `before` and then for the rest of its time, and whose connections do not end; in between the clock of
/// the machine is set by `jump` seconds, and the plugin restarted, or another one leads, if `restarts`.
fn drained_with(jump: i64, restarts: bool) {
    let (mut world, from, to) = World::served();
    world.now.ms = 10_000_000;
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.settle();
    let hear = |world: &mut World| {
        for node in [from.as_str(), to] {
            world.join(node);
            world.serve(node);
        }
        world.northbound_follows();
        world.count(&from, 1);
        world.settle();
    };
    hear(&mut world);
    let began = world.now.at;
    world.pass(Duration::from_secs(100));
    world.jump(jump);
    if restarts {
        world.restart();
        hear(&mut world);
    }
    world.settle();
    assert!(world.drains(&from), "{jump} s, {restarts}: its time is not over");
    // SETTLE of the beginning counts as well.
    world.pass(began + Duration::from_secs(290) - world.now.at);
    world.count(&from, 1);
    world.settle();
    assert!(world.drains(&from), "{jump} s, {restarts}: nor then");
    world.pass(Duration::from_secs(10) + clock::STEP);
    world.count(&from, 1);
    world.settle();
    assert_eq!(world.on(), [to], "{jump} s, {restarts}: it is not stretched");
}

#[test]
fn a_clock_that_is_set_neither_ends_nor_stretches_a_drain() {
    for jump in [0, 3600, -3600, 300, -300] {
        drained_with(jump, false);
        drained_with(jump, true);
    }
}

#[test]
fn a_drain_of_an_older_release_is_measured_from_when_it_is_first_seen() {
    let (mut world, from, to) = World::served();
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.settle();
    let key = FleetKey::Port(NETWORK, from.clone());
    let port = world.state.allocations.port(NETWORK, &from).unwrap();
    let mut older = port.clone();
    (older.drain_began, older.draining_since) = (None, Some(7));
    world.write(&[put(&key, &older).unwrap()]);
    world.restart();
    world.settle();
    assert!(world.drains(&from));
    for node in [from.as_str(), to] {
        world.join(node);
        world.serve(node);
    }
    world.northbound_follows();
    world.count(&from, 1);
    world.settle();
    assert!(world.drains(&from));
    world.pass(Duration::from_secs(300));
    world.settle();
    assert_eq!(world.on(), [to]);
}

#[test]
fn connections_get_no_longer_than_the_deadline_also_over_a_restart() {
    let (mut world, from, to) = World::served();
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.settle();
    world.pass(Duration::from_secs(200));
    world.restart();
    world.settle();
    assert!(world.drains(&from), "a restart in the middle goes on");
    for node in [from.as_str(), to] {
        world.join(node);
        world.serve(node);
    }
    assert_eq!(world.row(), [to]);
    world.northbound_follows();
    world.count(&from, 1);
    world.settle();
    assert_eq!(world.on().len(), 2);
    world.pass(Duration::from_secs(100));
    world.settle();
    assert_eq!(world.on(), [to]);
}

#[test]
fn a_port_stays_as_long_as_a_row_sends_connections_there() {
    let (mut world, from, to) = World::served();
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.settle();
    world.die(to);
    assert_eq!(world.row(), [from.as_str()], "nobody else serves: the one that drains does");
    world.northbound_follows();
    world.pass(Duration::from_secs(3600));
    world.settle();
    assert!(world.on().contains(&from));
    world.duty(&from, Duty::Active);
    assert_eq!((world.on(), world.drains(&from)), (vec![from.clone()], false), "it serves again");
}

#[test]
fn a_node_that_returns_takes_back_its_share_without_breaking_what_goes_through_the_stand_in() {
    let mut world = World::new(2, &["a", "b", "c"]);
    world.serve_all();
    let first = world.state.placed(NETWORK, world.now.at)[0].to_owned();
    let before = world.on();
    world.die(&first);
    assert!(!world.row().contains(&first));
    world.pass(Duration::from_secs(60));
    world.settle();
    let stand_in = world.on().into_iter().find(|node| !before.contains(node)).unwrap();
    world.serve_all();
    assert_eq!(world.row().len(), 2);

    world.join(&first);
    world.settle();
    assert_eq!((world.on().len(), world.row().contains(&stand_in)), (3, true));
    world.serve(&first);
    world.settle();
    assert!(world.drains(&stand_in) && world.row().contains(&first) && world.row().len() == 2);
    world.northbound_follows();
    world.count(&stand_in, 2);
    world.settle();
    assert!(world.on().contains(&stand_in), "two connections go through it");
    world.count(&stand_in, 0);
    world.settle();
    assert_eq!(world.on(), before);
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_gets_nothing_new() {
    let mut world = World::new(1, &["a", "b"]);
    world.serve_all();
    let [node] = world.on().try_into().unwrap();
    world.duty(&node, Duty::Cordoned);
    assert_eq!((world.on(), world.drains(&node)), (vec![node.clone()], false));
    world.restart();
    world.settle();
    assert_eq!(world.on(), [node.as_str()], "it is stored");

    let mut world = World::new(2, &["a"]);
    world.duty("a", Duty::Cordoned);
    let record = NodeRecord::new("b", "", "", "", 0).with_duty(Duty::Cordoned);
    world.write(&[put(&FleetKey::Node("b".to_owned()), &record).unwrap()]);
    world.join("b");
    world.settle();
    assert_eq!(world.on(), ["a"]);
    world.duty("b", Duty::Active);
    assert_eq!(world.on(), ["a", "b"]);
}

#[test]
fn without_another_node_a_drained_one_goes_on() {
    let mut world = World::new(2, &["a"]);
    world.serve_all();
    world.duty("a", Duty::Draining);
    world.pass(Duration::from_secs(3600));
    world.settle();
    assert_eq!((world.on(), world.row()), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert_eq!(world.wait("a").unwrap(), "no other node may take it");
}

#[test]
fn a_node_that_refuses_a_listener_takes_no_network_from_one_that_serves_it() {
    let (mut world, from, to) = World::served();
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.refuse(to);
    world.settle();
    assert_eq!(world.row(), [from.as_str()]);
    assert!(world.wait(&from).unwrap().ends_with(&format!("node {to}: the port is taken")));
    // A listener that nobody serves holds nothing back.
    world.refuse(&from);
    world.settle();
    assert!(world.drains(&from));
}

#[test]
fn a_node_goes_on_checking_until_another_one_has_a_verdict() {
    let (mut world, from, to) = World::served();
    world.judge(&from, true);
    world.duty(&from, Duty::Draining);
    world.serve(to);
    world.settle();
    world.northbound_follows();
    world.count(&from, 0);
    world.settle();
    assert_eq!(world.wait(&from).unwrap(), "no other node has checked all backends");
    world.judge(&from, false);
    assert!(matches!(world.view().health(BACKENDS[0]), Health::Degraded(_)), "the next one has its time");
    world.judge(to, true);
    assert_eq!(*world.view().health(BACKENDS[0]), Health::Up);
    world.settle();
    assert_eq!(world.on(), [to]);
    assert_eq!(*world.view().health(BACKENDS[0]), Health::Up);
}

#[test]
fn the_vip_of_a_node_that_drains_moves_once_and_its_connections_are_not_waited_for() {
    let mut world = World::new(1, &["a", "b"]);
    change::<Listener>(&mut world.tree, LISTENER, |listener| listener.exposure = Exposure::Direct);
    world.begin();
    let vip: IpAddr = "10.0.0.100".parse().unwrap();
    world.serve_all();
    let [from] = world.on().try_into().unwrap();
    let to = if from == "a" { "b" } else { "a" };
    let assign_vips =
        |world: &mut World| world.state.assign_vips(LOAD_BALANCER, NETWORK, &[vip], world.now.at);
    assert!(assign_vips(&mut world));
    world.duty(&from, Duty::Draining);
    assert!(!assign_vips(&mut world), "the other one is not ready");
    world.serve(to);
    world.settle();
    world.northbound_follows();
    world.count(&from, 7);
    world.settle();
    assert_eq!(world.wait(&from).unwrap(), "it holds a VIP that no other node has taken over yet");
    assert!(assign_vips(&mut world));
    assert_eq!(world.state.holder(LOAD_BALANCER, vip), Some(to));
    world.settle();
    assert_eq!(world.on(), [to]);
}

#[test]
fn what_a_removed_node_had_is_given_back_and_a_connected_one_is_stored_anew() {
    let mut world = World::new(2, &["a", "b"]);
    world.serve_all();
    world.die("a");
    world.write(&[Write::Delete { key: FleetKey::Node("a".to_owned()).to_string() }]);
    world.settle();
    assert_eq!(world.on(), ["b"]);
    world.write(&[Write::Delete { key: FleetKey::Node("b".to_owned()).to_string() }]);
    let anew = world.state.unregistered(world.now.ms);
    assert!(matches!(anew.as_slice(), [(record, Revision::ZERO)] if record.id == "b"), "{anew:?}");
}
