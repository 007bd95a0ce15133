//! What is known of the nodes, of what they were given, and of what they say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::demand::{Demand, Demands, checked_backends, patience};
use super::given::Given;
use super::health::Health;
use super::liveness::{Heard, Liveness, WELCOME};
use super::placement::place;
use super::records::{FleetKey, NodeRecord, PortRecord, ProxyPortRecord, decode};
use super::shared::Notice;
use super::verdicts::Verdicts;
use super::view::{PlacedNode, Proxied, View};
use crate::agents::{Configuration, Hello, ListenerCounters, ResultKind};
use crate::resources::Tree;

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
    /// What it was told to give up and may not have yet. A node says only what is new: what it said before is kept until it
    /// has surely forgotten that too.
    pub(super) taken_back: BTreeSet<Uuid>,
    /// Whether all that it says of backends was heard since the plugin started.
    pub(super) has_reported: bool,
    /// Whether it was counted as dead when that was last looked at.
    dead: bool,
    /// Whether it was then dead for so long that its networks move to others.
    gone: bool,
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
            taken_back: BTreeSet::new(),
            has_reported: false,
            dead: false,
            gone: false,
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
    /// What nodes and listeners were given.
    pub(super) given: Given,
    /// What the trees ask for.
    pub demands: Demands,
    /// What nodes say of backends.
    pub(super) verdicts: Verdicts,
    /// Backends of checked pools by tree, with when they were first seen; `None` for those that were not new any more when
    /// the plugin started.
    checked: HashMap<Uuid, BTreeMap<Uuid, Option<Instant>>>,
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
            given: Given::default(),
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
            FleetKey::Node(id) => match value.and_then(decode::<NodeRecord>) {
                Some(record) => self.keep_node(id, record),
                None => {
                    self.nodes.remove(id);
                    Concern::All
                }
            },
            FleetKey::Port(network, node) => {
                let record = value.and_then(decode::<PortRecord>);
                if record.is_none() {
                    self.void_verdicts(*network, node);
                }
                self.given.set_port(*network, node, record);
                Concern::Network(*network)
            }
            FleetKey::ProxyPort(network, port) => match value.and_then(decode::<ProxyPortRecord>) {
                Some(record) => {
                    self.given.set_proxy_port(*network, *port, Some(record.listener));
                    Concern::Tree(record.load_balancer)
                }
                None => {
                    self.given.set_proxy_port(*network, *port, None);
                    Concern::Nothing
                }
            },
        }
    }

    /// Only that there is a node decides where networks are; what else is stored of it does not.
    fn keep_node(&mut self, id: &str, record: NodeRecord) -> Concern {
        let started = self.started;
        let node = self.nodes.entry(id.to_owned()).or_insert_with(|| Node::unheard(None, started));
        if node.record.replace(record).is_none() { Concern::All } else { Concern::Nothing }
    }

    /// A node does not check a network any more: what it said of that would count for ever.
    fn void_verdicts(&mut self, network: Uuid, node: &str) {
        let backends = self.demands.on(network).filter_map(|tree| self.checked.get(&tree));
        for backend in backends.flat_map(BTreeMap::keys) {
            self.verdicts.void(*backend, node);
        }
    }

    /// All nodes in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// The node whose stream has this epoch; `None` for a stream that was replaced.
    pub(super) fn speaker(&mut self, id: &str, epoch: u64) -> Option<&mut Node> {
        self.nodes.get_mut(id).filter(|node| node.epoch == epoch)
    }

    /// A node's stream is open from now on. Answers whether networks and VIPs may have to move to it.
    pub(super) fn joined(&mut self, hello: &Hello, epoch: u64, now: Instant) -> bool {
        let started = self.started;
        let node = self.nodes.entry(hello.node_id.clone()).or_insert_with(|| Node::unheard(None, started));
        let was_away = node.dead || node.gone || node.heard.last.is_none();
        node.hello = Some(hello.clone());
        node.epoch = epoch;
        node.heard = Heard { connected: true, last: Some(now), started };
        node.since = now;
        (node.dead, node.gone) = (false, false);
        node.results.clear();
        node.taken_back.clear();
        was_away
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

    /// A node was told to give up what is gone, and has all of `configuration` from now on.
    pub(super) fn took_back(&mut self, node: &str, gone: &[Uuid], configuration: &Configuration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.taken_back.extend(gone);
            node.taken_back.retain(|id| !configuration.has(*id));
        }
    }

    /// When a node will be dead, for the one that is so first.
    pub(super) fn next_death(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.dead).filter_map(|node| node.heard.deadline()).min()
    }

    /// When networks move away from a dead node, for the one that does so first.
    pub(super) fn next_move(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.gone).filter_map(|node| self.moves_at(node)).min()
    }

    fn moves_at(&self, node: &Node) -> Option<Instant> {
        node.heard.deadline()?.checked_add(self.rules.move_after)
    }

    fn is_gone(&self, node: &Node, now: Instant) -> bool {
        self.moves_at(node).is_some_and(|at| now >= at)
    }

    /// Those whose networks move to others since the last look.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<String> {
        let goes = |(_, node): &(&String, &Node)| !node.gone && self.is_gone(node, now);
        let going: Vec<String> = self.nodes.iter().filter(goes).map(|(id, _)| id.clone()).collect();
        for id in &going {
            if let Some(node) = self.nodes.get_mut(id) {
                node.gone = true;
            }
        }
        going
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
            seen.entry(backend).or_insert(Some(now));
        }
        if !seen.is_empty() {
            self.checked.insert(id, seen);
        }
        self.demands.set(id, demand)
    }

    /// Takes over that a tree was there before the plugin started, at `now_ms`: of its backends that are not new, the
    /// northbound database shows what was decided.
    pub(super) fn settle(&mut self, tree: &Tree, now_ms: u64) {
        let Some(seen) = self.checked.get_mut(&tree.id()) else { return };
        for backend in checked_backends(tree) {
            let age = Duration::from_millis(now_ms.saturating_sub(backend.created_at));
            if age >= patience(tree, backend.spec.pool_id) {
                seen.insert(backend.id, None);
            }
        }
    }

    /// Whether a node checks a backend: the backend's pool is checked, and its network is placed on the node.
    pub(super) fn checks(&self, node: &str, tree: Uuid, backend: Uuid) -> bool {
        self.checked.get(&tree).is_some_and(|backends| backends.contains_key(&backend))
            && self.has_tree(node, tree)
    }

    /// Whether a node may say how it carries something out: it has a port on the network, and was told to.
    pub(super) fn serves(&self, node: &str, subject: Notice, kind: ResultKind, id: Uuid) -> bool {
        match subject {
            Notice::Network(network) => self.given.port(network, node).is_some(),
            Notice::Tree(tree) => {
                let is_served =
                    |demand: &Demand| kind != ResultKind::Listener || demand.proxied.contains_key(&id);
                self.has_tree(node, tree) && self.demands.of(tree).is_some_and(is_served)
            }
        }
    }

    /// Whether a tree asks something of a node.
    fn has_tree(&self, node: &str, tree: Uuid) -> bool {
        self.demands.of(tree).is_some_and(|demand| self.given.port(demand.network, node).is_some())
    }

    /// The nodes that serve a network, the first choice first. Nodes that are dead for long are left out. Of a node that was
    /// not heard of since the plugin started nobody knows for how long it is dead: it keeps what it has and gets no more.
    pub(super) fn placed(&self, network: Uuid, now: Instant) -> Vec<&str> {
        let is_known =
            |id: &str, node: &Node| node.heard.last.is_some() || self.given.port(network, id).is_some();
        let serves = |(id, node): &(&String, &Node)| {
            node.record.is_some() && !self.is_gone(node, now) && is_known(id, node)
        };
        let nodes = self.nodes.iter().filter(serves).map(|(id, _)| id.as_str());
        place(network, nodes, self.rules.nodes_per_network)
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
                .filter(|id| liveness(id) == Some(Liveness::Alive) && self.given.port(network, id).is_some());
            if waits { Vec::new() } else { alive.map(str::to_owned).collect() }
        };
        let mut moved = false;
        for vip in vips {
            let holder = self.holders.get(&(load_balancer, *vip)).map(String::as_str);
            let lives = holder.is_some_and(|id| {
                liveness(id).is_some_and(|liveness| liveness != Liveness::Dead)
                    && self.given.port(network, id).is_some()
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
        let (node, port) = (self.nodes.get(id)?, self.given.port(network, id)?);
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
        Proxied { port: self.given.proxy_port(listener), results: nodes.iter().filter_map(result).collect() }
    }

    fn has_reported(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.has_reported)
    }

    /// The health of the backends in checked pools, and when to look again.
    fn health_of(
        &self,
        tree: &Tree,
        nodes: &[PlacedNode],
        now: Instant,
    ) -> (BTreeMap<Uuid, Health>, Option<Instant>) {
        let can_check = nodes.iter().any(PlacedNode::can_check);
        let welcome_ends = self.started + WELCOME;
        let is_awaited = now < welcome_ends && nodes.iter().any(|node| !self.has_reported(&node.id));
        let Some(seen) = self.checked.get(&tree.id()) else { return (BTreeMap::new(), None) };
        let mut look_again: Option<Instant> = None;
        let mut sooner = |due: Instant| look_again = Some(look_again.map_or(due, |at| at.min(due)));
        let mut all = BTreeMap::new();
        for backend in checked_backends(tree) {
            let mut health = self.verdicts.health(backend.id);
            let since = seen.get(&backend.id).copied().flatten();
            match (&health, since.map(|since| since + patience(tree, backend.spec.pool_id))) {
                // Who has not said anything yet since the plugin started may know better.
                (Health::Down(_), _) if is_awaited => {
                    sooner(welcome_ends);
                    health = Health::Unknown;
                }
                (Health::Unknown, Some(due)) if !can_check && now < due => sooner(due),
                (Health::Unknown, due) if !can_check && (due.is_some() || self.nodes.is_empty()) => {
                    health = Health::NotChecked;
                }
                _ => {}
            }
            all.insert(backend.id, health);
        }
        (all, look_again)
    }
}

#[cfg(test)]
mod tests;
