//! The fleet as the rest of the plugin sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{self, Capabilities, Installation, NodePort};
use ovsdb::client::Client;
use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

use crate::api::{ApiError, Traffic};
use crate::catalog::Model;
use crate::datapath::is_direct;
use crate::fleet::delivery::publishing::Channel;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{FLEET, FleetKey, NodeRecord};
use crate::fleet::directory::status::{NODE_STATUSES, NodeStatus, NodeView, status_write};
use crate::fleet::placement::demand::Demand;
use crate::fleet::readers::{LogReader, LogReaders};
use crate::fleet::settings::FleetSettings;
use crate::fleet::state::{FleetState, Now};
use crate::resources::{Kind, Tree, leader_key, now_ms};
use crate::status::{BackendVerdict, EjectedBackend, FleetView, InconclusiveCheck};
use fiberlb_store::{CommitError, Compare, Revision, Store, StoreError, Term, Transaction};

/// Time since the last contact with the store for which the silence of nodes is believed to be theirs. The
/// lease is renewed every 750 ms; a node is dead after 2 s of silence.
const SILENCE_GRACE: Duration = Duration::from_secs(1);
/// Notices that a slow receiver may lag behind before it must resync.
const NOTICES: usize = 1 << 14;
/// Batching window of changed verdicts: longer than that of the reconciler, which usually observes them first.
const JUDGED_GATHER: Duration = Duration::from_millis(100);
/// Most published states of nodes in one transaction: a cluster takes 128 operations.
const MOST_STATUSES: usize = 100;

/// Changed tree or network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FleetNotice {
    /// Service of a tree by nodes, or verdicts on its backends.
    Tree(Uuid),
    /// Nodes on a network.
    Network(Uuid),
}

/// Pending work of the controller.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Changed trees.
    pub(super) trees: BTreeSet<Uuid>,
    /// Networks whose nodes changed, or the allocations of these.
    pub(super) networks: BTreeSet<Uuid>,
    /// Networks that may need an allocation.
    pub(super) to_allocate: BTreeSet<Uuid>,
    /// Listeners of whose connection limits nodes have other shares.
    pub(super) shares: BTreeSet<Uuid>,
}

/// Trees with changed verdicts on their backends.
#[derive(Debug, Default)]
struct Judged {
    trees: BTreeSet<Uuid>,
    /// End of the batching window.
    due: Option<tokio::time::Instant>,
}

/// The proxy nodes. See the module.
pub struct Fleet {
    pub(super) installation: Installation,
    pub(super) model: Arc<Model>,
    pub(super) northbound: Client<Northbound>,
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: FleetSettings,
    state: RwLock<FleetState>,
    pub(super) channels: Mutex<HashMap<String, Channel>>,
    dirty: Mutex<Dirty>,
    pub(super) wake: Notify,
    notices: broadcast::Sender<FleetNotice>,
    pub(super) revision: Revision,
    /// Revision at which the published state of the nodes was read.
    published_at: Revision,
    /// Term of this leader, on a shared store; writes are refused once it has ended.
    term: Option<Term>,
    /// Trees with changed verdicts.
    judged: Mutex<Judged>,
    judged_wake: Notify,
    pub(super) readers: Arc<LogReaders>,
    /// Last time at which this process was seen to run, while a controller runs.
    beat: Mutex<Option<Instant>>,
    /// Revision up to which the controller has applied the store; `None`: no controller runs.
    pub(super) applied: watch::Sender<Option<Revision>>,
}

impl Fleet {
    /// Loads the stored fleet. `term`: that of this leader, on a shared store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(
        installation: Installation,
        model: Arc<Model>,
        northbound: Client<Northbound>,
        store: Arc<dyn Store>,
        settings: FleetSettings,
        term: Option<Term>,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let mut state = FleetState::new(settings.rules(), now);
        let mut snapshot = store.snapshot(FLEET).await?;
        while let Some(chunk) = snapshot.next().await? {
            for entry in chunk {
                if let Some(key) = FleetKey::parse(&entry.key) {
                    state.apply(&key, Some(&entry.value), entry.revision, now);
                }
            }
        }
        let revision = snapshot.revision();
        let mut snapshot = store.snapshot(NODE_STATUSES).await?;
        while let Some(chunk) = snapshot.next().await? {
            chunk.iter().for_each(|entry| state.apply_published(&entry.key, Some(&entry.value)));
        }
        let published_at = snapshot.revision();
        let clock = Now { at: now, ms: now_ms() };
        for tree in model.load_balancers().into_iter().filter_map(|id| model.tree(id)) {
            let demand = Demand::of(&tree, &Capabilities::ALL, &model.observation(tree.id()));
            state.set_tree(tree.id(), Some(&tree), demand, clock);
            state.mark_established(&tree, clock.ms);
            state.restore_health(&tree, &model.observation(tree.id()).carried.view, now);
        }
        Ok(Self {
            installation,
            model,
            northbound,
            store,
            settings,
            state: RwLock::new(state),
            channels: Mutex::default(),
            dirty: Mutex::default(),
            wake: Notify::new(),
            notices: broadcast::Sender::new(NOTICES),
            revision,
            published_at,
            term,
            judged: Mutex::default(),
            judged_wake: Notify::new(),
            readers: Arc::default(),
            beat: Mutex::default(),
            applied: watch::Sender::new(None),
        })
    }

    /// Clock by which nodes are judged. It stands still while the store is unreachable or this process did
    /// not run: a plugin that is cut off or frozen receives nothing, and must not declare nodes dead that are
    /// connected to its successor.
    pub(super) fn now(&self) -> Instant {
        let now = Instant::now();
        let reached = self.term.as_ref().map_or(now, |term| now.min(term.renewed() + SILENCE_GRACE));
        self.beat_at().map_or(reached, |beat| reached.min(beat + SILENCE_GRACE))
    }

    /// The time by which nodes are judged, and the machine's.
    pub(super) fn clock(&self) -> Now {
        Now { at: self.now(), ms: now_ms() }
    }

    /// Records that this process runs. After a freeze, in which it received nothing, the silence of the nodes
    /// starts again from zero.
    pub(super) fn beat(&self) {
        let now = Instant::now();
        let before = self.beat.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let pause = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        if pause > SILENCE_GRACE {
            tracing::warn!(?pause, "process was paused; extending the grace period of its proxy nodes");
            self.state_mut().extend_grace(now);
        }
    }

    fn beat_at(&self) -> Option<Instant> {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the store, provided this plugin still leads.
    ///
    /// # Errors
    /// [`CommitError`]
    pub(super) async fn commit(&self, mut transaction: Transaction) -> Result<Revision, CommitError> {
        let leads = self.term.as_ref().map(|term| Compare { key: leader_key(), revision: term.revision });
        transaction.compares.extend(leads);
        self.store.commit(transaction).await
    }

    /// Applies changes that other plugins store, until changes are missed or the store is closed.
    pub async fn follow(&self) {
        tokio::select! {
            () = self.follow_records() => {}
            () = self.follow_statuses() => {}
        }
    }

    async fn follow_statuses(&self) {
        let Ok(mut changes) = self.store.watch(NODE_STATUSES, self.published_at).await else { return };
        while let Ok(changes) = changes.next().await {
            let mut state = self.state_mut();
            for change in &changes.changes {
                state.apply_published(&change.key, change.value.as_deref());
            }
        }
    }

    async fn follow_records(&self) {
        let Ok(mut changes) = self.store.watch(FLEET, self.revision).await else { return };
        while let Ok(changes) = changes.next().await {
            for change in &changes.changes {
                if let Some(key) = FleetKey::parse(&change.key) {
                    self.state_mut().apply(&key, change.value.as_deref(), changes.revision, self.now());
                }
            }
        }
    }

    /// Subscribes to later changes. A receiver that lags must resync.
    pub fn subscribe(&self) -> broadcast::Receiver<FleetNotice> {
        self.notices.subscribe()
    }

    /// Current view of a tree: its nodes, their results and the health of its backends.
    pub fn view(&self, tree: &Tree, capabilities: &Capabilities) -> FleetView {
        let before = self.model.observation(tree.id());
        let Some(demand) = Demand::of(tree, capabilities, &before) else { return FleetView::default() };
        self.state().view(tree, &demand, self.now(), |node| self.port_name(demand.network, node))
    }

    /// Updates the demand of a tree. Returns true if the demand or the set of checked backends changed.
    pub(super) fn take_demand(&self, id: Uuid, capabilities: &Capabilities, now: Now) -> bool {
        let mut state = self.state_mut();
        // Read while the state is locked: a view of a newer tree than this must come after it.
        let tree = self.model.tree(id);
        let before = self.model.observation(id);
        let demand = tree.as_deref().and_then(|tree| Demand::of(tree, capabilities, &before));
        if tree.is_none() {
            state.forget_holders(id);
        }
        if demand.is_none() && state.demands.of(id).is_none() {
            return false;
        }
        state.set_tree(id, tree.as_deref(), demand, now)
    }

    /// The ports of nodes on a logical switch.
    pub fn node_ports(&self, switch: Uuid) -> Vec<NodePort> {
        let state = self.state();
        let port = |(node, port): (&str, &super::PortRecord)| {
            NodePort::new(self.installation, switch, node, port.all_hosts().collect())
        };
        state.allocations.ports(switch).map(port).collect()
    }

    /// True if a node has an address on a network.
    pub fn has_address(&self, network: Uuid, address: IpAddr) -> bool {
        self.state().allocations.has_address(network, address)
    }

    /// Marks a network dirty after OVN changed its subnets, routers or MTU.
    pub fn network_changed(&self, switch: Uuid) {
        if self.state().demands.has(switch) {
            self.mark_dirty(FleetNotice::Network(switch));
        }
    }

    /// Marks a tree dirty whose carriers have changed in OVN.
    pub fn tree_changed(&self, tree: Uuid) {
        self.mark_dirty(FleetNotice::Tree(tree));
    }

    /// Trees on a network with a demand on nodes.
    pub fn trees_on(&self, network: Uuid) -> Vec<Uuid> {
        self.state().demands.on(network).collect()
    }

    /// Maps each node by `look`, in the order of their ids.
    pub fn nodes<T>(&self, mut look: impl FnMut(&str, &Node) -> T) -> Vec<T> {
        self.state().nodes().map(|(id, node)| look(id, node)).collect()
    }

    /// Maps a node by `look`; `None`: there is none.
    pub fn node<T>(&self, id: &str, look: impl FnOnce(&Node) -> T) -> Option<T> {
        self.state().node(id).map(look)
    }

    /// All nodes for display, in the order of their ids: as their streams tell on the leader, else as
    /// published.
    pub fn node_views(&self) -> Vec<NodeView> {
        let state = self.state();
        let mut statuses = self.hears_nodes().then(|| state.statuses(self.clock()));
        let counts = state.port_counts();
        let view = |(id, node): (&str, &Node)| {
            let (networks, draining_networks) = counts.get(id).copied().unwrap_or_default();
            let status = match &mut statuses {
                Some(heard) => heard.remove(id),
                None => state.published.get(id).cloned(),
            };
            NodeView { id: id.to_owned(), record: node.record.clone(), networks, draining_networks, status }
        };
        state.nodes().map(view).collect()
    }

    /// A node for display, with a record that may be newer than this plugin's own.
    pub fn node_view(&self, record: NodeRecord) -> NodeView {
        let state = self.state();
        let id = record.id.clone();
        let status = if self.hears_nodes() {
            state.status(&id, self.clock())
        } else {
            state.published.get(&id).cloned()
        };
        let networks: Vec<Uuid> = state.allocations.networks_of(&id).collect();
        let drains = |network: &&Uuid| state.allocations.is_draining(**network, &id);
        let draining_networks = networks.iter().filter(drains).count();
        NodeView { record: Some(record), networks: networks.len(), draining_networks, status, id }
    }

    /// Traffic of the listeners and backends of a tree, as nodes have reported it to this plugin.
    pub fn traffic(&self, tree: Uuid) -> BTreeMap<Uuid, Traffic> {
        self.state().traffic.of(tree, Instant::now())
    }

    /// Reads the access log of a listener from now on, as nodes send it to this plugin.
    ///
    /// # Errors
    /// Too many listeners are read.
    pub(crate) fn read_access_log(&self, listener: Uuid) -> Result<LogReader, ApiError> {
        self.readers.read(listener)
    }

    /// True on the leader, which alone receives the nodes' streams.
    fn hears_nodes(&self) -> bool {
        self.applied.borrow().is_some()
    }

    /// Publishes the changed state of the nodes, provided this plugin still leads; what changes with each
    /// connection only `with_counters`. Returns the number of nodes that were written.
    ///
    /// # Errors
    /// [`CommitError`]; a conflict means that leadership is lost.
    pub async fn publish_statuses(&self, with_counters: bool) -> Result<usize, CommitError> {
        let changes = self.state().unpublished(self.clock(), with_counters);
        for chunk in changes.chunks(MOST_STATUSES) {
            let write = |(id, status): &(String, Option<NodeStatus>)| status_write(id, status.as_ref());
            let writes = chunk.iter().map(write).collect::<Result<_, _>>();
            let writes = writes.map_err(|error| CommitError::Invalid(error.to_string()))?;
            self.commit(Transaction { compares: Vec::new(), writes }).await?;
            let mut state = self.state_mut();
            for (id, status) in chunk {
                state.set_published(id, status.clone());
            }
        }
        Ok(changes.len())
    }

    /// Verdicts of nodes on the checked backends of a tree.
    pub fn verdicts_on(&self, tree: &Tree) -> BTreeMap<Uuid, BTreeMap<String, BackendVerdict>> {
        self.state().verdicts_on(tree)
    }

    /// Checks of nodes that say nothing about backends of a tree.
    pub fn inconclusive_on(&self, tree: &Tree) -> BTreeMap<Uuid, BTreeMap<String, InconclusiveCheck>> {
        self.state().inconclusive_on(tree)
    }

    /// Backends of a tree that nodes leave out.
    pub fn ejections_on(&self, tree: &Tree) -> BTreeMap<Uuid, BTreeMap<String, EjectedBackend>> {
        self.state().ejections_on(tree)
    }

    /// Waits for trees with changed verdicts, which are part of what was observed also where nothing can be
    /// reconciled, or needs to be. Cancel safe.
    pub async fn judged(&self) -> BTreeSet<Uuid> {
        loop {
            let due = self.judged_trees().due;
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => {
                    self.judged_wake.notified().await;
                    continue;
                }
            }
            return std::mem::take(&mut *self.judged_trees()).trees;
        }
    }

    /// Records that verdicts on a tree's backends changed.
    pub(super) fn mark_judged(&self, tree: Uuid) {
        let mut judged = self.judged_trees();
        judged.trees.insert(tree);
        judged.due.get_or_insert_with(|| tokio::time::Instant::now() + JUDGED_GATHER);
        drop(judged);
        self.judged_wake.notify_one();
    }

    fn judged_trees(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks all trees dirty, and all networks on which nodes have or should have a port.
    pub fn mark_all_dirty(&self) {
        let networks: Vec<Uuid> = {
            let state = self.state();
            state.demands.networks().chain(state.allocations.networks()).collect()
        };
        let trees = self.model.load_balancers();
        let mut dirty = self.dirty();
        dirty.trees.extend(trees);
        dirty.networks.extend(networks);
        drop(dirty);
        self.wake.notify_one();
    }

    #[cfg(test)]
    pub(super) fn is_dirty(&self, tree: Uuid) -> bool {
        self.dirty().trees.contains(&tree)
    }

    /// Marks a tree or network dirty and wakes the controller.
    pub(super) fn mark_dirty(&self, notice: FleetNotice) {
        match notice {
            FleetNotice::Tree(id) => self.dirty().trees.insert(id),
            FleetNotice::Network(id) => self.dirty().networks.insert(id),
        };
        self.wake.notify_one();
    }

    /// Marks the shares of nodes in the connection limit of a listener dirty, and wakes the controller. The rest of the tree, which
    /// may be large, is not looked at.
    pub(super) fn mark_share_dirty(&self, listener: Uuid) {
        self.dirty().shares.insert(listener);
        self.wake.notify_one();
    }

    /// Requests allocation on networks and wakes the controller.
    pub(super) fn request_allocation(&self, networks: impl IntoIterator<Item = Uuid>) {
        self.dirty().to_allocate.extend(networks);
        self.wake.notify_one();
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the pending work.
    pub(super) fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut *self.dirty())
    }

    /// Notifies the subscribers.
    pub(super) fn notify(&self, notice: FleetNotice) {
        // No subscriber is no failure.
        let _ = self.notices.send(notice);
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, FleetState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, FleetState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn port_name(&self, network: Uuid, node: &str) -> String {
        NodePort::new(self.installation, network, node, Vec::new()).name
    }

    /// Capabilities of the connected OVN.
    pub(super) fn capabilities(&self) -> Capabilities {
        let schema = self.northbound.schema();
        schema.map_or(Capabilities::ALL, |schema| Capabilities::of(&schema, &self.northbound.read()))
    }

    /// DIRECT VIPs on the networks of a node, by the id that the node knows them by.
    pub(super) fn direct_vips(&self, node: &str) -> BTreeMap<Uuid, (Uuid, IpAddr)> {
        let state = self.state();
        let trees = state.allocations.networks_of(node).flat_map(|network| state.demands.on(network));
        let trees = trees.filter_map(|id| self.model.tree(id)).filter(|tree| is_direct(tree));
        let mut found = BTreeMap::new();
        for tree in trees {
            for vip in &tree.load_balancer.spec.vips {
                let id = plan::virtual_port_row(self.installation, tree.id(), *vip);
                found.insert(id, (tree.id(), *vip));
            }
        }
        found
    }

    /// The tree of a backend that a node checks.
    pub(super) fn tree_of_checked(&self, node: &str, backend: Uuid) -> Option<Uuid> {
        let tree = self.model.tree_of(Kind::Backend, backend)?.id();
        self.state().checks(node, tree, backend).then_some(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::examples::{fleet_of, join};
    use crate::resources::examples::{LISTENER, LOAD_BALANCER, change};
    use crate::resources::{Datapath, Listener};
    use crate::status::Liveness;

    /// Liveness of a node after 3 s of silence, by a plugin that reached the store so long ago.
    async fn liveness(reached_ago: Duration) -> Liveness {
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        let fleet = fleet_of(|_| {}, Some(Term::example(Revision(1), ago(reached_ago)))).await;
        join(&fleet, &["a"]);
        let mut state = fleet.state_mut();
        let node = state.node_of_stream("a", 1).unwrap();
        (node.contact.connected, node.contact.last) = (false, Some(ago(Duration::from_secs(3))));
        node.contact.liveness(fleet.now())
    }

    #[tokio::test]
    async fn a_view_of_a_tree_changes_nothing() {
        let fleet = fleet_of(|_| {}, None).await;
        let mut tree = Tree::clone(&fleet.model.tree(LOAD_BALANCER).unwrap());
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        fleet.take_dirty();
        let before = fleet.state().demands.of(LOAD_BALANCER).cloned();
        let view = fleet.view(&tree, &Capabilities::ALL);
        assert!(view.proxied.contains_key(&LISTENER), "it is a view of the tree that was given");
        assert_eq!(fleet.state().demands.of(LOAD_BALANCER), before.as_ref());
        let dirty = fleet.take_dirty();
        assert!(dirty.trees.is_empty() && dirty.networks.is_empty() && dirty.to_allocate.is_empty());
    }

    #[tokio::test]
    async fn a_plugin_that_is_cut_off_itself_takes_no_node_for_dead() {
        assert_eq!(liveness(Duration::from_millis(700)).await, Liveness::Dead);
        assert_eq!(liveness(Duration::from_millis(2900)).await, Liveness::Silent);
    }

    #[tokio::test]
    async fn a_plugin_that_was_frozen_itself_takes_no_node_for_dead() {
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        let fleet = fleet_of(|_| {}, None).await;
        join(&fleet, &["a"]);
        fleet.beat();
        *fleet.beat.lock().unwrap() = Some(ago(Duration::from_secs(5)));
        let wake = |fleet: &Fleet| {
            let mut state = fleet.state_mut();
            let node = state.node_of_stream("a", 1).unwrap();
            (node.contact.connected, node.contact.last) = (false, Some(ago(Duration::from_secs(5))));
        };
        wake(&fleet);
        assert!(fleet.state_mut().mark_dead(fleet.now()).is_empty(), "before it knows that it was frozen");
        fleet.beat();
        assert!(fleet.state_mut().mark_dead(fleet.now()).is_empty(), "and after");
        wake(&fleet);
        assert_eq!(fleet.state_mut().mark_dead(fleet.now()), ["a"], "one that is silent while it runs");
    }
}
