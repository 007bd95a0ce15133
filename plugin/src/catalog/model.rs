//! The whole store content in memory, indexed by id; every API call is answered from it.
//!
//! One task applies the store's change stream ([`Model::follow`]); everything else only reads. Each tree is
//! kept beside the last observation of it: on the leader the reconciler's own, on a follower the one that the
//! leader published in the store. Nothing here does IO on behalf of a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use super::event_log::{EventLog, StatusEvent};
use super::shared_ids::{shared_id_text, shared_ids};
use super::state::{ModelState, Transition};
use super::stored::Stored;
use crate::resources::{Kind, PREFIX, RecordError, Tree, guard, now_ms};
use crate::status::{Observation, status_changes};
use fiberlb_store::{ChangeSet, Revision, Store, StoreError, Watch, WatchError};

/// Notices that a slow subscriber may lag behind before it must resync.
const NOTICES: usize = 16 * 1024;
/// Resources per step of a walk; the model is locked for no longer than one step.
const CHUNK: usize = 256;
/// Pause before the store is read again after a failed read.
const PAUSE: Duration = Duration::from_secs(1);

/// Something about one tree changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelNotice {
    /// Specification, written by the owner.
    Specification(Uuid),
    /// Observation by the reconciler.
    Observation(Uuid),
}

/// Failure to load the stored content into the model.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be decoded.
    #[error("the value of {key} cannot be used: {source}")]
    Record {
        /// The key, as stored.
        key: String,
        /// Defect of its value.
        source: RecordError,
    },
    /// The parent of a record is not stored.
    #[error("{0} belongs to a parent that is not stored: the store is damaged, restore it from an export")]
    Orphan(String),
}

/// The in-memory model.
pub struct Model {
    state: RwLock<ModelState>,
    /// Observation of trees without one: the same for all who compare views by their addresses.
    unobserved: Arc<Observation>,
    revision: watch::Sender<Revision>,
    notices: broadcast::Sender<ModelNotice>,
    events: Mutex<EventLog>,
    loaded_at: u64,
}

impl Model {
    /// Reads the whole store.
    ///
    /// # Errors
    /// [`LoadError`], naming the key that cannot be used. A model is whole or not at all.
    pub async fn load(store: &dyn Store) -> Result<Self, LoadError> {
        let stored = Stored::read(store).await?;
        let revision = stored.revision;
        let loaded_at = now_ms();
        let mut state = ModelState::of(stored)?;
        state.loaded_at = Some(loaded_at);
        let model = Self {
            state: RwLock::new(state),
            unobserved: Arc::default(),
            revision: watch::Sender::new(revision),
            notices: broadcast::Sender::new(NOTICES),
            events: Mutex::default(),
            loaded_at,
        };
        for (id, holders) in model.shared_ids() {
            tracing::error!(%id, "{}", shared_id_text(id, &holders));
        }
        Ok(model)
    }

    /// Ids that more than one resource has, with the load balancers of these. Looks at everything that is stored.
    pub fn shared_ids(&self) -> BTreeMap<Uuid, BTreeSet<Uuid>> {
        let trees: Vec<Arc<Tree>> = self.state().trees.values().cloned().collect();
        shared_ids(&trees)
    }

    /// Applies the store's changes until the store is closed. Resyncs from a full read after a gap in the
    /// stream.
    ///
    /// # Errors
    /// [`WatchError::Future`]: the store went back in time, as after it was restored from a backup. The
    /// process must restart.
    pub async fn follow(&self, store: &dyn Store) -> Result<(), WatchError> {
        loop {
            let after = *self.revision.borrow();
            let ended = match store.watch(PREFIX, after).await {
                Ok(watch) => self.apply_all(watch).await,
                Err(error) => error,
            };
            match ended {
                WatchError::Closed => return Ok(()),
                WatchError::Future { .. } => return Err(ended),
                _ => {}
            }
            tracing::warn!(error = %ended, "missed changes of the store; resyncing from a full read");
            while let Err(error) = self.reload(store).await {
                if error == StoreError::Closed {
                    return Ok(());
                }
                tracing::error!(%error, "failed to read the store, serving stale data; retrying");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn apply_all(&self, mut watch: Watch) -> WatchError {
        loop {
            match watch.next().await {
                Ok(changes) => self.apply(&changes),
                Err(error) => return error,
            }
        }
    }

    /// Replaces the model by everything that is stored. Unusable values keep their previous content.
    ///
    /// # Errors
    /// The store cannot be read; nothing has changed then.
    pub async fn reload(&self, store: &dyn Store) -> Result<(), StoreError> {
        let stored = Stored::read(store).await?;
        let revision = stored.revision;
        // Readers are not blocked while it is read.
        let (mut renewed, unusable) = ModelState::of_usable(stored);
        let mut state = self.write_state();
        if revision < *self.revision.borrow() {
            // The change stream has already applied a newer revision.
            return Ok(());
        }
        renewed.take_over(&state, unusable);
        let touched: BTreeSet<Uuid> = state.trees.keys().chain(renewed.trees.keys()).copied().collect();
        let gone: Vec<Uuid> = touched.iter().copied().filter(|id| !renewed.trees.contains_key(id)).collect();
        *state = renewed;
        self.publish(revision, touched.into_iter().map(ModelNotice::Specification));
        self.tell(state, &gone);
        Ok(())
    }

    /// Switches between leader and follower: observations come from this plugin's reconciler, or from the
    /// store.
    pub fn lead(&self, leads: bool) {
        self.write_state().leads = leads;
    }

    /// Applies one transaction's changes, all at once.
    fn apply(&self, changes: &ChangeSet) {
        let mut touched = BTreeSet::new();
        let mut state = self.write_state();
        if changes.revision <= *self.revision.borrow() {
            // It was applied already.
            return;
        }
        for change in &changes.changes {
            if let Err(error) = state.apply(change, changes.revision, &mut touched) {
                tracing::error!(key = change.key, %error, "ignoring unusable stored value until it is corrected");
            }
        }
        let mut gone = Vec::new();
        for notice in &touched {
            if let ModelNotice::Specification(id) = notice {
                state.measure(*id);
                gone.extend((!state.trees.contains_key(id)).then_some(*id));
            }
        }
        self.publish(changes.revision, touched);
        self.tell(state, &gone);
    }

    /// Unlocks the state, keeps what has become of statuses meanwhile, and drops the events of load balancers that are gone.
    fn tell(&self, mut state: RwLockWriteGuard<'_, ModelState>, gone: &[Uuid]) {
        let transitions = std::mem::take(&mut state.transitions);
        drop(state);
        let now = now_ms();
        for Transition { tree, before, after } in transitions {
            let changes = status_changes(&tree, &before, &after);
            if !changes.is_empty() {
                let events = changes.into_iter().map(|change| StatusEvent::new(&tree, change, now));
                let mut log = self.events();
                events.for_each(|event| log.add(tree.id(), event));
            }
        }
        if !gone.is_empty() {
            let mut log = self.events();
            gone.iter().for_each(|id| log.forget(*id));
        }
    }

    /// Tells of a new revision, while the state is locked: the next writer cannot mistake it for an older one, and who has waited
    /// for it has its notices.
    fn publish(&self, revision: Revision, notices: impl IntoIterator<Item = ModelNotice>) {
        for notice in notices {
            self.notify(notice);
        }
        self.revision.send_replace(revision);
    }

    /// Waits until the model shows everything up to `revision`.
    pub async fn reached(&self, revision: Revision) {
        // The sender lives as long as the model, so this cannot fail while somebody waits.
        let _ = self.revision.subscribe().wait_for(|current| *current >= revision).await;
    }

    /// Receiver that is notified of each newer revision that the model shows.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Subscribes to later changes. A receiver that lags must resync.
    pub fn subscribe(&self) -> broadcast::Receiver<ModelNotice> {
        self.notices.subscribe()
    }

    /// Revision of the last creation for which a key was claimed; [`Revision::ZERO`] where there was none.
    pub fn claimed(&self, key: &str) -> Revision {
        self.state().claims.get(key).copied().unwrap_or(Revision::ZERO)
    }

    /// The tree of a load balancer.
    pub fn tree(&self, load_balancer: Uuid) -> Option<Arc<Tree>> {
        self.state().trees.get(&load_balancer).cloned()
    }

    /// The tree that contains a resource.
    pub fn tree_of(&self, kind: Kind, id: Uuid) -> Option<Arc<Tree>> {
        let state = self.state();
        state.trees.get(&state.root_of(kind, id)?).cloned()
    }

    /// Kind of the resource with this id; `None` if there is none.
    pub fn kind_of(&self, id: Uuid) -> Option<Kind> {
        let state = self.state();
        let is_there =
            |kind: &Kind| state.root_of(*kind, id).is_some_and(|root| state.trees.contains_key(&root));
        Kind::ALL.iter().copied().find(is_there)
    }

    /// Up to `limit` resources of a kind in the order of their ids, from the first one after `after`, with
    /// their trees.
    fn page(&self, kind: Kind, after: Option<Uuid>, limit: usize) -> Vec<(Uuid, Arc<Tree>)> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        if kind == Kind::LoadBalancer {
            let range = state.trees.range((from, Bound::Unbounded)).take(limit);
            return range.map(|(id, tree)| (*id, Arc::clone(tree))).collect();
        }
        let first = after.map_or(Bound::Included((kind, Uuid::nil())), |id| Bound::Excluded((kind, id)));
        let range = state.children.range((first, Bound::Included((kind, Uuid::max()))));
        let trees = range.filter_map(|((_, id), root)| Some((*id, Arc::clone(state.trees.get(root)?))));
        trees.take(limit).collect()
    }

    /// All resources of a kind in the order of their ids, from the first one after `after`, with their trees.
    /// Concurrent inserts and removals may be seen or not.
    pub fn walk(&self, kind: Kind, after: Option<Uuid>) -> impl Iterator<Item = (Uuid, Arc<Tree>)> {
        let mut last = after;
        std::iter::from_fn(move || {
            let chunk = self.page(kind, last, CHUNK);
            last = chunk.last().map(|(id, _)| *id).or(last);
            (!chunk.is_empty()).then_some(chunk)
        })
        .flatten()
    }

    /// The trees of all load balancers with this name.
    pub fn named(&self, name: &str) -> Vec<Arc<Tree>> {
        let state = self.state();
        let ids = state.names.get(name).into_iter().flatten();
        ids.filter_map(|id| state.trees.get(id).cloned()).collect()
    }

    /// Ids of all load balancers.
    pub fn load_balancers(&self) -> Vec<Uuid> {
        self.state().trees.keys().copied().collect()
    }

    /// Number of load balancers, and of the resources below them.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.trees.len(), state.children.len())
    }

    /// Most bytes of `vips` that a load balancer may take in the northbound database; 0 if there is none.
    pub fn vips_bytes_of(&self, load_balancer: Uuid) -> u64 {
        self.state().vips.of(load_balancer)
    }

    /// Most bytes of `vips` that all load balancers together may take in the northbound database.
    pub fn vips_bytes(&self) -> u64 {
        self.state().vips.total()
    }

    /// The same for those of the project that has the most.
    pub fn vips_bytes_of_largest_project(&self) -> u64 {
        self.state().vips.largest_project()
    }

    /// The same for all load balancers but this one, and for those of its project.
    pub fn vips_bytes_beside(&self, tree: &Tree) -> (u64, u64) {
        self.state().vips.beside(tree)
    }

    /// Load balancers on a network, by VIP. A load balancer keeps its VIPs until OVN has no rows of it.
    pub fn vips_on(&self, network: Uuid) -> BTreeMap<IpAddr, Uuid> {
        self.state().networks.get(&network).cloned().unwrap_or_default()
    }

    /// Checks for a load balancer on a network.
    pub fn has_vips(&self, network: Uuid) -> bool {
        self.state().networks.contains_key(&network)
    }

    /// The tree of the load balancer that holds a VIP.
    pub fn vip_holder(&self, network: Uuid, address: IpAddr) -> Option<Arc<Tree>> {
        let state = self.state();
        state.trees.get(state.networks.get(&network)?.get(&address)?).cloned()
    }

    /// Checks for a load balancer that holds this VIP.
    pub fn has_vip(&self, network: Uuid, address: IpAddr) -> bool {
        self.state().networks.get(&network).is_some_and(|vips| vips.contains_key(&address))
    }

    /// Resource that a create call with this `request_id` made.
    pub fn requested(&self, org_id: &str, project_id: &str, request_id: &str) -> Option<(Kind, Uuid)> {
        self.state().requests.get(&guard::request(org_id, project_id, request_id)).copied()
    }

    /// Last observation of a load balancer; the default if there is none yet.
    pub fn observation(&self, load_balancer: Uuid) -> Arc<Observation> {
        let observed = self.state().observations.get(&load_balancer).cloned();
        observed.unwrap_or_else(|| Arc::clone(&self.unobserved))
    }

    /// Keeps an observation by this plugin's reconciler, the only caller.
    pub fn observe(&self, load_balancer: Uuid, observation: Observation) {
        let mut state = self.write_state();
        if !state.observe(load_balancer, observation) {
            return;
        }
        self.tell(state, &[]);
        self.notify(ModelNotice::Observation(load_balancer));
    }

    /// Recent changes of statuses in a load balancer's tree, the oldest first, since [`Model::loaded_at`].
    pub fn status_events(&self, load_balancer: Uuid) -> Vec<StatusEvent> {
        self.events().of(load_balancer)
    }

    /// Time of the first read of the store, in milliseconds since 1970.
    pub fn loaded_at(&self) -> u64 {
        self.loaded_at
    }

    fn events(&self) -> MutexGuard<'_, EventLog> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, notice: ModelNotice) {
        // No subscriber is no failure.
        let _ = self.notices.send(notice);
    }

    fn state(&self) -> RwLockReadGuard<'_, ModelState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, ModelState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
