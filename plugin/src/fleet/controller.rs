//! The loop of the fleet: gives nodes and listeners what they need, tells the nodes, and tells the reconciler.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use crate::catalog;
use crate::datapath::is_direct;
use crate::fleet::directory::records::{FLEET, FleetKey, NodeRecord, put, unchanged};
use crate::fleet::facade::{Dirty, Fleet, Notice};
use crate::fleet::state::Concern;
use crate::resources::{Tree, now_ms};
use crate::store::{ChangeSet, Revision, Transaction, Watch, WatchError};

/// How long the first change waits for others to be told to the nodes together.
const GATHER: Duration = Duration::from_millis(5);
/// When to try again what could not be given or written.
const RETRY: Duration = Duration::from_secs(1);

mod giving;

/// How often this process is seen to run.
const BEAT: Duration = Duration::from_millis(100);
/// Longest time of storing who nodes are before the rest is looked at: after an upgrade all of them are news.
const REGISTRATIONS: Duration = Duration::from_millis(200);
/// Pause before another look at nodes that are silent while the store is.
const DOUBT: Duration = Duration::from_millis(100);

/// The loop of a [`Fleet`].
pub struct Controller {
    fleet: Arc<Fleet>,
    changes: Watch,
    notices: broadcast::Receiver<catalog::Notice>,
    live: watch::Receiver<fiberlb_ovn::ovsdb::client::ConnectionStatus>,
    retry_at: Option<Instant>,
    /// Networks on which something could not be given.
    retry: BTreeSet<Uuid>,
    /// Deaths of nodes are not looked at again before: it was not sure that this plugin would hear them.
    doubted_until: Option<Instant>,
    /// What ended the store's changes.
    broken: Option<WatchError>,
}

impl Controller {
    /// The loop of `fleet`, which hears everything from now on.
    ///
    /// # Errors
    /// The store cannot be watched.
    pub async fn new(fleet: Arc<Fleet>) -> Result<Self, WatchError> {
        let changes = fleet.store.watch(FLEET, fleet.revision).await?;
        let notices = fleet.model.subscribe();
        let live = fleet.northbound.status();
        fleet.heard.send_replace(Some(fleet.revision));
        Ok(Self {
            fleet,
            changes,
            notices,
            live,
            retry_at: None,
            retry: BTreeSet::new(),
            doubted_until: None,
            broken: None,
        })
    }

    /// Runs until `stop` says so or the store is closed.
    ///
    /// # Errors
    /// The store's change stream broke.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), WatchError> {
        let fleet = Arc::clone(&self.fleet);
        let beat = async {
            loop {
                fleet.beat();
                tokio::time::sleep(BEAT).await;
            }
        };
        tokio::select! {
            biased;
            () = beat => Ok(()),
            ended = self.work_on(stop) => ended,
        }
    }

    async fn work_on(mut self, mut stop: watch::Receiver<bool>) -> Result<(), WatchError> {
        self.fleet.look_at_everything();
        let stopped = async move {
            // An error means that whoever could stop us is gone: stop too.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(stopped);
        loop {
            if let Some(error) = self.broken.take().filter(|error| *error != WatchError::Closed) {
                return Err(error);
            }
            let timer = self.next_time();
            tokio::select! {
                () = &mut stopped => return Ok(()),
                changes = self.changes.next() => match changes {
                    Ok(changes) => self.stored(&changes),
                    Err(WatchError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                },
                notice = self.notices.recv() => self.notice(&notice),
                Ok(()) = self.live.changed() => self.connected(),
                () = self.fleet.wake.notified() => self.work().await,
                () = sleep_until(timer) => self.time_passed(),
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let state = self.fleet.state();
        let doubted = |at: Instant| self.doubted_until.map_or(at, |until| at.max(until));
        let [death, moves] = [state.next_death(), state.next_move()].map(|at| at.map(doubted));
        [self.retry_at, death, moves].into_iter().flatten().min()
    }

    /// The northbound database came back: what it can do, and what networks look like, may have changed.
    fn connected(&self) {
        if self.live.borrow().is_live() {
            self.fleet.look_at_everything();
        }
    }

    fn notice(&self, notice: &Result<catalog::Notice, broadcast::error::RecvError>) {
        match notice {
            Ok(catalog::Notice::Specification(id)) => self.fleet.look_at(Notice::Tree(*id)),
            Ok(catalog::Notice::Observation(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.fleet.look_at_everything(),
        }
    }

    /// What the store says.
    fn stored(&self, changes: &ChangeSet) {
        for change in &changes.changes {
            let Some(key) = FleetKey::parse(&change.key) else { continue };
            let concern = self.fleet.state_mut().apply(&key, change.value.as_deref(), changes.revision);
            match concern {
                Concern::All => self.fleet.look_at_everything(),
                Concern::Network(network) => self.fleet.look_at(Notice::Network(network)),
                Concern::Tree(tree) => {
                    self.fleet.look_at(Notice::Tree(tree));
                    self.fleet.notify(Notice::Tree(tree));
                }
                Concern::Nothing => {}
            }
        }
        self.fleet.heard.send_replace(Some(changes.revision));
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.fleet.want(std::mem::take(&mut self.retry));
        }
        let believed = self.fleet.now();
        self.doubted_until = (believed < now).then(|| now + DOUBT);
        let died = self.fleet.state_mut().bury(believed);
        for node in &died {
            let networks = self.look_at_networks_of(node);
            tracing::warn!(
                node,
                networks,
                "nothing was heard of a proxy node for too long; it is taken out of OVN's rows until it returns"
            );
        }
        let gone = self.fleet.state_mut().give_up(believed);
        for node in &gone {
            let networks = self.look_at_networks_of(node);
            tracing::warn!(node, networks, "a proxy node does not return; its networks move to others");
        }
    }

    /// Answers how many there are.
    fn look_at_networks_of(&self, node: &str) -> usize {
        let networks: Vec<Uuid> = self.fleet.state().given.networks_of(node).collect();
        for network in &networks {
            self.fleet.look_at(Notice::Network(*network));
        }
        networks.len()
    }

    async fn work(&mut self) {
        tokio::time::sleep(GATHER).await;
        self.register().await;
        // What the database can do decides what is asked for: nothing is given or taken back on a guess of it. Once there is
        // a connection, everything is looked at.
        let is_live = self.fleet.northbound.is_live();
        let mut dirty = self.fleet.take_dirty();
        self.take_demands(&mut dirty);
        if is_live {
            self.allocate_all(dirty.wanting.union(&dirty.networks).copied()).await;
        }
        self.hand_out(&mut dirty);
        self.fleet.publish(&dirty);
        for network in dirty.networks {
            self.fleet.notify(Notice::Network(network));
        }
        // Not for trees: the reconciler has the specification from the model, and what nodes say of one was told when they did.
    }

    /// Stores who the nodes are that are new, or have changed.
    async fn register(&mut self) {
        let until = Instant::now() + REGISTRATIONS;
        for (record, before) in self.unregistered() {
            if Instant::now() >= until {
                // Deaths are looked at, and nodes told, in between.
                return self.fleet.wake.notify_one();
            }
            let key = FleetKey::Node(record.id.clone());
            let Ok(write) = put(&key, &record) else { continue };
            // An operator may have changed its duty meanwhile.
            let transaction = Transaction { compares: vec![unchanged(&key, before)], writes: vec![write] };
            match self.fleet.commit(transaction).await {
                Ok(revision) => self.reach(revision).await,
                Err(error) => {
                    tracing::warn!(node = record.id, %error, "a proxy node could not be stored; trying again");
                    self.retry([]);
                }
            }
        }
    }

    fn unregistered(&self) -> Vec<(NodeRecord, Revision)> {
        self.fleet.state().unregistered(now_ms())
    }

    /// What the trees ask for now. A network whose trees ask for something else is looked at too.
    fn take_demands(&self, dirty: &mut Dirty) {
        let (now, capabilities) = (self.fleet.now(), self.fleet.capabilities());
        for id in &dirty.trees {
            let before = self.fleet.state().demands.of(*id).map(|demand| demand.network);
            let tree = self.fleet.model.tree(*id);
            if self.fleet.take_demand(*id, tree.as_deref(), &capabilities, now) {
                let after = self.fleet.state().demands.of(*id).map(|demand| demand.network);
                dirty.wanting.extend(before.into_iter().chain(after));
            }
            if tree.is_none() {
                self.fleet.state_mut().forget_holders(*id);
            }
        }
    }

    /// Hears the store until it has told of a revision of ours.
    async fn reach(&mut self, revision: Revision) {
        loop {
            match self.changes.next().await {
                Ok(changes) => {
                    self.stored(&changes);
                    if changes.revision >= revision {
                        return;
                    }
                }
                Err(error) => {
                    self.broken = Some(error);
                    return;
                }
            }
        }
    }

    fn retry(&mut self, networks: impl IntoIterator<Item = Uuid>) {
        self.retry.extend(networks);
        self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
    }

    /// Gives VIPs that nodes hold in turn to nodes that live.
    fn hand_out(&self, dirty: &mut Dirty) {
        let networks = dirty.networks.union(&dirty.wanting);
        let on_networks = networks.flat_map(|network| self.fleet.trees_on(*network));
        let ids: BTreeSet<Uuid> = dirty.trees.iter().copied().chain(on_networks).collect();
        let trees = ids.into_iter().filter_map(|id| self.fleet.model.tree(id));
        for tree in trees.filter(|tree| is_direct(tree) && !tree.load_balancer.deleting) {
            if self.hand_out_vips(&tree) {
                dirty.networks.insert(tree.load_balancer.spec.network);
                dirty.trees.insert(tree.id());
            }
        }
    }

    /// Answers whether a VIP moved.
    fn hand_out_vips(&self, tree: &Tree) -> bool {
        let spec = &tree.load_balancer.spec;
        let mut state = self.fleet.state_mut();
        let moved = state.hand_out(tree.id(), spec.network, &spec.vips, self.fleet.now());
        for vip in spec.vips.iter().filter(|_| moved) {
            let node = state.holder(tree.id(), *vip).unwrap_or("nobody");
            tracing::info!(load_balancer = %tree.id(), %vip, node, "the VIP is on this proxy node from now on");
        }
        moved
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Nobody waits for one that is not there.
        self.fleet.heard.send_replace(None);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
