//! State of the nodes: contact, allocations and reports.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::agents::{Configuration, Hello, ResultKind};
use crate::fleet::clock::{ClockRecord, FleetClock};
use crate::fleet::delivery::share_book::ShareBook;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{FleetKey, NodeRecord, PortRecord, ProxyPortRecord, decode};
use crate::fleet::directory::status::NodeStatus;
use crate::fleet::directory::traffic::TrafficTotals;
use crate::fleet::facade::FleetNotice;
use crate::fleet::placement::allocations::Allocations;
use crate::fleet::placement::allocator::AllocationError;
use crate::fleet::placement::demand::{Demand, Demands, ProxiedListener, check_grace};
use crate::fleet::verdicts::checked::{CheckedBackend, CheckedBackends};
use crate::fleet::verdicts::judging::first_verdict;
use crate::fleet::verdicts::{Ejections, InconclusiveChecks, Verdicts};
use crate::resources::{Backend, PoolProtocol, Record, Tree};
use crate::status::{FleetView, NodeContact};
use fiberlb_store::Revision;

/// Age below which a backend of a checked pool is new.
const NEW: Duration = Duration::from_secs(60);

/// Scope of a stored change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// Any network: a node was added or removed, or its eligibility changed.
    All,
    /// Allocations of nodes on one network.
    Network(Uuid),
    /// One load balancer.
    Tree(Uuid),
    /// Nothing that depends on it.
    Nothing,
}

/// Rules of placement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Nodes for each network, where there are as many.
    pub nodes_per_network: usize,
    /// Time for which a node is dead before its networks move to others.
    pub move_after: Duration,
    /// Drain deadline: time for which connections through a node may go on after a network has moved away
    /// from it.
    pub drain: Duration,
    /// Addresses of each family that a node has on a network, where as many are free.
    pub source_addresses: usize,
}

/// A moment on both clocks: the monotonic one for times in memory, the wall clock for stored ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Time on the monotonic clock.
    pub at: Instant,
    /// Milliseconds since 1970.
    pub ms: u64,
}

/// Whole state of the fleet. Reads no clock.
#[derive(Debug)]
pub(super) struct FleetState {
    pub(super) rules: Rules,
    pub(super) started: Instant,
    pub(super) nodes: BTreeMap<String, Node>,
    /// State of the nodes as it was published last.
    pub(super) published: BTreeMap<String, NodeStatus>,
    /// Allocations of nodes and listeners.
    pub(super) allocations: Allocations,
    /// Demands of the trees.
    pub(super) demands: Demands,
    /// Verdicts of nodes on backends.
    pub(super) verdicts: Verdicts,
    /// Checks of nodes that say nothing.
    pub(super) inconclusive: InconclusiveChecks,
    /// Backends that nodes leave out.
    pub(super) ejections: Ejections,
    /// Backends of checked pools.
    pub(super) checked: CheckedBackends,
    /// Traffic of listeners.
    pub(super) traffic: TrafficTotals,
    /// Shares of nodes in connection limits. They are dealt where configurations are made, by readers.
    shares: Mutex<ShareBook>,
    /// Time since which a node serves a network, by network and node, where it was allocated after the start.
    assigned: HashMap<(Uuid, String), Instant>,
    pub(super) holders: HashMap<(Uuid, IpAddr), String>,
    pub(super) troubles: BTreeMap<Uuid, AllocationError>,
    /// Time since which OVN's rows send no new connections to a draining port, by network and node.
    pub(super) clear_since: HashMap<(Uuid, String), Instant>,
    /// Clock by which drains are measured.
    pub(super) clock: FleetClock,
    /// Time at which each draining port began to drain, by the fleet's clock, by network and node.
    pub(super) drains: HashMap<(Uuid, String), u64>,
}

impl FleetState {
    /// An empty state. `started`: start of the plugin.
    pub(super) fn new(rules: Rules, started: Instant) -> Self {
        Self {
            rules,
            started,
            nodes: BTreeMap::new(),
            published: BTreeMap::new(),
            allocations: Allocations::default(),
            demands: Demands::default(),
            verdicts: Verdicts::default(),
            inconclusive: InconclusiveChecks::default(),
            ejections: Ejections::default(),
            checked: CheckedBackends::default(),
            traffic: TrafficTotals::default(),
            shares: Mutex::default(),
            assigned: HashMap::new(),
            holders: HashMap::new(),
            troubles: BTreeMap::new(),
            clear_since: HashMap::new(),
            clock: FleetClock::new(started),
            drains: HashMap::new(),
        }
    }

    /// Applies a stored record that was written at `revision` (`None`: it is deleted). One that this release cannot
    /// read changes nothing: what was known before stays in force.
    pub(super) fn apply(
        &mut self,
        key: &FleetKey,
        value: Option<&[u8]>,
        revision: Revision,
        now: Instant,
    ) -> Concern {
        match key {
            FleetKey::Node(id) => match read::<NodeRecord>(key, value) {
                Err(UnusableRecord) => Concern::Nothing,
                Ok(Some(record)) => self.keep_node(id, record, revision),
                Ok(None) => self.forget_node(id),
            },
            FleetKey::Port(network, node) => match read::<PortRecord>(key, value) {
                Err(UnusableRecord) => Concern::Nothing,
                Ok(record) => {
                    self.keep_port(*network, node, record, revision, now);
                    Concern::Network(*network)
                }
            },
            FleetKey::Clock => {
                if let Ok(Some(record)) = read::<ClockRecord>(key, value) {
                    self.clock.restore(record.ms, now);
                }
                Concern::Nothing
            }
            FleetKey::ProxyPort(network, port) => match read::<ProxyPortRecord>(key, value) {
                Err(UnusableRecord) => Concern::Nothing,
                Ok(Some(record)) => {
                    self.allocations.set_proxy_port(*network, *port, Some((record.listener, record.offset)));
                    Concern::Tree(record.load_balancer)
                }
                Ok(None) => {
                    self.allocations.set_proxy_port(*network, *port, None);
                    Concern::Nothing
                }
            },
        }
    }

    /// Stores the record of a node. Its existence, zone, duty and capabilities decide on placement; its other
    /// fields do not.
    fn keep_node(&mut self, id: &str, record: NodeRecord, revision: Revision) -> Concern {
        let started = self.started;
        let node = self.nodes.entry(id.to_owned()).or_insert_with(|| Node::disconnected(None, started));
        node.revision = revision;
        let deciding = |record: &NodeRecord| (record.zone.clone(), record.duty, record.capabilities.clone());
        let after = deciding(&record);
        match node.record.replace(record) {
            Some(before) if deciding(&before) == after => Concern::Nothing,
            _ => Concern::All,
        }
    }

    /// Removes the record of a node. A connected node will be stored again.
    fn forget_node(&mut self, id: &str) -> Concern {
        match self.nodes.get_mut(id) {
            Some(node) if node.contact.connected => {
                (node.record, node.revision) = (None, Revision::ZERO);
            }
            _ => drop(self.nodes.remove(id)),
        }
        Concern::All
    }

    fn keep_port(
        &mut self,
        network: Uuid,
        node: &str,
        port: Option<PortRecord>,
        revision: Revision,
        now: Instant,
    ) {
        let serves =
            |port: &Option<PortRecord>| port.as_ref().is_some_and(|port| port.draining_since.is_none());
        let before = self.allocations.port(network, node).cloned();
        let (served, serves, has_port) = (serves(&before), serves(&port), port.is_some());
        let key = (network, node.to_owned());
        if !served && serves && now > self.started {
            self.assigned.insert(key.clone(), now);
        } else if !has_port {
            self.assigned.remove(&key);
        }
        match &port {
            Some(port) if port.draining_since.is_some() => {
                if let Some(began) = port.drain_began {
                    // What is stored of the clock may be older.
                    self.clock.restore(began, now);
                }
                // A drain that an older release began is measured from when it is first seen.
                let seen = self.clock.ms(now);
                self.drains.entry(key.clone()).or_insert(port.drain_began.unwrap_or(seen));
            }
            _ => {
                self.clear_since.remove(&key);
                self.drains.remove(&key);
            }
        }
        self.allocations.set_port(network, node, port, revision);
        if served == serves && has_port == before.is_some() {
            return;
        }
        for backend in self.checked_on(network).collect::<Vec<_>>() {
            if has_port {
                self.verdicts.leave(backend, node, !serves);
            } else {
                // It no longer checks: its verdicts would count for ever.
                self.verdicts.void(backend, node);
                self.inconclusive.void(backend, node);
            }
        }
        if !has_port {
            for tree in self.demands.on(network) {
                self.ejections.leave(tree, node);
            }
        }
        self.judge_network(network, now);
    }

    /// Time since which a node serves a network.
    pub(super) fn assigned_since(&self, network: Uuid, node: &str) -> Instant {
        self.assigned.get(&(network, node.to_owned())).copied().unwrap_or(self.started)
    }

    /// The backends on a network that nodes check.
    pub(super) fn checked_on(&self, network: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.demands.on(network).flat_map(|tree| self.checked.of(tree))
    }

    /// Shares of nodes in connection limits. No other lock is taken under it.
    pub(super) fn shares(&self) -> MutexGuard<'_, ShareBook> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes in the order of their ids.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(id, node)| (id.as_str(), node))
    }

    /// A node by its id.
    pub(super) fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Node whose stream has this epoch; `None` for a stream that was replaced.
    pub(super) fn node_of_stream(&mut self, id: &str, epoch: u64) -> Option<&mut Node> {
        self.nodes.get_mut(id).filter(|node| node.epoch == epoch)
    }

    /// Records the new stream of a node. Returns true if networks and VIPs may have to move to it.
    pub(super) fn joined(&mut self, hello: &Hello, epoch: u64, now: Instant) -> bool {
        let started = self.started;
        let node =
            self.nodes.entry(hello.node_id.clone()).or_insert_with(|| Node::disconnected(None, started));
        let was_away = node.dead || node.gone || node.contact.last.is_none();
        // What a process said of its resources holds until it says something else; those that have gone meanwhile are revoked.
        let is_same_process = !was_away
            && node.hello.as_ref().is_some_and(|before| {
                before.boot_id == hello.boot_id && before.capabilities == hello.capabilities
            });
        let is_another =
            !was_away && node.hello.as_ref().is_none_or(|before| before.capabilities != hello.capabilities);
        node.hello = Some(hello.clone());
        node.epoch = epoch;
        node.contact = NodeContact { connected: true, last: Some(now), started };
        node.since = now;
        // Another process knows nothing of what the one before had found out.
        let begins = was_away || !is_same_process;
        if begins {
            node.alive_since = now;
        }
        (node.dead, node.gone) = (false, false);
        if !is_same_process {
            node.results.clear();
            node.revoked.clear();
        }
        node.is_settled = false;
        if begins {
            for network in self.allocations.networks_of(&hello.node_id).collect::<Vec<_>>() {
                // What it has to say is awaited from now on.
                self.judge_network(network, now);
            }
        }
        was_away || is_another
    }

    /// Records to be stored of connected nodes whose stored record differs, each with the revision that it
    /// replaces.
    pub(super) fn unregistered(&self, now_ms: u64) -> Vec<(NodeRecord, Revision)> {
        let record = |node: &Node| {
            let hello = node.hello.as_ref()?;
            let since = node.record.as_ref().map_or(now_ms, |record| record.registered_at);
            let record = NodeRecord::new(&hello.node_id, &hello.zone, &hello.chassis, &hello.release, since);
            let record = record.with_duty(node.duty()).with_capabilities(hello.capabilities.clone());
            (node.record.as_ref() != Some(&record)).then_some((record, node.revision))
        };
        self.nodes.values().filter_map(record).collect()
    }

    /// Records that `gone` was revoked from a node whose configuration is now `configuration`.
    pub(super) fn revoke(&mut self, node: &str, gone: &[Uuid], configuration: &Configuration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.revoked.extend(gone);
            node.revoked.retain(|id| !configuration.has(*id));
        }
    }

    /// Records that a node gets `configuration` as a whole: what it reported of other things is revoked.
    pub(super) fn revoke_others(&mut self, node: &str, configuration: &Configuration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.revoked.extend(node.results.keys());
            node.revoked.retain(|id| !configuration.has(*id));
        }
    }

    /// Sets the tree's demand and its checked backends. Returns true if its network is concerned.
    pub(super) fn set_tree(
        &mut self,
        id: Uuid,
        tree: Option<&Tree>,
        demand: Option<Demand>,
        now: Now,
    ) -> bool {
        let checked = |tree: &Tree, backend: &Record<Backend>| CheckedBackend {
            tree: id,
            since: Some(now.at),
            new_until: new_until(backend, now),
            protocol: tree
                .pools
                .get(&backend.spec.pool_id)
                .map_or(PoolProtocol::Tcp, |pool| pool.spec.protocol),
            first_verdict: first_verdict(tree, backend.spec.pool_id),
        };
        let backends: BTreeMap<Uuid, CheckedBackend> = match (tree, &demand) {
            (Some(tree), Some(_)) => {
                tree.checked_backends().map(|backend| (backend.id, checked(tree, backend))).collect()
            }
            _ => BTreeMap::new(),
        };
        for gone in self.checked.set(id, &backends) {
            self.verdicts.forget(gone);
            self.inconclusive.forget(gone);
        }
        let has = |tree: &Tree, id: &Uuid| {
            let is_below = tree.listeners.contains_key(id) || tree.backends.contains_key(id);
            is_below || tree.pools.contains_key(id) || tree.id() == *id
        };
        self.traffic.retain(id, |subject| tree.is_some_and(|tree| has(tree, subject)));
        let is_shared = |id: &Uuid| {
            let proxied = demand.as_ref().and_then(|demand| demand.proxied.get(id));
            let listener = tree.and_then(|tree| tree.listeners.get(id));
            // The node that has a DIRECT VIP is alone.
            proxied.is_some_and(|proxied| proxied.is_behind_ovn)
                && listener.is_some_and(|listener| listener.spec.limits.connections.is_some())
        };
        self.shares().retain(id, is_shared);
        // Nodes say nothing more of the backends of a tree that is on no node.
        let served = tree.filter(|_| demand.is_some());
        self.ejections.retain(id, |backend| served.is_some_and(|tree| tree.backends.contains_key(backend)));
        let has_changed = self.demands.set(id, demand);
        for backend in
            backends.into_keys().filter(|backend| self.verdicts.is_held(*backend)).collect::<Vec<_>>()
        {
            self.judge(backend, now.at);
        }
        has_changed
    }

    /// Records that a tree was there before the plugin started, at `now_ms`: for its backends that are not
    /// new, the northbound database shows the decision that was made.
    pub(super) fn mark_established(&mut self, tree: &Tree, now_ms: u64) {
        for backend in tree.checked_backends() {
            let age = Duration::from_millis(now_ms.saturating_sub(backend.created_at));
            let is_established = age >= check_grace(tree, backend.spec.pool_id);
            if let Some(seen) = self.checked.get_mut(backend.id).filter(|_| is_established) {
                seen.since = None;
            }
        }
    }

    /// True for a backend of a checked pool that was just made: it takes no connections before its first good probe.
    pub(super) fn is_new(&self, backend: Uuid, now: Instant) -> bool {
        self.checked.get(backend).is_none_or(|checked| checked.new_until.is_some_and(|until| now < until))
    }

    /// Restores what is known of a tree's backends from the previous leader's observation: silence changes nothing,
    /// including that of nodes while they look for the new leader. What nodes say no more goes as if it was said at `now`.
    pub(super) fn restore_health(&mut self, tree: &Tree, view: &FleetView, now: Instant) {
        for backend in tree.checked_backends() {
            if let Some(health) = view.health.get(&backend.id) {
                self.verdicts.restore_health(backend.id, health);
            }
            let verdicts = view.verdicts.get(&backend.id).into_iter().flatten();
            // One of a node that was removed would never go.
            let verdicts = verdicts.filter(|(node, _)| self.nodes.contains_key(*node));
            let verdicts = verdicts.map(|(node, verdict)| (node.clone(), verdict.clone())).collect();
            self.verdicts.restore_verdicts(backend.id, verdicts);
            for (node, check) in view.inconclusive.get(&backend.id).into_iter().flatten() {
                if self.nodes.contains_key(node) {
                    self.inconclusive.record(backend.id, node, Some(check.clone()));
                }
            }
        }
        for (backend, nodes) in view.ejections.iter().filter(|(id, _)| tree.backends.contains_key(id)) {
            for (node, ejection) in nodes.iter().filter(|(node, _)| self.nodes.contains_key(*node)) {
                self.ejections.record(tree.id(), *backend, node, Some(ejection.clone()), now);
            }
        }
    }

    /// True if a node checks a backend: the backend's pool is checked, and its network is placed on the node.
    pub(super) fn checks(&self, node: &str, tree: Uuid, backend: Uuid) -> bool {
        self.checked.get(backend).is_some_and(|checked| checked.tree == tree) && self.has_tree(node, tree)
    }

    /// True if a node may report on a resource: it has a port on the network, and the resource is in its
    /// configuration.
    pub(super) fn serves(&self, node: &str, subject: FleetNotice, kind: ResultKind, id: Uuid) -> bool {
        match subject {
            FleetNotice::Network(network) => self.allocations.port(network, node).is_some(),
            FleetNotice::Tree(tree) => {
                let is_able = |listener: &ProxiedListener| self.can_serve(node, &listener.needs);
                let is_served = |demand: &Demand| {
                    kind != ResultKind::Listener || demand.proxied.get(&id).is_some_and(is_able)
                };
                self.has_tree(node, tree) && self.demands.of(tree).is_some_and(is_served)
            }
        }
    }

    /// True if the network of a tree with a demand is on a node.
    pub(super) fn has_tree(&self, node: &str, tree: Uuid) -> bool {
        self.demands.of(tree).is_some_and(|demand| self.allocations.port(demand.network, node).is_some())
    }

    /// Sets the reason why nothing can be allocated on a network (`None`: it can). Returns true if it
    /// changed.
    pub(super) fn set_trouble(&mut self, network: Uuid, trouble: Option<&AllocationError>) -> bool {
        let before = match trouble {
            Some(trouble) => self.troubles.insert(network, trouble.clone()),
            None => self.troubles.remove(&network),
        };
        before.as_ref() != trouble
    }
}

/// Time until which a backend is new, by its age when it is first seen; `None`: it is not. The clock of the machine is read at
/// that moment alone, so that its jumps change nothing later.
fn new_until(backend: &Record<Backend>, now: Now) -> Option<Instant> {
    let age = Duration::from_millis(now.ms.saturating_sub(backend.created_at));
    NEW.checked_sub(age).filter(|rest| !rest.is_zero()).and_then(|rest| now.at.checked_add(rest))
}

/// A stored record that this release cannot read.
struct UnusableRecord;

/// Reads a stored record; `None`: it is deleted.
fn read<T: DeserializeOwned>(key: &FleetKey, value: Option<&[u8]>) -> Result<Option<T>, UnusableRecord> {
    let Some(value) = value else { return Ok(None) };
    decode(value).map(Some).ok_or_else(|| {
        let key = key.to_string();
        tracing::error!(key, "ignoring unusable stored record of a node until it is corrected");
        UnusableRecord
    })
}

#[cfg(test)]
mod tests;
