//! Control loop of the fleet: allocates for nodes and listeners, publishes configurations to the nodes, and
//! notifies the reconciler.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::catalog;
use crate::datapath::is_direct;
use crate::fleet::clock::ClockRecord;
use crate::fleet::directory::records::{FLEET, FleetKey, NodeRecord, put, unchanged};
use crate::fleet::facade::{Dirty, Fleet, FleetNotice};
use crate::fleet::state::Concern;
use crate::resources::{Tree, now_ms};
use fiberlb_store::{ChangeSet, Revision, Transaction, Watch, WatchError};

/// Batching window of the first change to be published to the nodes.
const GATHER: Duration = Duration::from_millis(5);
/// Pause before a failed allocation or write is retried.
const RETRY: Duration = Duration::from_secs(1);

mod allocate;

/// Interval at which this process records that it runs.
const BEAT: Duration = Duration::from_millis(100);
/// Longest time for storing node records before other work is done: after an upgrade all of them change.
const REGISTRATIONS: Duration = Duration::from_millis(200);
/// Interval at which reports that no node repeats are dropped, and those published that had to wait; and at which shares are
/// given up.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause before silent nodes are judged again while the store is unreachable.
const RECHECK: Duration = Duration::from_millis(100);

/// The loop of a [`Fleet`].
pub struct Controller {
    fleet: Arc<Fleet>,
    changes: Watch,
    notices: broadcast::Receiver<catalog::ModelNotice>,
    live: watch::Receiver<ovsdb::client::ConnectionStatus>,
    retry_at: Option<Instant>,
    /// Networks with a failed allocation.
    retry: BTreeSet<Uuid>,
    /// Deaths of nodes are not judged before: it was unsure whether this plugin would receive their messages.
    judge_after: Option<Instant>,
    sweeps: tokio::time::Interval,
    /// Error that ended the store's change stream.
    broken: Option<WatchError>,
}

impl Controller {
    /// The loop of `fleet`, subscribed to all its inputs.
    ///
    /// # Errors
    /// The store cannot be watched.
    pub async fn new(fleet: Arc<Fleet>) -> Result<Self, WatchError> {
        let changes = fleet.store.watch(FLEET, fleet.revision).await?;
        let notices = fleet.model.subscribe();
        let live = fleet.northbound.status();
        fleet.applied.send_replace(Some(fleet.revision));
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            fleet,
            changes,
            notices,
            live,
            retry_at: None,
            retry: BTreeSet::new(),
            judge_after: None,
            sweeps,
            broken: None,
        })
    }

    /// Runs until `stop` is true or the store is closed.
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
        self.fleet.mark_all_dirty();
        let stopped = async move {
            // An error means that the sender is gone: stop too.
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
                _ = self.sweeps.tick() => {
                    self.fleet.hand_shares_over(self.fleet.now());
                    self.sweep_ejections();
                }
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let state = self.fleet.state();
        let doubted = |at: Instant| self.judge_after.map_or(at, |until| at.max(until));
        let judged = [state.next_death(), state.next_move(), state.verdicts.next_overdue()];
        judged.map(|at| at.map(doubted)).into_iter().chain([self.retry_at]).flatten().min()
    }

    /// Marks everything dirty after a reconnect to the northbound database: its capabilities and networks may
    /// have changed.
    fn connected(&self) {
        if self.live.borrow().is_live() {
            self.fleet.mark_all_dirty();
        }
    }

    fn notice(&self, notice: &Result<catalog::ModelNotice, broadcast::error::RecvError>) {
        match notice {
            Ok(catalog::ModelNotice::Specification(id)) => self.fleet.mark_dirty(FleetNotice::Tree(*id)),
            Ok(catalog::ModelNotice::Observation(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.fleet.mark_all_dirty(),
        }
    }

    /// Applies changes of the store.
    fn stored(&self, changes: &ChangeSet) {
        for change in &changes.changes {
            let Some(key) = FleetKey::parse(&change.key) else { continue };
            let now = self.fleet.now();
            let value = change.value.as_deref();
            let concern = self.fleet.state_mut().apply(&key, value, changes.revision, now);
            match concern {
                Concern::All => self.fleet.mark_all_dirty(),
                Concern::Network(network) => self.fleet.mark_dirty(FleetNotice::Network(network)),
                Concern::Tree(tree) => {
                    self.fleet.mark_dirty(FleetNotice::Tree(tree));
                    self.fleet.notify(FleetNotice::Tree(tree));
                }
                Concern::Nothing => {}
            }
        }
        self.fleet.applied.send_replace(Some(changes.revision));
    }

    fn time_passed(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.fleet.request_allocation(std::mem::take(&mut self.retry));
        }
        let believed = self.fleet.now();
        self.judge_after = (believed < now).then(|| now + RECHECK);
        let died = self.fleet.state_mut().mark_dead(believed);
        for node in &died {
            let networks = self.mark_networks_dirty(node);
            tracing::warn!(
                node,
                networks,
                "proxy node declared dead; removing it from OVN's rows until it reconnects"
            );
        }
        let judged = self.fleet.state_mut().judge_overdue(believed);
        for tree in judged {
            self.fleet.mark_judged(tree);
            self.fleet.mark_dirty(FleetNotice::Tree(tree));
            self.fleet.notify(FleetNotice::Tree(tree));
        }
        let gone = self.fleet.state_mut().mark_gone(believed);
        for node in &gone {
            let networks = self.mark_networks_dirty(node);
            tracing::warn!(node, networks, "proxy node stays dead; moving its networks to other nodes");
        }
    }

    /// Drops ejections that no node repeats, also those of nodes that never return, and has published what had to wait.
    fn sweep_ejections(&self) {
        let (trees, now) = (self.fleet.state().ejections.trees(), Instant::now());
        // Locked for each anew: what nodes leave out is theirs to say, and may be much.
        for tree in trees {
            if self.fleet.state_mut().ejections.expire(tree, now) {
                self.fleet.mark_judged(tree);
            }
        }
    }

    /// Marks the networks of a node dirty whose verdicts were dropped, and returns their number.
    fn mark_networks_dirty(&self, node: &str) -> usize {
        let networks: Vec<Uuid> = self.fleet.state().allocations.networks_of(node).collect();
        for network in &networks {
            self.fleet.mark_dirty(FleetNotice::Network(*network));
            for tree in self.fleet.trees_on(*network) {
                self.fleet.mark_judged(tree);
            }
        }
        networks.len()
    }

    async fn work(&mut self) {
        tokio::time::sleep(GATHER).await;
        self.register().await;
        // The demands depend on the capabilities of the connected OVN: nothing is allocated or released on a
        // guess of them. Once there is a connection, everything is marked dirty.
        let is_live = self.fleet.northbound.is_live();
        let mut dirty = self.fleet.take_dirty();
        self.take_demands(&mut dirty);
        if is_live {
            self.allocate_all(dirty.to_allocate.union(&dirty.networks).copied()).await;
        }
        self.store_clock().await;
        self.assign_vips(&mut dirty);
        self.fleet.publish(&dirty);
        for network in dirty.networks {
            self.fleet.notify(FleetNotice::Network(network));
        }
        // Not for trees: the reconciler gets specifications from the model, and reports of nodes are notified
        // as they arrive.
    }

    /// Stores the records of nodes that are new or have changed.
    async fn register(&mut self) {
        let until = Instant::now() + REGISTRATIONS;
        for (record, before) in self.unregistered() {
            if Instant::now() >= until {
                // Deaths are judged and nodes updated in between.
                return self.fleet.wake.notify_one();
            }
            let key = FleetKey::Node(record.id.clone());
            let Ok(write) = put(&key, &record) else { continue };
            // An operator may have changed its duty meanwhile.
            let transaction = Transaction { compares: vec![unchanged(&key, before)], writes: vec![write] };
            match self.fleet.commit(transaction).await {
                Ok(revision) => self.reach(revision).await,
                Err(error) => {
                    tracing::warn!(node = record.id, %error, "failed to store proxy node; retrying");
                    self.retry([]);
                }
            }
        }
    }

    /// Stores the fleet's clock from time to time while a port drains, so that the next leader goes on from there.
    async fn store_clock(&mut self) {
        let unstored = {
            let state = self.fleet.state();
            (!state.drains.is_empty()).then(|| state.clock.unstored(self.fleet.now())).flatten()
        };
        let Some(ms) = unstored else { return };
        let Ok(write) = put(&FleetKey::Clock, &ClockRecord::new(ms)) else { return };
        match self.fleet.commit(Transaction { compares: Vec::new(), writes: vec![write] }).await {
            Ok(revision) => self.reach(revision).await,
            Err(error) => tracing::warn!(%error, "failed to store the time of drains; retrying"),
        }
    }

    fn unregistered(&self) -> Vec<(NodeRecord, Revision)> {
        self.fleet.state().unregistered(now_ms())
    }

    /// Updates the demands of dirty trees. A network whose demands change is marked for allocation.
    fn take_demands(&self, dirty: &mut Dirty) {
        let (now, capabilities) = (self.fleet.clock(), self.fleet.capabilities());
        for id in &dirty.trees {
            let before = self.fleet.state().demands.of(*id).map(|demand| demand.network);
            if self.fleet.take_demand(*id, &capabilities, now) {
                let after = self.fleet.state().demands.of(*id).map(|demand| demand.network);
                dirty.to_allocate.extend(before.into_iter().chain(after));
                dirty.networks.extend(self.network_of_holder(*id));
            }
        }
    }

    /// Network of a load balancer whose VIPs a node holds or held: that may begin again, or end, with its demand.
    fn network_of_holder(&self, id: Uuid) -> Option<Uuid> {
        let tree = self.fleet.model.tree(id)?;
        let spec = &tree.load_balancer.spec;
        self.fleet.state().has_holder(id, &spec.vips).then_some(spec.network)
    }

    /// Applies changes of the store until they include `revision`.
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

    /// Assigns DIRECT VIPs to live nodes.
    fn assign_vips(&self, dirty: &mut Dirty) {
        let networks = dirty.networks.union(&dirty.to_allocate);
        let on_networks = networks.flat_map(|network| self.fleet.trees_on(*network));
        let ids: BTreeSet<Uuid> = dirty.trees.iter().copied().chain(on_networks).collect();
        let trees = ids.into_iter().filter_map(|id| self.fleet.model.tree(id));
        for tree in trees.filter(|tree| is_direct(tree) && !tree.load_balancer.deleting) {
            if self.assign_vips_of(&tree) {
                dirty.networks.insert(tree.load_balancer.spec.network);
                dirty.trees.insert(tree.id());
            }
        }
    }

    /// Returns true if a VIP moved.
    fn assign_vips_of(&self, tree: &Tree) -> bool {
        let spec = &tree.load_balancer.spec;
        let mut state = self.fleet.state_mut();
        let moved = state.assign_vips(tree.id(), spec.network, &spec.vips, self.fleet.now());
        for vip in spec.vips.iter().filter(|_| moved) {
            let node = state.holder(tree.id(), *vip).unwrap_or("nobody");
            tracing::info!(load_balancer = %tree.id(), %vip, node, "assigned VIP to proxy node");
        }
        moved
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Waiters return at once if no controller runs.
        self.fleet.applied.send_replace(None);
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
