//! What is known of the nodes, of what they were given, and of what they say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::agents::{Configuration, Hello, ResultKind};
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{FleetKey, NodeRecord, PortRecord, ProxyPortRecord, decode};
use crate::fleet::facade::Notice;
use crate::fleet::placement::demand::{Demand, Demands, patience};
use crate::fleet::placement::given::Given;
use crate::fleet::verdicts::Verdicts;
use crate::resources::Tree;
use crate::status::{Heard, Verdict, View};
use crate::store::Revision;

/// What a stored change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Any network: a node came or went, or may serve others than before.
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
    /// How long connections through a node may go on after a network has moved away from it.
    pub drain: Duration,
}

/// A moment, by both clocks: what is kept in memory is measured by one that never jumps, what is stored by the wall's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// By the clock that never jumps.
    pub at: Instant,
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// All of it. Reads no clock.
#[derive(Debug)]
pub(super) struct State {
    pub(super) rules: Rules,
    pub(super) started: Instant,
    pub(super) nodes: BTreeMap<String, Node>,
    /// What nodes and listeners were given.
    pub(super) given: Given,
    /// What the trees ask for.
    pub(super) demands: Demands,
    /// What nodes say of backends.
    pub(super) verdicts: Verdicts,
    /// Backends of checked pools by tree, with when they were first seen; `None` for those that were not new any more when
    /// the plugin started.
    pub(super) checked: HashMap<Uuid, BTreeMap<Uuid, Option<Instant>>>,
    pub(super) holders: HashMap<(Uuid, IpAddr), String>,
    pub(super) troubles: BTreeMap<Uuid, String>,
    /// Since when OVN's rows send no new connections to a port that drains, by network and node.
    pub(super) clear_since: HashMap<(Uuid, String), Instant>,
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
            clear_since: HashMap::new(),
        }
    }

    /// Takes over what the store says of a key since `revision` (`None`: it is gone).
    pub(super) fn apply(&mut self, key: &FleetKey, value: Option<&[u8]>, revision: Revision) -> Concern {
        match key {
            FleetKey::Node(id) => match value.and_then(decode::<NodeRecord>) {
                Some(record) => self.keep_node(id, record, revision),
                None => self.forget_node(id),
            },
            FleetKey::Port(network, node) => {
                self.keep_port(*network, node, value.and_then(decode::<PortRecord>), revision);
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

    /// That there is a node, its zone and its duty decide where networks are; what else is stored of it does not.
    fn keep_node(&mut self, id: &str, record: NodeRecord, revision: Revision) -> Concern {
        let started = self.started;
        let node = self.nodes.entry(id.to_owned()).or_insert_with(|| Node::unheard(None, started));
        node.revision = revision;
        let (zone, duty) = (record.zone.clone(), record.duty);
        match node.record.replace(record) {
            Some(before) if before.zone == zone && before.duty == duty => Concern::Nothing,
            _ => Concern::All,
        }
    }

    /// Somebody has removed a node. One that is connected all the same will be stored anew.
    fn forget_node(&mut self, id: &str) -> Concern {
        match self.nodes.get_mut(id) {
            Some(node) if node.heard.connected => {
                (node.record, node.revision) = (None, Revision::ZERO);
            }
            _ => drop(self.nodes.remove(id)),
        }
        Concern::All
    }

    fn keep_port(&mut self, network: Uuid, node: &str, port: Option<PortRecord>, revision: Revision) {
        let is_draining = port.as_ref().is_some_and(|port| port.draining_since.is_some());
        if port.is_none() {
            self.void_verdicts(network, node);
        } else if is_draining != self.given.is_draining(network, node) {
            for backend in self.checked_on(network).collect::<Vec<_>>() {
                self.verdicts.leave(backend, node, is_draining);
            }
        }
        if !is_draining {
            self.clear_since.remove(&(network, node.to_owned()));
        }
        self.given.set_port(network, node, port, revision);
    }

    /// The backends on a network that nodes check.
    pub(super) fn checked_on(&self, network: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        let seen = self.demands.on(network).filter_map(|tree| self.checked.get(&tree));
        seen.flat_map(BTreeMap::keys).copied()
    }

    /// A node does not check a network any more: what it said of that would count for ever.
    fn void_verdicts(&mut self, network: Uuid, node: &str) {
        for backend in self.checked_on(network).collect::<Vec<_>>() {
            self.verdicts.void(backend, node);
        }
    }

    /// Notes what a node says of a backend of a tree. Answers whether the backend counts as something else now.
    pub(super) fn judge(&mut self, tree: Uuid, backend: Uuid, node: &str, verdict: Verdict) -> bool {
        let network = self.demands.of(tree).map(|demand| demand.network);
        let is_leaving = network.is_some_and(|network| self.given.is_draining(network, node));
        self.verdicts.judge(backend, node, verdict, is_leaving)
    }

    /// All nodes in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// A node by its id.
    pub(super) fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
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
        node.is_settled = false;
        was_away
    }

    /// What is to be stored of the nodes that have said who they are and are not stored like that, each with the revision
    /// of what it takes the place of.
    pub(super) fn unregistered(&self, now_ms: u64) -> Vec<(NodeRecord, Revision)> {
        let record = |node: &Node| {
            let hello = node.hello.as_ref()?;
            let since = node.record.as_ref().map_or(now_ms, |record| record.registered_at);
            let record = NodeRecord::new(&hello.node_id, &hello.zone, &hello.chassis, &hello.release, since);
            let record = record.with_duty(node.duty());
            (node.record.as_ref() != Some(&record)).then_some((record, node.revision))
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

    /// Takes over what a tree asks for now. Answers whether that concerns its network.
    pub(super) fn set_tree(
        &mut self,
        id: Uuid,
        tree: Option<&Tree>,
        demand: Option<Demand>,
        now: Instant,
    ) -> bool {
        let backends: BTreeSet<Uuid> = match (tree, &demand) {
            (Some(tree), Some(_)) => tree.checked_backends().map(|backend| backend.id).collect(),
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
        for backend in tree.checked_backends() {
            let age = Duration::from_millis(now_ms.saturating_sub(backend.created_at));
            if age >= patience(tree, backend.spec.pool_id) {
                seen.insert(backend.id, None);
            }
        }
    }

    /// Takes over what another plugin, which led before, made of the health of a tree's backends: silence changes nothing, also
    /// if it is that of the nodes while they look for a new leader.
    pub(super) fn remember(&mut self, tree: &Tree, view: &View) {
        for backend in tree.checked_backends() {
            if let Some(health) = view.health.get(&backend.id) {
                self.verdicts.remember(backend.id, health);
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

    /// Notes why the nodes of a network cannot be given what they need (`None`: they can). Answers whether that is new.
    pub(super) fn set_trouble(&mut self, network: Uuid, trouble: Option<&str>) -> bool {
        let before = match trouble {
            Some(trouble) => self.troubles.insert(network, trouble.to_owned()),
            None => self.troubles.remove(&network),
        };
        before.as_deref() != trouble
    }
}

#[cfg(test)]
mod tests;
