//! The whole of what is stored, in memory, indexed by id: what every call is answered from.
//!
//! One task applies the store's change stream ([`Model::follow`]); everybody else reads. Beside each tree stands what the
//! reconciler last observed of it: where this plugin leads by its own word, elsewhere by what the leader published in the
//! store. Nothing here does IO on behalf of a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use super::state::State;
use super::stored::Stored;
use crate::resources::{Kind, PREFIX, RecordError, Tree, guard};
use crate::status::Observation;
use crate::store::{ChangeSet, Revision, Store, StoreError, Watch, WatchError};

/// Changes that a slow subscriber may lag behind before it is told to look at everything.
const NOTICES: usize = 16 * 1024;
/// Resources that a walk takes at a time: the model is not locked for longer.
const CHUNK: usize = 256;
/// Pause before the store is read anew, when it could not be read.
const PAUSE: Duration = Duration::from_secs(1);

/// Something about one tree changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// What its owner asks for.
    Specification(Uuid),
    /// What the reconciler observed.
    Observation(Uuid),
}

/// A stored key holds what this FiberLB does not understand.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot.
    #[error("the value of {key} cannot be used: {source}")]
    Record {
        /// Where it is.
        key: String,
        /// What is wrong.
        source: RecordError,
    },
    /// A record stands below nothing.
    #[error("{0} belongs to a parent that is not stored: the store is damaged, restore it from an export")]
    Orphan(String),
}

/// The in-memory model.
pub struct Model {
    state: RwLock<State>,
    revision: watch::Sender<Revision>,
    notices: broadcast::Sender<Notice>,
}

impl Model {
    /// Reads the whole store.
    ///
    /// # Errors
    /// [`LoadError`], naming the key that cannot be used. A model is whole or not at all.
    pub async fn load(store: &dyn Store) -> Result<Self, LoadError> {
        let stored = Stored::read(store).await?;
        let revision = stored.revision;
        let state = State::of(stored)?;
        Ok(Self {
            state: RwLock::new(state),
            revision: watch::Sender::new(revision),
            notices: broadcast::Sender::new(NOTICES),
        })
    }

    /// Applies the store's changes until the store is closed. Where changes were missed, all of it is read anew.
    ///
    /// # Errors
    /// [`WatchError::Future`]: the store went back in time, as after it was restored from a backup. The process must start
    /// anew.
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
            tracing::warn!(error = %ended, "changes of the store were missed; reading all of it anew");
            while let Err(error) = self.read_anew(store).await {
                if error == StoreError::Closed {
                    return Ok(());
                }
                tracing::error!(%error, "what is answered may be old until the store can be read; trying again");
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

    /// Takes over all that is stored. What cannot be used stays as it was.
    ///
    /// # Errors
    /// The store cannot be read; nothing has changed then.
    pub async fn read_anew(&self, store: &dyn Store) -> Result<(), StoreError> {
        let stored = Stored::read(store).await?;
        let revision = stored.revision;
        // Nobody has to wait while it is read.
        let (mut renewed, unusable) = State::of_what_is_usable(stored);
        let mut state = self.write_state();
        if revision < *self.revision.borrow() {
            // The change stream was faster.
            return Ok(());
        }
        renewed.take_over(&state, unusable);
        let touched: BTreeSet<Uuid> = state.trees.keys().chain(renewed.trees.keys()).copied().collect();
        *state = renewed;
        // Told while the state is locked: whoever writes next must not take it for an older one.
        self.revision.send_replace(revision);
        drop(state);
        for id in touched {
            self.notify(Notice::Specification(id));
        }
        Ok(())
    }

    /// Says whether this plugin leads from now on: whether observations are its own, or those that the store tells.
    pub fn lead(&self, leads: bool) {
        self.write_state().leads = leads;
    }

    /// Applies one transaction's changes, all at once.
    fn apply(&self, changes: &ChangeSet) {
        let mut touched = BTreeSet::new();
        let mut state = self.write_state();
        if changes.revision <= *self.revision.borrow() {
            // It was read already.
            return;
        }
        for change in &changes.changes {
            if let Err(error) = state.apply(change, changes.revision, &mut touched) {
                tracing::error!(key = change.key, %error, "a stored value is ignored until it is put right");
            }
        }
        // As in `read_anew`.
        self.revision.send_replace(changes.revision);
        drop(state);
        for notice in touched {
            self.notify(notice);
        }
    }

    /// Waits until the model shows everything up to `revision`.
    pub async fn reached(&self, revision: Revision) {
        // The sender lives as long as the model, so this cannot fail while somebody waits.
        let _ = self.revision.subscribe().wait_for(|current| *current >= revision).await;
    }

    /// Tells when the model shows a newer revision.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Every later change. A receiver that lags must look at everything again.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// The tree of a load balancer.
    pub fn tree(&self, load_balancer: Uuid) -> Option<Arc<Tree>> {
        self.state().trees.get(&load_balancer).cloned()
    }

    /// The tree that a resource stands in.
    pub fn tree_of(&self, kind: Kind, id: Uuid) -> Option<Arc<Tree>> {
        let state = self.state();
        state.trees.get(&state.root_of(kind, id)?).cloned()
    }

    /// Whether any resource has this id.
    pub fn kind_of(&self, id: Uuid) -> Option<Kind> {
        let state = self.state();
        let is_there =
            |kind: &Kind| state.root_of(*kind, id).is_some_and(|root| state.trees.contains_key(&root));
        Kind::ALL.iter().copied().find(is_there)
    }

    /// Up to `limit` resources of a kind in the order of their ids, from the first one after `after`, with their trees.
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

    /// All resources of a kind in the order of their ids, from the first one after `after`, with their trees. What comes
    /// and goes meanwhile may be seen or not.
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

    /// Numbers of load balancers and of what is below them.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.trees.len(), state.children.len())
    }

    /// The load balancers on a network, by VIP. A load balancer keeps its VIPs until it is gone from OVN.
    pub fn vips_on(&self, network: Uuid) -> BTreeMap<IpAddr, Uuid> {
        self.state().networks.get(&network).cloned().unwrap_or_default()
    }

    /// Whether there is a load balancer on a network.
    pub fn has_vips(&self, network: Uuid) -> bool {
        self.state().networks.contains_key(&network)
    }

    /// The tree of the load balancer that holds a VIP.
    pub fn vip_holder(&self, network: Uuid, address: IpAddr) -> Option<Arc<Tree>> {
        let state = self.state();
        state.trees.get(state.networks.get(&network)?.get(&address)?).cloned()
    }

    /// Whether a load balancer holds this VIP.
    pub fn has_vip(&self, network: Uuid, address: IpAddr) -> bool {
        self.state().networks.get(&network).is_some_and(|vips| vips.contains_key(&address))
    }

    /// What a create call with this `request_id` made.
    pub fn requested(&self, org_id: &str, project_id: &str, request_id: &str) -> Option<(Kind, Uuid)> {
        self.state().requests.get(&guard::request(org_id, project_id, request_id)).copied()
    }

    /// What the reconciler last observed of a load balancer.
    pub fn observation(&self, load_balancer: Uuid) -> Arc<Observation> {
        self.state().observations.get(&load_balancer).cloned().unwrap_or_default()
    }

    /// Keeps what this plugin's reconciler observed. Nobody else may.
    pub fn observe(&self, load_balancer: Uuid, observation: Observation) {
        let mut state = self.write_state();
        if !state.trees.contains_key(&load_balancer) {
            return;
        }
        if state.observations.get(&load_balancer).is_some_and(|before| before.is_same(&observation)) {
            return;
        }
        state.observations.insert(load_balancer, Arc::new(observation));
        drop(state);
        self.notify(Notice::Observation(load_balancer));
    }

    fn notify(&self, notice: Notice) {
        // Nobody listening is no failure.
        let _ = self.notices.send(notice);
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
