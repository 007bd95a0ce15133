//! Invariants under any sequence of events: no port with connections is released, no row is needlessly empty,
//! and once events cease everything converges to its place.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const DRAIN: Duration = Duration::from_secs(300);
const NODES: [&str; 4] = ["a", "b", "c", "d"];

/// Event of a random run.
#[derive(Clone, Copy, Debug)]
enum Event {
    Duty(usize, Duty),
    Die(usize),
    Join(usize),
    Serve(usize),
    /// A node reports its number of connections; more than before only if OVN sends it some.
    Count(usize, u64),
    Refuse(usize),
    Pass(u64),
    /// The machine's clock is set, by so many seconds.
    Jump(i64),
    NorthboundFollows,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let duty = prop_oneof![Just(Duty::Active), Just(Duty::Cordoned), Just(Duty::Draining)];
    prop_oneof![
        2 => (0..NODES.len(), duty).prop_map(|(node, duty)| Event::Duty(node, duty)),
        1 => (0..NODES.len()).prop_map(Event::Die),
        2 => (0..NODES.len()).prop_map(Event::Join),
        4 => (0..NODES.len()).prop_map(Event::Serve),
        3 => (0..NODES.len(), 0u64..3).prop_map(|(node, count)| Event::Count(node, count)),
        1 => (0..NODES.len()).prop_map(Event::Refuse),
        2 => prop_oneof![1u64..10, 30u64..400].prop_map(Event::Pass),
        1 => (-4000i64..4000).prop_map(Event::Jump),
        4 => Just(Event::NorthboundFollows),
        1 => Just(Event::Restart),
    ]
}

/// A world, and the state outside of the plugin.
struct Outside {
    world: World,
    /// The nodes that OVN sends connections to.
    row: BTreeSet<String>,
    connections: BTreeMap<&'static str, u64>,
    /// Time at which each draining node was first seen to drain.
    draining: BTreeMap<String, Instant>,
}

impl Outside {
    fn new() -> Outside {
        let (row, connections, draining) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Outside { world: World::new(2, &NODES), row, connections, draining }
    }

    fn is_connected(&self, node: &str) -> bool {
        self.world.state.node(node).is_some_and(|node| node.contact.connected)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Duty(node, duty) => self.world.store_duty(NODES[node], duty),
            Event::Die(node) if self.is_connected(NODES[node]) => {
                self.connections.remove(NODES[node]);
                self.world.die(NODES[node]);
            }
            Event::Join(node) if !self.is_connected(NODES[node]) => self.world.join(NODES[node]),
            Event::Serve(node) if self.is_connected(NODES[node]) && self.has_port(node) => {
                self.world.serve(NODES[node]);
            }
            Event::Refuse(node) if self.is_connected(NODES[node]) && self.has_port(node) => {
                self.world.refuse(NODES[node]);
            }
            Event::Count(node, count) if self.is_connected(NODES[node]) => self.count(NODES[node], count),
            Event::Pass(seconds) => self.world.pass(Duration::from_secs(seconds)),
            Event::Jump(seconds) => {
                self.world.now.ms = self.world.now.ms.saturating_add_signed(seconds * 1000);
            }
            Event::NorthboundFollows => {
                self.row = self.world.row().into_iter().collect();
                self.look();
                self.world.pass(SETTLE);
            }
            Event::Restart => self.world.restart(),
            _ => {}
        }
    }

    fn has_port(&self, node: usize) -> bool {
        self.world.state.allocations.port(NETWORK, NODES[node]).is_some()
    }

    fn count(&mut self, node: &'static str, count: u64) {
        let now = self.connections.entry(node).or_default();
        *now = if self.row.contains(node) { count } else { count.min(*now) };
        self.world.count(node, *now);
    }

    /// The controller reads OVN's rows before it allocates and releases.
    fn look(&mut self) {
        for node in self.world.on().into_iter().filter(|node| self.world.drains(node)).collect::<Vec<_>>() {
            self.world.state.set_listed(NETWORK, &node, self.row.contains(&node), self.world.now.at);
        }
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let before = self.world.on();
        self.look();
        self.world.settle();
        for node in before {
            if self.world.on().contains(&node) || self.world.state.is_lost(&node, self.world.now.at) {
                continue;
            }
            let is_late = self.draining.get(&node).is_some_and(|since| *since + DRAIN <= self.world.now.at);
            let connections = self.connections.get(node.as_str()).copied().unwrap_or(0);
            prop_assert!(!self.row.contains(&node), "OVN sends connections to {node}");
            prop_assert!(is_late || connections == 0, "{connections} connections go through {node}");
        }
        let (now, world) = (self.world.now.at, &self.world);
        self.draining.retain(|node, _| world.drains(node));
        for node in self.world.on().into_iter().filter(|node| self.world.drains(node)).collect::<Vec<_>>() {
            self.draining.entry(node).or_insert(now);
        }
        self.someone_serves()
    }

    /// Checks that the row is not empty while a node serves.
    fn someone_serves(&self) -> Result<(), TestCaseError> {
        let view = self.world.view();
        let serves = view.nodes.iter().any(|node| view.serves(LISTENER, node, false));
        prop_assert_eq!(serves, !self.world.row().is_empty());
        Ok(())
    }

    /// Makes all nodes healthy, and lets everything converge.
    fn calm_down(&mut self) -> Result<(), TestCaseError> {
        for node in 0..NODES.len() {
            self.happen(Event::Duty(node, Duty::Active));
            self.happen(Event::Join(node));
        }
        for _ in 0..6 {
            self.settle()?;
            for node in 0..NODES.len() {
                self.happen(Event::Serve(node));
                self.happen(Event::Count(node, 0));
            }
            self.happen(Event::NorthboundFollows);
        }
        let world = &self.world;
        prop_assert!(
            !world.state.is_moving(NETWORK, world.now),
            "{:?}",
            world.state.fates(NETWORK, world.now)
        );
        let placed = world.state.placed(NETWORK, world.now.at).into_iter().map(str::to_owned);
        let placed: BTreeSet<String> = placed.collect();
        prop_assert_eq!(&world.on().into_iter().collect::<BTreeSet<_>>(), &placed);
        prop_assert_eq!(world.row().into_iter().collect::<BTreeSet<_>>(), placed);
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_connection_is_cut_and_all_comes_to_rest(events in proptest::collection::vec(event(), 1..60)) {
        let mut outside = Outside::new();
        outside.settle()?;
        for event in events {
            outside.happen(event);
            outside.settle()?;
        }
        outside.calm_down()?;
    }
}
