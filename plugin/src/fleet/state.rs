//! What is known of the nodes, of what they were given, and of what they say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::demand::{Demand, Demands, in_force};
use super::health::Health;
use super::liveness::{Heard, Liveness};
use super::placement::place;
use super::records::{FleetKey, NodeRecord, PortRecord, ProxyPortRecord, decode};
use super::verdicts::Verdicts;
use super::view::{PlacedNode, Proxied, View};
use crate::agents::{Hello, ListenerCounters};
use crate::resources::{Backend, Record, Tree};

/// A node that has said hello once.
#[derive(Debug)]
pub struct Node {
    /// What is stored of it; `None` until that is so.
    pub record: Option<NodeRecord>,
    /// What it said of itself since the plugin started.
    pub hello: Option<Hello>,
    /// What was heard of it.
    pub heard: Heard,
    /// When its stream came or went.
    pub since: Instant,
    /// The stream that counts; messages of others come too late.
    pub epoch: u64,
    /// What it said last of each resource that it was told: done, or why not.
    pub results: HashMap<Uuid, Result<u64, String>>,
    /// What its listeners have done, by listener.
    pub counters: BTreeMap<Uuid, ListenerCounters>,
    /// Whether it was counted as dead when that was last looked at.
    dead: bool,
}

impl Node {
    fn unheard(record: Option<NodeRecord>, started: Instant) -> Self {
        Self {
            record,
            hello: None,
            heard: Heard { connected: false, last: None, started },
            since: started,
            epoch: 0,
            results: HashMap::new(),
            counters: BTreeMap::new(),
            dead: false,
        }
    }
}

/// What a stored change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Any network: a node came or went.
    All,
    /// What nodes have on one network.
    Network(Uuid),
    /// One load balancer.
    Tree(Uuid),
    /// Nothing that anybody waits for.
    Nothing,
}

/// How nodes are chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Nodes for each network, where there are as many.
    pub nodes_per_network: usize,
    /// How long a node is dead before its networks move to others.
    pub move_after: Duration,
}

/// All of it. Reads no clock.
#[derive(Debug)]
pub(super) struct State {
    rules: Rules,
    started: Instant,
    nodes: BTreeMap<String, Node>,
    ports: BTreeMap<Uuid, BTreeMap<String, PortRecord>>,
    proxy_ports: HashMap<Uuid, (Uuid, u16)>,
    /// What the trees ask for.
    pub demands: Demands,
    /// What nodes say of backends.
    pub(super) verdicts: Verdicts,
    /// Backends of checked pools by tree, with when they were first seen.
    checked: HashMap<Uuid, BTreeMap<Uuid, Instant>>,
    holders: HashMap<(Uuid, IpAddr), String>,
    troubles: BTreeMap<Uuid, String>,
}

impl State {
    /// Nothing yet. `started` is when the plugin did.
    pub(super) fn new(rules: Rules, started: Instant) -> Self {
        Self {
            rules,
            started,
            nodes: BTreeMap::new(),
            ports: BTreeMap::new(),
            proxy_ports: HashMap::new(),
            demands: Demands::default(),
            verdicts: Verdicts::default(),
            checked: HashMap::new(),
            holders: HashMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Takes over what the store says of a key (`None`: it is gone).
    pub(super) fn apply(&mut self, key: &FleetKey, value: Option<&[u8]>) -> Concern {
        match key {
            FleetKey::Node(id) => {
                match value.and_then(decode::<NodeRecord>) {
                    Some(record) => self.keep_node(id, record),
                    None => drop(self.nodes.remove(id)),
                }
                Concern::All
            }
            FleetKey::Port(network, node) => {
                let ports = self.ports.entry(*network).or_default();
                match value.and_then(decode::<PortRecord>) {
                    Some(record) => drop(ports.insert(node.clone(), record)),
                    None => drop(ports.remove(node)),
                }
                if ports.is_empty() {
                    self.ports.remove(network);
                }
                Concern::Network(*network)
            }
            FleetKey::ProxyPort(network, port) => match value.and_then(decode::<ProxyPortRecord>) {
                Some(record) => {
                    self.proxy_ports.insert(record.listener, (*network, *port));
                    Concern::Tree(record.load_balancer)
                }
                None => {
                    self.proxy_ports.retain(|_, taken| *taken != (*network, *port));
                    Concern::Nothing
                }
            },
        }
    }

    fn keep_node(&mut self, id: &str, record: NodeRecord) {
        let started = self.started;
        let node = self.nodes.entry(id.to_owned()).or_insert_with(|| Node::unheard(None, started));
        node.record = Some(record);
    }

    /// All nodes in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// The node whose stream has this epoch; `None` for a stream that was replaced.
    pub(super) fn speaker(&mut self, id: &str, epoch: u64) -> Option<&mut Node> {
        self.nodes.get_mut(id).filter(|node| node.epoch == epoch)
    }

    /// A node's stream is open from now on.
    pub(super) fn joined(&mut self, hello: &Hello, epoch: u64, now: Instant) {
        let started = self.started;
        let node = self.nodes.entry(hello.node_id.clone()).or_insert_with(|| Node::unheard(None, started));
        node.hello = Some(hello.clone());
        node.epoch = epoch;
        node.heard = Heard { connected: true, last: Some(now), started };
        node.since = now;
        node.dead = false;
        node.results.clear();
    }

    /// What is to be stored of the nodes that have said who they are and are not stored like that.
    pub(super) fn unregistered(&self, now_ms: u64) -> Vec<NodeRecord> {
        let record = |node: &Node| {
            let hello = node.hello.as_ref()?;
            let since = node.record.as_ref().map_or(now_ms, |record| record.registered_at);
            let record = NodeRecord::new(&hello.node_id, &hello.zone, &hello.chassis, &hello.release, since);
            (node.record.as_ref() != Some(&record)).then_some(record)
        };
        self.nodes.values().filter_map(record).collect()
    }

    /// When a node will be dead, for the one that is so first.
    pub(super) fn next_death(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.dead).filter_map(|node| node.heard.deadline()).min()
    }

    /// When networks move away from a dead node, for the one that does so first after `now`.
    pub(super) fn next_move(&self, now: Instant) -> Option<Instant> {
        let at = |node: &Node| Some(node.heard.deadline()? + self.rules.move_after);
        self.nodes.values().filter_map(at).filter(|at| *at > now).min()
    }

    /// Those that have died since the last look, and what they were given. What they said of backends is void.
    pub(super) fn bury(&mut self, now: Instant) -> Vec<String> {
        let dies = |node: &Node| !node.dead && node.heard.liveness(now) == Liveness::Dead;
        let mut died = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| dies(node)) {
            node.dead = true;
            node.since = now;
            node.results.clear();
            died.push(id.clone());
        }
        for id in &died {
            self.verdicts.void_others(id, &BTreeSet::new());
        }
        died
    }

    /// Takes over what a tree asks for now. Answers whether that concerns its network.
    pub(super) fn set_tree(
        &mut self,
        id: Uuid,
        tree: Option<&Tree>,
        demand: Option<Demand>,
        now: Instant,
    ) -> bool {
        let backends: BTreeSet<Uuid> = match (tree, &demand) {
            (Some(tree), Some(_)) => checked_backends(tree).map(|backend| backend.id).collect(),
            _ => BTreeSet::new(),
        };
        let mut seen = self.checked.remove(&id).unwrap_or_default();
        for gone in seen.keys().filter(|backend| !backends.contains(backend)) {
            self.verdicts.forget(*gone);
        }
        seen.retain(|backend, _| backends.contains(backend));
        for backend in backends {
            seen.entry(backend).or_insert(now);
        }
        if !seen.is_empty() {
            self.checked.insert(id, seen);
        }
        self.demands.set(id, demand)
    }

    /// Whether a backend belongs to a pool that is checked.
    pub(super) fn is_checked(&self, tree: Uuid, backend: Uuid) -> bool {
        self.checked.get(&tree).is_some_and(|backends| backends.contains_key(&backend))
    }

    /// The nodes that serve a network, the first choice first. Nodes that are dead for long are left out.
    pub(super) fn placed(&self, network: Uuid, now: Instant) -> Vec<&str> {
        let gone = |node: &Node| {
            node.heard.deadline().is_some_and(|deadline| now >= deadline + self.rules.move_after)
        };
        let stored = |node: &Node| node.record.is_some();
        let nodes =
            self.nodes.iter().filter(|(_, node)| stored(node) && !gone(node)).map(|(id, _)| id.as_str());
        place(network, nodes, self.rules.nodes_per_network)
    }

    /// What nodes were given on a network.
    pub(super) fn ports(&self, network: Uuid) -> impl Iterator<Item = (&str, &PortRecord)> {
        self.ports.get(&network).into_iter().flatten().map(|(node, port)| (node.as_str(), port))
    }

    /// What a node was given on a network.
    pub(super) fn port(&self, network: Uuid, node: &str) -> Option<&PortRecord> {
        self.ports.get(&network)?.get(node)
    }

    /// Networks on which nodes were given something.
    pub(super) fn networks_with_ports(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.ports.keys().copied()
    }

    /// The networks on which a node was given something.
    pub(super) fn networks_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = Uuid> + 'a {
        self.ports.iter().filter(move |(_, ports)| ports.contains_key(node)).map(|(network, _)| *network)
    }

    /// Whether a node has an address on a network.
    pub(super) fn has_address(&self, network: Uuid, address: IpAddr) -> bool {
        self.ports(network).any(|(_, port)| port.hosts().any(|host| host == address))
    }

    /// The port that proxies listen on for a listener.
    pub(super) fn proxy_port(&self, listener: Uuid) -> Option<u16> {
        self.proxy_ports.get(&listener).map(|(_, port)| *port)
    }

    /// The listeners that have a proxy port on a network, with it.
    pub(super) fn proxy_ports(&self, network: Uuid) -> impl Iterator<Item = (Uuid, u16)> + '_ {
        let on = move |taken: &(Uuid, u16)| taken.0 == network;
        self.proxy_ports.iter().filter(move |(_, taken)| on(taken)).map(|(id, (_, port))| (*id, *port))
    }

    /// Notes why the nodes of a network cannot be given what they need (`None`: they can). Answers whether that is new.
    pub(super) fn set_trouble(&mut self, network: Uuid, trouble: Option<&str>) -> bool {
        let before = match trouble {
            Some(trouble) => self.troubles.insert(network, trouble.to_owned()),
            None => self.troubles.remove(&network),
        };
        before.as_deref() != trouble
    }

    /// The node that holds a VIP of a load balancer.
    pub(super) fn holder(&self, load_balancer: Uuid, vip: IpAddr) -> Option<&str> {
        self.holders.get(&(load_balancer, vip)).map(String::as_str)
    }

    /// A node says that it holds a VIP: it keeps it, unless another one was given it meanwhile.
    pub(super) fn held(&mut self, load_balancer: Uuid, vip: IpAddr, node: &str) {
        self.holders.entry((load_balancer, vip)).or_insert_with(|| node.to_owned());
    }

    /// Gives each VIP of a tree to a node that lives: the one that has it, or else the first choice. Answers whether any
    /// VIP moved.
    pub(super) fn hand_out(
        &mut self,
        load_balancer: Uuid,
        network: Uuid,
        vips: &[IpAddr],
        now: Instant,
    ) -> bool {
        let liveness = |id: &str| self.nodes.get(id).map(|node| node.heard.liveness(now));
        let candidates: Vec<String> = {
            let placed = self.placed(network, now);
            // A node that the plugin has not heard of since it started may hold it.
            let unheard = |id: &&str| self.nodes.get(*id).is_some_and(|node| node.heard.last.is_none());
            let waits = placed.iter().any(|id| unheard(id) && liveness(id) == Some(Liveness::Silent));
            let ranked = place(load_balancer, placed, self.rules.nodes_per_network);
            let alive = ranked
                .into_iter()
                .filter(|id| liveness(id) == Some(Liveness::Alive) && self.port(network, id).is_some());
            if waits { Vec::new() } else { alive.map(str::to_owned).collect() }
        };
        let mut moved = false;
        for vip in vips {
            let holder = self.holders.get(&(load_balancer, *vip)).map(String::as_str);
            let lives = holder.is_some_and(|id| {
                liveness(id).is_some_and(|liveness| liveness != Liveness::Dead)
                    && self.port(network, id).is_some()
            });
            if let Some(next) = candidates.first().filter(|_| !lives) {
                moved |= holder != Some(next.as_str());
                self.holders.insert((load_balancer, *vip), next.clone());
            }
        }
        moved
    }

    /// Forgets who holds the VIPs of a load balancer.
    pub(super) fn forget_holders(&mut self, load_balancer: Uuid) {
        self.holders.retain(|(id, _), _| *id != load_balancer);
    }

    /// All that the reconciler and the statuses need to know of a tree.
    pub(super) fn view(&self, tree: &Tree, now: Instant, port_name: impl Fn(&str) -> String) -> View {
        let Some(demand) = self.demands.of(tree.id()) else { return View::default() };
        let placed = self.placed(demand.network, now);
        let nodes: Vec<PlacedNode> = placed
            .into_iter()
            .filter_map(|id| self.placed_node(id, demand.network, now, &port_name))
            .collect();
        let (health, look_again) = self.health_of(tree, &nodes, now);
        let vips = tree.load_balancer.spec.vips.iter();
        let holder = |vip: &IpAddr| Some((*vip, self.holder(tree.id(), *vip)?.to_owned()));
        View {
            proxied: demand.proxied.keys().map(|id| (*id, self.proxied(*id, &nodes))).collect(),
            health,
            look_again,
            holders: vips.filter_map(holder).collect(),
            trouble: self.trouble(demand.network),
            nodes,
        }
    }

    fn trouble(&self, network: Uuid) -> Option<String> {
        if self.nodes.is_empty() {
            return Some("no proxy node has ever connected: start fiberlb-proxy on a node".to_owned());
        }
        self.troubles.get(&network).cloned()
    }

    fn placed_node(
        &self,
        id: &str,
        network: Uuid,
        now: Instant,
        port_name: impl Fn(&str) -> String,
    ) -> Option<PlacedNode> {
        let (node, port) = (self.nodes.get(id)?, self.port(network, id)?);
        let trouble = node.results.get(&network).and_then(|result| result.clone().err());
        Some(PlacedNode {
            id: id.to_owned(),
            port_name: port_name(id),
            hosts: port.hosts().collect(),
            liveness: node.heard.liveness(now),
            trouble,
        })
    }

    fn proxied(&self, listener: Uuid, nodes: &[PlacedNode]) -> Proxied {
        let result = |node: &PlacedNode| {
            let result = self.nodes.get(&node.id)?.results.get(&listener)?.clone();
            Some((node.id.clone(), result))
        };
        Proxied { port: self.proxy_port(listener), results: nodes.iter().filter_map(result).collect() }
    }

    /// The health of the backends in checked pools, and when to look again.
    fn health_of(
        &self,
        tree: &Tree,
        nodes: &[PlacedNode],
        now: Instant,
    ) -> (BTreeMap<Uuid, Health>, Option<Instant>) {
        let can_check = nodes.iter().any(PlacedNode::can_check);
        let Some(seen) = self.checked.get(&tree.id()) else { return (BTreeMap::new(), None) };
        let mut look_again: Option<Instant> = None;
        let mut all = BTreeMap::new();
        for backend in checked_backends(tree) {
            let mut health = self.verdicts.health(backend.id);
            let due = seen.get(&backend.id).map(|since| *since + patience(tree, backend.spec.pool_id));
            if health == Health::Unknown && !can_check {
                match due {
                    Some(due) if now < due => look_again = Some(look_again.map_or(due, |at| at.min(due))),
                    _ => health = Health::NotChecked,
                }
            }
            all.insert(backend.id, health);
        }
        (all, look_again)
    }
}

/// How long a new backend waits for a node that could check it.
fn patience(tree: &Tree, pool: Uuid) -> Duration {
    let check = tree.health_check_of(pool);
    check.map_or(Duration::ZERO, |check| {
        Duration::from_millis(u64::from(check.spec.delay_ms) + u64::from(check.spec.timeout_ms))
    })
}

/// The backends that a check is in force for.
fn checked_backends(tree: &Tree) -> impl Iterator<Item = &Record<Backend>> {
    let pools = tree.health_checks.values().filter(|check| in_force(check)).map(|check| check.spec.pool_id);
    let pools: BTreeSet<Uuid> = pools.collect();
    let backends = tree.backends.values().map(AsRef::as_ref);
    backends.filter(move |backend: &&Record<Backend>| {
        pools.contains(&backend.spec.pool_id) && backend.spec.admin_state_up && !backend.deleting
    })
}

#[cfg(test)]
mod tests {
    use fiberlb_ovn::plan::Capabilities;
    use ipnetwork::IpNetwork;

    use super::super::health::Verdict;
    use super::super::liveness::{DEAD_AFTER, WELCOME};
    use super::*;
    use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, change, tree};
    use crate::resources::{Datapath, Listener};

    const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100));

    /// Nodes a and b, known from before and not heard of yet, on the network of a tree with a proxied listener.
    fn known(now: Instant) -> (State, Tree) {
        let rules = Rules { nodes_per_network: 2, move_after: Duration::from_secs(60) };
        let mut state = State::new(rules, now);
        for node in ["a", "b"] {
            let record = serde_json::to_vec(&NodeRecord::new(node, "", "", "", 0)).unwrap();
            state.apply(&FleetKey::Node(node.to_owned()), Some(&record));
            let address: IpNetwork = format!("10.0.0.{}/24", 200 + node.as_bytes()[0] % 50).parse().unwrap();
            let port = serde_json::to_vec(&PortRecord::new(vec![address])).unwrap();
            state.apply(&FleetKey::Port(NETWORK, node.to_owned()), Some(&port));
        }
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        let demand = Demand::of(&tree, &Capabilities::ALL);
        state.set_tree(LOAD_BALANCER, Some(&tree), demand, now);
        (state, tree)
    }

    fn hello(node: &str) -> Hello {
        Hello {
            node_id: node.to_owned(),
            boot_id: "boot".to_owned(),
            chassis: String::new(),
            release: String::new(),
            zone: String::new(),
            capabilities: BTreeSet::new(),
            held_vips: BTreeSet::new(),
        }
    }

    fn leave(state: &mut State, node: &str, last: Instant) {
        let node = state.speaker(node, 1).unwrap();
        node.heard = Heard { connected: false, last: Some(last), ..node.heard };
    }

    fn verdict(up: bool) -> Verdict {
        Verdict { up, reason: if up { String::new() } else { "connection refused".to_owned() }, since_ms: 0 }
    }

    fn view(state: &State, tree: &Tree, now: Instant) -> View {
        state.view(tree, now, |node| format!("port-{node}"))
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
            state.speaker(node, 1).unwrap().results.insert(LISTENER, Ok(1));
        }
        state.speaker("b", 1).unwrap().results.insert(LISTENER, Err("the port is taken".to_owned()));
        let serving = |state: &State, now| {
            view(state, &tree, now).serving(LISTENER).map(|node| node.id.clone()).collect::<Vec<_>>()
        };
        assert_eq!(serving(&state, now), ["a"]);
        leave(&mut state, "a", now);
        assert_eq!(state.next_death(), Some(now + DEAD_AFTER));
        assert_eq!(serving(&state, now + DEAD_AFTER / 2), ["a"]);
        assert!(state.bury(now + DEAD_AFTER / 2).is_empty());
        assert_eq!(state.bury(now + DEAD_AFTER), ["a"]);
        assert!(state.bury(now + DEAD_AFTER).is_empty(), "a node dies once");
        assert!(serving(&state, now + DEAD_AFTER).is_empty());
    }

    #[test]
    fn what_a_dead_node_said_is_void_and_changes_nothing_by_itself() {
        let now = Instant::now();
        let (mut state, tree) = known(now);
        let health = |state: &State| view(state, &tree, now + DEAD_AFTER).health(BACKENDS[0]).clone();
        for node in ["a", "b"] {
            state.joined(&hello(node), 1, now);
        }
        state.verdicts.judge(BACKENDS[0], "a", verdict(true));
        assert!(state.verdicts.judge(BACKENDS[0], "b", verdict(false)));
        assert!(matches!(health(&state), Health::Degraded(_)));
        leave(&mut state, "b", now);
        state.bury(now + DEAD_AFTER);
        assert_eq!(health(&state), Health::Up);
        leave(&mut state, "a", now);
        state.bury(now + DEAD_AFTER);
        assert_eq!(health(&state), Health::Up, "nobody says anything: it stays");
    }

    #[test]
    fn a_new_backend_that_nobody_can_check_is_taken_in_after_a_while() {
        let now = Instant::now();
        let (state, tree) = known(now);
        // Both nodes are dead: nobody can check.
        let early = view(&state, &tree, now + WELCOME);
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
            !state.hand_out(LOAD_BALANCER, NETWORK, &[VIP], now),
            "somebody may hold it who was not heard of yet"
        );
        state.held(LOAD_BALANCER, VIP, "b");
        for node in ["a", "b"] {
            state.joined(&hello(node), 1, now);
        }
        assert!(!state.hand_out(LOAD_BALANCER, NETWORK, &[VIP], now));
        assert_eq!(state.holder(LOAD_BALANCER, VIP), Some("b"));
        leave(&mut state, "b", now);
        assert!(!state.hand_out(LOAD_BALANCER, NETWORK, &[VIP], now + DEAD_AFTER / 2));
        assert!(state.hand_out(LOAD_BALANCER, NETWORK, &[VIP], now + DEAD_AFTER));
        assert_eq!(state.holder(LOAD_BALANCER, VIP), Some("a"));
        state.joined(&hello("b"), 1, now);
        assert!(!state.hand_out(LOAD_BALANCER, NETWORK, &[VIP], now + seconds(9)), "it does not go back");
    }

    #[test]
    fn networks_move_away_from_a_node_that_is_dead_for_long() {
        let now = Instant::now();
        let (mut state, _) = known(now);
        state.joined(&hello("a"), 1, now);
        assert_eq!(state.placed(NETWORK, now + seconds(30)).len(), 2);
        let gone = now + WELCOME + seconds(60);
        assert_eq!(state.next_move(now), Some(gone));
        assert_eq!(state.placed(NETWORK, gone), ["a"]);
    }
}
