//! The fleet as the rest of the plugin sees it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::plan::{self, Capabilities, Installation, NodePort};
use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

use crate::catalog::Model;
use crate::datapath::is_direct;
use crate::fleet::delivery::publishing::Channel;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{FLEET, FleetKey};
use crate::fleet::placement::demand::Demand;
use crate::fleet::placement::moves::Moves;
use crate::fleet::settings::Settings;
use crate::fleet::state::{Now, State};
use crate::resources::{Kind, Tree, leader_key, now_ms};
use crate::status::{Verdict, View};
use crate::store::{CommitError, Compare, Revision, Store, StoreError, Term, Transaction};

/// How long after the store was reached the silence of nodes is believed to be theirs. A place in the store is kept by reaching it
/// every 750 ms; a node is dead after 2 s of silence.
const BELIEVED: Duration = Duration::from_secs(1);
/// Notices that a slow listener may be behind before it must look at everything.
const NOTICES: usize = 1 << 14;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// What nodes do for a tree, or say of its backends.
    Tree(Uuid),
    /// The nodes on a network.
    Network(Uuid),
}

/// What must be looked at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Trees of which anything changed.
    pub(super) trees: BTreeSet<Uuid>,
    /// Networks whose nodes changed, or what these have there.
    pub(super) networks: BTreeSet<Uuid>,
    /// Networks on which something may have to be given.
    pub(super) wanting: BTreeSet<Uuid>,
}

/// The proxy nodes. See the module.
pub struct Fleet {
    pub(super) installation: Installation,
    pub(super) model: Arc<Model>,
    pub(super) northbound: Client<Northbound>,
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: Settings,
    state: RwLock<State>,
    pub(super) channels: Mutex<HashMap<String, Channel>>,
    dirty: Mutex<Dirty>,
    pub(super) wake: Notify,
    notices: broadcast::Sender<Notice>,
    pub(super) revision: Revision,
    /// Since when this plugin leads, where others may; what it writes is refused when it does so no more.
    term: Option<Term>,
    /// When this process was last seen to run, while a controller looks.
    beat: Mutex<Option<Instant>>,
    /// Up to where the controller has heard the store; `None`: none runs here.
    pub(super) heard: watch::Sender<Option<Revision>>,
}

impl Fleet {
    /// The fleet as it is stored. `term`: since when this plugin leads, where several may be on the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn load(
        installation: Installation,
        model: Arc<Model>,
        northbound: Client<Northbound>,
        store: Arc<dyn Store>,
        settings: Settings,
        term: Option<Term>,
    ) -> Result<Self, StoreError> {
        let now = Instant::now();
        let mut state = State::new(settings.rules(), now);
        let mut snapshot = store.snapshot(FLEET).await?;
        while let Some(chunk) = snapshot.next().await? {
            for entry in chunk {
                if let Some(key) = FleetKey::parse(&entry.key) {
                    state.apply(&key, Some(&entry.value), entry.revision);
                }
            }
        }
        let revision = snapshot.revision();
        for tree in model.load_balancers().into_iter().filter_map(|id| model.tree(id)) {
            let demand = Demand::of(&tree, &Capabilities::ALL);
            state.set_tree(tree.id(), Some(&tree), demand, now);
            state.settle(&tree, now_ms());
            state.remember(&tree, &model.observation(tree.id()).carried.view);
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
            term,
            beat: Mutex::default(),
            heard: watch::Sender::new(None),
        })
    }

    /// The time by which nodes are judged. It stands still when the store has not been reached for a while, or this process did not
    /// run: a plugin that is cut off or frozen hears nobody, and must not take the nodes for dead that its successor hears.
    pub(super) fn now(&self) -> Instant {
        let now = Instant::now();
        let reached = self.term.as_ref().map_or(now, |term| now.min(term.renewed() + BELIEVED));
        self.beat_at().map_or(reached, |beat| reached.min(beat + BELIEVED))
    }

    /// Says that this process runs. One that was frozen itself has heard nobody meanwhile: the nodes' silence begins anew.
    pub(super) fn beat(&self) {
        let now = Instant::now();
        let before = self.beat.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let pause = before.map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        if pause > BELIEVED {
            tracing::warn!(?pause, "this plugin did not run for a while; its nodes are given time to return");
            self.state_mut().forgive(now);
        }
    }

    fn beat_at(&self) -> Option<Instant> {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes to the store, as long as this plugin leads.
    ///
    /// # Errors
    /// [`CommitError`]
    pub(super) async fn commit(&self, mut transaction: Transaction) -> Result<Revision, CommitError> {
        let leads = self.term.as_ref().map(|term| Compare { key: leader_key(), revision: term.revision });
        transaction.compares.extend(leads);
        self.store.commit(transaction).await
    }

    /// Takes over what another plugin stores of the nodes, until changes are missed or the store is closed.
    pub async fn follow(&self) {
        let Ok(mut changes) = self.store.watch(FLEET, self.revision).await else { return };
        while let Ok(changes) = changes.next().await {
            for change in &changes.changes {
                if let Some(key) = FleetKey::parse(&change.key) {
                    self.state_mut().apply(&key, change.value.as_deref(), changes.revision);
                }
            }
        }
    }

    /// Every later change. A receiver that lags must look at everything again.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// What nodes do for a tree, and say of its backends, now.
    pub fn view(&self, tree: &Tree, capabilities: &Capabilities) -> View {
        let Some(demand) = Demand::of(tree, capabilities) else { return View::default() };
        self.state().view(tree, &demand, self.now(), |node| self.port_name(demand.network, node))
    }

    /// Notes what a tree asks for. Answers whether it asks for something else than before, or for other backends' health.
    pub(super) fn take_demand(
        &self,
        id: Uuid,
        tree: Option<&Tree>,
        capabilities: &Capabilities,
        now: Instant,
    ) -> bool {
        let demand = tree.and_then(|tree| Demand::of(tree, capabilities));
        if demand.is_none() && self.state().demands.of(id).is_none() {
            return false;
        }
        self.state_mut().set_tree(id, tree, demand, now)
    }

    /// The ports of nodes on a logical switch.
    pub fn node_ports(&self, switch: Uuid) -> Vec<NodePort> {
        let state = self.state();
        let port = |(node, port): (&str, &super::PortRecord)| {
            NodePort::new(self.installation, switch, node, port.hosts().collect())
        };
        state.given.ports(switch).map(port).collect()
    }

    /// Whether a node has an address on a network.
    pub fn has_address(&self, network: Uuid, address: IpAddr) -> bool {
        self.state().given.has_address(network, address)
    }

    /// Something about a logical switch changed in OVN: its subnets, routers or MTU.
    pub fn network_changed(&self, switch: Uuid) {
        if self.state().demands.has(switch) {
            self.look_at(Notice::Network(switch));
        }
    }

    /// The trees on a network that ask something of nodes.
    pub fn trees_on(&self, network: Uuid) -> Vec<Uuid> {
        self.state().demands.on(network).collect()
    }

    /// What `look` makes of each node, in the order of their ids.
    pub fn nodes<T>(&self, mut look: impl FnMut(&str, &Node) -> T) -> Vec<T> {
        self.state().nodes().map(|(id, node)| look(id, node)).collect()
    }

    /// What `look` makes of a node; `None`: there is none.
    pub fn node<T>(&self, id: &str, look: impl FnOnce(&Node) -> T) -> Option<T> {
        self.state().node(id).map(look)
    }

    /// On how many networks a node has a port.
    pub fn networks_of(&self, node: &str) -> usize {
        self.state().given.networks_of(node).count()
    }

    /// How far a node has got rid of the networks that are to leave it.
    pub fn moves_of(&self, node: &str) -> Moves {
        self.state().moves_of(node, Now { at: self.now(), ms: now_ms() })
    }

    /// What each node says of a backend.
    pub fn verdicts_of(&self, backend: Uuid) -> Vec<(String, Verdict)> {
        let state = self.state();
        state.verdicts.of(backend).map(|(node, verdict)| (node.to_owned(), verdict.clone())).collect()
    }

    /// Asks the controller to look at all trees, and all networks on which nodes have or should have a port.
    pub fn look_at_everything(&self) {
        let networks: Vec<Uuid> = {
            let state = self.state();
            state.demands.networks().chain(state.given.networks()).collect()
        };
        let mut dirty = self.dirty();
        dirty.trees.extend(self.model.load_balancers());
        dirty.networks.extend(networks);
        drop(dirty);
        self.wake.notify_one();
    }

    /// Asks the controller to look at something.
    pub(super) fn look_at(&self, notice: Notice) {
        match notice {
            Notice::Tree(id) => self.dirty().trees.insert(id),
            Notice::Network(id) => self.dirty().networks.insert(id),
        };
        self.wake.notify_one();
    }

    /// Asks the controller to give what is needed on networks.
    pub(super) fn want(&self, networks: impl IntoIterator<Item = Uuid>) {
        self.dirty().wanting.extend(networks);
        self.wake.notify_one();
    }

    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what must be looked at.
    pub(super) fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut *self.dirty())
    }

    /// Tells those who listen.
    pub(super) fn notify(&self, notice: Notice) {
        // Nobody listening is no failure.
        let _ = self.notices.send(notice);
    }

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn port_name(&self, network: Uuid, node: &str) -> String {
        NodePort::new(self.installation, network, node, Vec::new()).name
    }

    /// What the connected OVN can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        let schema = self.northbound.schema();
        schema.map_or(Capabilities::ALL, |schema| Capabilities::of(&schema, &self.northbound.read()))
    }

    /// The VIPs that nodes hold in turn on the networks of a node, by the id that the node knows them by.
    pub(super) fn direct_vips(&self, node: &str) -> BTreeMap<Uuid, (Uuid, IpAddr)> {
        let state = self.state();
        let trees = state.given.networks_of(node).flat_map(|network| state.demands.on(network));
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

    /// What a node counts as that nothing was heard of for 3 s, by a plugin that reached the store so long ago.
    async fn liveness(reached_ago: Duration) -> Liveness {
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        let fleet = fleet_of(|_| {}, Some(Term::example(Revision(1), ago(reached_ago)))).await;
        join(&fleet, &["a"]);
        let mut state = fleet.state_mut();
        let node = state.speaker("a", 1).unwrap();
        (node.heard.connected, node.heard.last) = (false, Some(ago(Duration::from_secs(3))));
        node.heard.liveness(fleet.now())
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
        assert!(dirty.trees.is_empty() && dirty.networks.is_empty() && dirty.wanting.is_empty());
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
            let node = state.speaker("a", 1).unwrap();
            (node.heard.connected, node.heard.last) = (false, Some(ago(Duration::from_secs(5))));
        };
        wake(&fleet);
        assert!(fleet.state_mut().bury(fleet.now()).is_empty(), "before it knows that it was frozen");
        fleet.beat();
        assert!(fleet.state_mut().bury(fleet.now()).is_empty(), "and after");
        wake(&fleet);
        assert_eq!(fleet.state_mut().bury(fleet.now()), ["a"], "one that is silent while it runs");
    }
}
