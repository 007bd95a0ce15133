//! The whole of what is stored, in memory, indexed by id: what every call is answered from.
//!
//! One task applies the store's change stream ([`Model::follow`]); everybody else reads. Beside each tree stands what the
//! reconciler last observed of it. Nothing here does IO on behalf of a reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use thiserror::Error;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use crate::reconcile::Observation;
use crate::resources::{
    Backend, HealthCheck, Identity, Key, Kind, Listener, LoadBalancer, PREFIX, Pool, Record, RecordError,
    Resource, Tree, guard, parse_head,
};
use crate::store::{Change, ChangeSet, Revision, Store, StoreError, Value, WatchError};

/// Changes that a slow subscriber may lag behind before it is told to look at everything.
const NOTICES: usize = 16 * 1024;
/// Resources that a walk takes at a time: the model is not locked for longer.
const CHUNK: usize = 256;

/// Something about one tree changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

#[derive(Default)]
struct State {
    trees: BTreeMap<Uuid, Arc<Tree>>,
    observations: HashMap<Uuid, Arc<Observation>>,
    /// Load balancer of each resource below one.
    children: BTreeMap<(Kind, Uuid), Uuid>,
    /// Load balancers by network and VIP.
    networks: HashMap<Uuid, BTreeMap<IpAddr, Uuid>>,
    /// Load balancers by name.
    names: HashMap<String, BTreeSet<Uuid>>,
    /// What each `request_id` made, by its guard key.
    requests: HashMap<String, (Kind, Uuid)>,
}

impl Model {
    /// Reads the whole store.
    ///
    /// # Errors
    /// [`LoadError`], naming the key that cannot be used. A model is whole or not at all.
    pub async fn load(store: &dyn Store) -> Result<Self, LoadError> {
        let mut snapshot = store.snapshot(PREFIX).await?;
        let mut state = State::default();
        let mut later: BTreeMap<Rank, Vec<(Key, Value)>> = BTreeMap::new();
        let mut heads = Vec::new();
        while let Some(chunk) = snapshot.next().await? {
            for entry in chunk {
                if let Some(id) = parse_head(&entry.key) {
                    heads.push((id, entry.revision));
                } else if let Some(key) = Key::parse(&entry.key) {
                    later.entry(Rank::of(&key)).or_default().push((key, entry.value));
                }
            }
        }
        for (key, value) in later.into_values().flatten() {
            state.put(&key, &value)?;
        }
        for (id, revision) in heads {
            state.set_head(id, revision);
        }
        Ok(Self {
            state: RwLock::new(state),
            revision: watch::Sender::new(snapshot.revision()),
            notices: broadcast::Sender::new(NOTICES),
        })
    }

    /// Applies the store's changes until the store is closed.
    ///
    /// # Errors
    /// The change stream broke: the model is stale from then on and the process must start anew.
    pub async fn follow(&self, store: &dyn Store) -> Result<(), WatchError> {
        let after = *self.revision.borrow();
        let mut watch = store.watch(PREFIX, after).await?;
        loop {
            match watch.next().await {
                Ok(changes) => self.apply(&changes),
                Err(WatchError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Applies one transaction's changes, all at once.
    fn apply(&self, changes: &ChangeSet) {
        let mut touched = BTreeSet::new();
        let mut state = self.write_state();
        for change in &changes.changes {
            if let Err(error) = state.apply(change, changes.revision, &mut touched) {
                tracing::error!(key = change.key, %error, "a stored value is ignored until it is put right");
            }
        }
        drop(state);
        self.revision.send_replace(changes.revision);
        for id in touched {
            self.notify(Notice::Specification(id));
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
        let root = if kind == Kind::LoadBalancer { id } else { *state.children.get(&(kind, id))? };
        state.trees.get(&root).cloned()
    }

    /// Whether any resource has this id.
    pub fn kind_of(&self, id: Uuid) -> Option<Kind> {
        let state = self.state();
        let children = [Kind::Listener, Kind::Pool, Kind::Backend, Kind::HealthCheck];
        let child = children.into_iter().find(|kind| state.children.contains_key(&(*kind, id)));
        child.or_else(|| state.trees.contains_key(&id).then_some(Kind::LoadBalancer))
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

    /// Keeps what the reconciler observed. Nobody else may.
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

/// Parents are read before what stands below them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u8);

impl Rank {
    fn of(key: &Key) -> Self {
        Self(match key {
            Key::LoadBalancer { .. } => 0,
            Key::Child { kind: Kind::Pool | Kind::Listener, .. } => 1,
            Key::Child { .. } => 2,
        })
    }
}

impl State {
    fn apply(
        &mut self,
        change: &Change,
        revision: Revision,
        touched: &mut BTreeSet<Uuid>,
    ) -> Result<(), LoadError> {
        if let Some(id) = parse_head(&change.key) {
            self.set_head(id, revision);
            touched.insert(id);
            return Ok(());
        }
        let Some(key) = Key::parse(&change.key) else { return Ok(()) };
        match &change.value {
            Some(value) => self.put(&key, value),
            None => {
                self.remove(&key);
                Ok(())
            }
        }
    }

    fn set_head(&mut self, id: Uuid, revision: Revision) {
        if let Some(tree) = self.trees.get_mut(&id) {
            Arc::make_mut(tree).head = revision;
        }
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), LoadError> {
        match key {
            Key::LoadBalancer { .. } => self.put_root(key, value),
            Key::Child { kind: Kind::Pool, parent, .. } => self.put_child::<Pool>(key, *parent, value),
            Key::Child { kind: Kind::Backend, parent, .. } => {
                self.put_child::<Backend>(key, self.root_of_pool(*parent, key)?, value)
            }
            Key::Child { kind: Kind::HealthCheck, parent, .. } => {
                self.put_child::<HealthCheck>(key, self.root_of_pool(*parent, key)?, value)
            }
            Key::Child { kind: Kind::Listener | Kind::LoadBalancer, parent, .. } => {
                self.put_child::<Listener>(key, *parent, value)
            }
        }
    }

    fn root_of_pool(&self, pool: Uuid, key: &Key) -> Result<Uuid, LoadError> {
        self.children.get(&(Kind::Pool, pool)).copied().ok_or_else(|| LoadError::Orphan(key.to_string()))
    }

    fn put_root(&mut self, key: &Key, value: &[u8]) -> Result<(), LoadError> {
        let record: Record<LoadBalancer> = decode(key, value)?;
        let id = record.id;
        let vips = self.networks.entry(record.spec.network).or_default();
        vips.extend(record.spec.vips.iter().map(|vip| (*vip, id)));
        let owner = (record.spec.org_id.clone(), record.spec.project_id.clone());
        self.remember_request(&owner, &record.identity, (Kind::LoadBalancer, id));
        self.forget_name(id);
        self.names.entry(record.spec.common.name.clone()).or_default().insert(id);
        match self.trees.get_mut(&id) {
            Some(tree) => Arc::make_mut(tree).load_balancer = Arc::new(record),
            None => {
                self.trees.insert(id, Arc::new(Tree::new(record)));
            }
        }
        Ok(())
    }

    fn forget_name(&mut self, id: Uuid) {
        let Some(tree) = self.trees.get(&id) else { return };
        let name = &tree.load_balancer.spec.common.name;
        let Some(ids) = self.names.get_mut(name) else { return };
        ids.remove(&id);
        if ids.is_empty() {
            self.names.remove(name);
        }
    }

    fn put_child<T: Resource>(&mut self, key: &Key, root: Uuid, value: &[u8]) -> Result<(), LoadError> {
        let record: Record<T> = decode(key, value)?;
        let id = record.id;
        let identity = record.identity.clone();
        let tree = self.trees.get_mut(&root).ok_or_else(|| LoadError::Orphan(key.to_string()))?;
        let owner = (tree.load_balancer.spec.org_id.clone(), tree.load_balancer.spec.project_id.clone());
        T::of_mut(Arc::make_mut(tree)).insert(id, Arc::new(record));
        self.children.insert((T::KIND, id), root);
        self.remember_request(&owner, &identity, (T::KIND, id));
        Ok(())
    }

    fn remember_request(
        &mut self,
        (org_id, project_id): &(String, String),
        identity: &Identity,
        made: (Kind, Uuid),
    ) {
        if let Some((request, _)) = &identity.request {
            self.requests.insert(guard::request(org_id, project_id, request), made);
        }
    }

    fn remove(&mut self, key: &Key) {
        match key {
            Key::LoadBalancer { id, .. } => self.remove_root(*id),
            Key::Child { kind: Kind::Pool, id, .. } => self.remove_child::<Pool>(*id),
            Key::Child { kind: Kind::Backend, id, .. } => self.remove_child::<Backend>(*id),
            Key::Child { kind: Kind::HealthCheck, id, .. } => self.remove_child::<HealthCheck>(*id),
            Key::Child { id, .. } => self.remove_child::<Listener>(*id),
        }
    }

    fn remove_root(&mut self, id: Uuid) {
        self.forget_name(id);
        let Some(tree) = self.trees.remove(&id) else { return };
        self.observations.remove(&id);
        for (kind, child) in tree.children() {
            self.children.remove(&(kind, child));
        }
        let spec = &tree.load_balancer.spec;
        if let Some(vips) = self.networks.get_mut(&spec.network) {
            for vip in &spec.vips {
                vips.remove(vip);
            }
            if vips.is_empty() {
                self.networks.remove(&spec.network);
            }
        }
        self.requests.retain_made(&tree);
    }

    fn remove_child<T: Resource>(&mut self, id: Uuid) {
        let Some(root) = self.children.remove(&(T::KIND, id)) else { return };
        let Some(tree) = self.trees.get_mut(&root) else { return };
        let tree = Arc::make_mut(tree);
        let owner = Arc::clone(&tree.load_balancer);
        if let Some(record) = T::of_mut(tree).remove(&id) {
            self.requests.forget(&owner.spec, &record.identity);
        }
    }
}

/// Forgetting what a `request_id` made.
trait Requests {
    fn forget(&mut self, owner: &LoadBalancer, identity: &Identity);
    fn retain_made(&mut self, tree: &Tree);
}

impl Requests for HashMap<String, (Kind, Uuid)> {
    fn forget(&mut self, owner: &LoadBalancer, identity: &Identity) {
        if let Some((request, _)) = &identity.request {
            self.remove(&guard::request(&owner.org_id, &owner.project_id, request));
        }
    }

    fn retain_made(&mut self, tree: &Tree) {
        fn below<T: Resource>(requests: &mut HashMap<String, (Kind, Uuid)>, tree: &Tree) {
            for record in T::of(tree).values() {
                requests.forget(&tree.load_balancer.spec, &record.identity);
            }
        }
        self.forget(&tree.load_balancer.spec, &tree.load_balancer.identity);
        below::<Listener>(self, tree);
        below::<Pool>(self, tree);
        below::<Backend>(self, tree);
        below::<HealthCheck>(self, tree);
    }
}

fn decode<T: serde::Serialize + serde::de::DeserializeOwned>(
    key: &Key,
    value: &[u8],
) -> Result<Record<T>, LoadError> {
    Record::decode(value).map_err(|source| LoadError::Record { key: key.to_string(), source })
}
