//! Any sequence of events, against a model that knows what each node was told, said, and when.

use std::collections::BTreeMap;

use fiberlb_northbound::plan::Capabilities;
use fiberlb_store::Revision;
use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::agents::Hello;
use crate::datapath::NodeFeatures;
use crate::fleet::directory::records::{FleetKey, NodeRecord, PortRecord};
use crate::fleet::examples::{hello, rules};
use crate::fleet::placement::demand::Demand;
use crate::fleet::state::Now;
use crate::resources::examples::{BACKENDS, LOAD_BALANCER, NETWORK, POOL, change, tree};
use crate::resources::{Pool, PoolProtocol, now_ms};
use crate::status::{DEAD_AFTER, Health, NodeContact};

const NODES: [&str; 3] = ["a", "b", "c"];
/// Of the example's check: (2 + 3) x 5 s + 2 s.
const FIRST_VERDICT: Duration = Duration::from_secs(27);
const BACKEND: Uuid = BACKENDS[0];

#[derive(Clone, Copy, Debug)]
enum Event {
    /// The network is placed on a node, or stays there.
    Place(usize),
    /// It is about to leave the node.
    Drain(usize),
    /// It has left.
    Release(usize),
    Die(usize),
    Join(usize),
    Verdict(usize, bool),
    /// The node connects anew and knows nothing.
    Forget(usize),
    Pass(u64),
    /// The plugin was frozen.
    Freeze(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES.len();
    prop_oneof![
        3 => node.clone().prop_map(Event::Place),
        1 => node.clone().prop_map(Event::Drain),
        1 => node.clone().prop_map(Event::Release),
        1 => node.clone().prop_map(Event::Die),
        2 => node.clone().prop_map(Event::Join),
        6 => (node.clone(), prop::bool::weighted(0.3)).prop_map(|(node, up)| Event::Verdict(node, up)),
        1 => node.prop_map(Event::Forget),
        4 => (1u64..30).prop_map(Event::Pass),
        1 => (2u64..60).prop_map(Event::Freeze),
    ]
}

/// A node as the model knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    is_alive: bool,
    /// `Some(false)`: it drains.
    port: Option<bool>,
    verdict: Option<bool>,
    /// Time from which its time for a first verdict counts.
    assigned: Option<Instant>,
}

struct World {
    state: FleetState,
    nodes: BTreeMap<&'static str, Known>,
    health: Option<Health>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::of(&tree())
    }

    fn of(tree: &Tree) -> Self {
        let now = Instant::now();
        let mut state = FleetState::new(rules(3), now);
        for node in NODES {
            let record = serde_json::to_vec(&NodeRecord::new(node, "", "", "", 0)).unwrap();
            state.apply(&FleetKey::Node(node.to_owned()), Some(&record), Revision(1), now);
            state.joined(&hello(node), 1, now);
        }
        let demand = Demand::of(tree, &Capabilities::ALL, &crate::status::Observation::default());
        state.set_tree(LOAD_BALANCER, Some(tree), demand, Now { at: now, ms: now_ms() });
        let known = Known { is_alive: true, assigned: Some(now), ..Known::default() };
        Self { state, nodes: NODES.map(|node| (node, known)).into(), health: None, now }
    }

    fn set_port(&mut self, node: &'static str, port: Option<bool>) {
        let address: IpNetwork = "10.0.0.200/24".parse().unwrap();
        let record = PortRecord::new(vec![address]);
        let record = port.map(|serves| if serves { record } else { record.draining(0, 0) });
        let value = record.map(|record| serde_json::to_vec(&record).unwrap());
        let key = FleetKey::Port(NETWORK, node.to_owned());
        self.state.apply(&key, value.as_deref(), Revision(1), self.now);
        let now = self.now;
        let known = self.nodes.get_mut(node).unwrap();
        if port == Some(true) && known.port != Some(true) {
            known.assigned = known.assigned.max(Some(now));
        }
        known.port = port;
        known.verdict = known.verdict.filter(|_| port.is_some());
    }

    fn happen(&mut self, event: Event) {
        let node = |at: usize| NODES[at];
        match event {
            Event::Place(at) => self.set_port(node(at), Some(true)),
            Event::Drain(at) if self.nodes[node(at)].port.is_some() => self.set_port(node(at), Some(false)),
            Event::Release(at) => self.set_port(node(at), None),
            Event::Die(at) if self.nodes[node(at)].is_alive => {
                let reporter = self.state.node_of_stream(node(at), 1).unwrap();
                let last = self.now.checked_sub(DEAD_AFTER);
                reporter.contact = NodeContact { connected: false, last, ..reporter.contact };
                let known = self.nodes.get_mut(node(at)).unwrap();
                (known.is_alive, known.verdict) = (false, None);
            }
            Event::Join(at) if !self.nodes[node(at)].is_alive => {
                self.state.joined(&hello(node(at)), 1, self.now);
                let known = self.nodes.get_mut(node(at)).unwrap();
                (known.is_alive, known.assigned) = (true, Some(self.now));
            }
            Event::Verdict(at, up)
                if self.nodes[node(at)].is_alive && self.nodes[node(at)].port.is_some() =>
            {
                let verdict = BackendVerdict { up, reason: format!("said by {}", node(at)), since_ms: 0 };
                self.state.record_verdict(LOAD_BALANCER, BACKEND, node(at), verdict, self.now);
                self.nodes.get_mut(node(at)).unwrap().verdict = Some(up);
            }
            Event::Forget(at) => {
                self.state.retain_verdicts(node(at), &BTreeSet::new(), self.now);
                self.nodes.get_mut(node(at)).unwrap().verdict = None;
            }
            Event::Pass(seconds) => self.now += Duration::from_secs(seconds),
            Event::Freeze(seconds) => {
                self.now += Duration::from_secs(seconds);
                self.state.extend_grace(self.now);
                let now = self.now;
                for known in self.nodes.values_mut().filter(|known| known.is_alive) {
                    known.assigned = Some(now);
                }
            }
            _ => {}
        }
        self.state.mark_dead(self.now);
        self.state.judge_overdue(self.now);
    }

    /// Checks the health that was decided against the model, and takes it for known.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let health = self.state.verdicts.health(BACKEND);
        let before = self.health.take();
        let serves = |health: &Option<Health>| health.as_ref().is_none_or(|health| health.serves(true));
        let assigned = || self.nodes.iter().filter(|(_, it)| it.is_alive && it.port == Some(true));
        let speaks = assigned().any(|(_, it)| it.verdict.is_some());
        let leaving = || self.nodes.iter().filter(|(_, it)| it.port == Some(false));
        let votes: Vec<bool> = if speaks {
            assigned().filter_map(|(_, it)| it.verdict).collect()
        } else {
            leaving().filter_map(|(_, it)| it.verdict).collect()
        };
        let has_time = |it: &Known| it.assigned.is_some_and(|since| self.now < since + FIRST_VERDICT);
        let silent = || assigned().filter(|(_, it)| it.verdict.is_none());
        let awaited: Vec<_> = silent().filter(|(_, it)| has_time(it)).map(|(node, _)| *node).collect();
        let left_out: Vec<_> = silent().filter(|(_, it)| !has_time(it)).map(|(node, _)| *node).collect();
        let after = (health != Health::Unknown).then_some(health);
        let [up, down] = [true, false].map(|wanted| votes.contains(&wanted));
        match (up, down) {
            (false, false) => prop_assert_eq!(serves(&after), serves(&before), "silence changes nothing"),
            (true, false) => prop_assert_eq!(&after, &Some(Health::Up)),
            (true, true) => prop_assert!(matches!(after, Some(Health::Degraded(_))), "{:?}", after),
            (false, true) if awaited.is_empty() => {
                let Some(Health::Down(why)) = &after else {
                    return Err(TestCaseError::fail(format!("not down: {after:?}, {:?}", self.nodes)));
                };
                let (_, named) = why.split_once("in time: ").unwrap_or_default();
                prop_assert_eq!(named, left_out.join(", "), "{}", why);
            }
            (false, true) => {
                let held = format!("{before:?} became {after:?}, though {awaited:?} may say otherwise");
                prop_assert!(serves(&after) == serves(&before), "{}", held);
            }
        }
        let is_open = down && !up && !awaited.is_empty() && !matches!(after, Some(Health::Down(_)));
        prop_assert!(self.state.verdicts.next_overdue().is_some() || !is_open, "nobody looks at it again");
        self.health = after;
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_backend_is_down_if_and_only_if_all_say_so_that_check_it(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
            world.check()?;
        }
    }

    /// Whatever happened before: once all that are there have had their time, one that says nothing keeps nothing in, and one
    /// that says that it is up is believed.
    #[test]
    fn it_is_decided_in_the_end(
        events in prop::collection::vec(event(), 1..40),
        says: [Option<bool>; 3],
    ) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
            world.check()?;
        }
        for at in 0..NODES.len() {
            for event in [Event::Join(at), Event::Place(at), Event::Forget(at)] {
                world.happen(event);
                world.check()?;
            }
        }
        for (at, up) in says.into_iter().enumerate() {
            if let Some(up) = up {
                world.happen(Event::Verdict(at, up));
                world.check()?;
            }
        }
        world.happen(Event::Pass(FIRST_VERDICT.as_secs()));
        world.check()?;
        let health = world.state.verdicts.health(BACKEND);
        match (says.contains(&Some(true)), says.contains(&Some(false))) {
            (true, true) => prop_assert!(matches!(health, Health::Degraded(_))),
            (true, false) => prop_assert_eq!(health, Health::Up),
            (false, true) => prop_assert!(matches!(health, Health::Down(_))),
            (false, false) => {}
        }
    }
}

#[test]
fn a_node_that_cannot_check_a_pool_is_not_awaited() {
    for (protocol, is_down) in [(PoolProtocol::ProxyV2, true), (PoolProtocol::Tcp, false)] {
        let mut tree = tree();
        change::<Pool>(&mut tree, POOL, |pool| pool.protocol = protocol);
        let mut world = World::of(&tree);
        let able = NodeFeatures::stated(["tcp", "proxy-protocol"].map(str::to_owned));
        world.state.joined(&Hello { capabilities: able, ..hello("a") }, 1, world.now);
        world.happen(Event::Place(0));
        world.happen(Event::Place(1));
        world.happen(Event::Verdict(0, false));
        let health = world.state.verdicts.health(BACKEND);
        assert_eq!(matches!(health, Health::Down(_)), is_down, "{protocol:?}: {health:?}");
    }
}
