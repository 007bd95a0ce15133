//! Content of the model, with its indexes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::stored::Stored;
use super::usage::VipsUsage;
use super::{LoadError, ModelNotice};
use crate::resources::{
    Identity, InTree as _, Key, Kind, LoadBalancer, Record, Tree, TreeField, every_kind, guard, is_name_key,
    of_kind, parse_head, parse_status, parse_status_part,
};
use crate::status::{Observation, StatusPart, StatusRecord};
use fiberlb_store::{Change, Revision, Value};

/// State of the model.
#[derive(Default)]
pub(super) struct ModelState {
    pub(super) trees: BTreeMap<Uuid, Arc<Tree>>,
    /// True on the leader: the observations are those of its own reconciler.
    pub(super) leads: bool,
    pub(super) observations: HashMap<Uuid, Arc<Observation>>,
    /// New observations of which nobody has been told yet.
    pub(super) transitions: Vec<Transition>,
    /// Time of the first read of the store, in milliseconds since 1970; `None`: it is being read. What was created since then has no
    /// observation that this plugin has not seen.
    pub(super) loaded_at: Option<u64>,
    /// Parts of published statuses, with the load balancer and their number.
    status_parts: BTreeMap<(Uuid, u16), StatusPart>,
    /// Load balancer of each resource below one.
    pub(super) children: BTreeMap<(Kind, Uuid), Uuid>,
    /// Load balancers by network and VIP.
    pub(super) networks: HashMap<Uuid, BTreeMap<IpAddr, Uuid>>,
    /// Load balancers by name.
    pub(super) names: HashMap<String, BTreeSet<Uuid>>,
    /// Resource that each `request_id` made, by its guard key.
    pub(super) requests: HashMap<String, (Kind, Uuid)>,
    /// Revision of the last creation with each key that is claimed for one.
    pub(super) claims: HashMap<String, Revision>,
    /// Sizes of all trees.
    pub(super) vips: VipsUsage,
}

/// Two observations of a tree, one after the other.
pub(super) struct Transition {
    pub(super) tree: Arc<Tree>,
    pub(super) before: Arc<Observation>,
    pub(super) after: Arc<Observation>,
}

/// Stored content that is applied only after the previous values of unusable records are restored.
pub(super) struct Unusable {
    /// Parents first.
    records: Vec<(Key, Value)>,
    heads: Vec<(Uuid, Revision)>,
    statuses: Vec<(Uuid, Value)>,
}

impl ModelState {
    /// Decodes everything that is stored.
    ///
    /// # Errors
    /// [`LoadError`], naming the key that cannot be used.
    pub(super) fn of(stored: Stored) -> Result<Self, LoadError> {
        let mut state = Self { claims: stored.claims, ..Self::default() };
        for (key, value) in stored.records.into_values().flatten() {
            state.put(&key, &value)?;
        }
        state.set_status_parts(&stored.status_parts);
        state.set_heads_and_statuses(stored.heads, &stored.statuses);
        state.measure_all();
        Ok(state)
    }

    /// Decodes what is usable, and returns the rest separately.
    pub(super) fn of_usable(stored: Stored) -> (Self, Unusable) {
        let (mut state, mut records) = (Self { claims: stored.claims, ..Self::default() }, Vec::new());
        for (key, value) in stored.records.into_values().flatten() {
            if let Err(error) = state.put(&key, &value) {
                tracing::error!(%key, %error, "ignoring unusable stored value until it is corrected");
                records.push((key, value));
            }
        }
        state.set_status_parts(&stored.status_parts);
        (state, Unusable { records, heads: stored.heads, statuses: stored.statuses })
    }

    /// Keeps the values of `before` for records that cannot be used, and on the leader its observations.
    pub(super) fn take_over(&mut self, before: &Self, unusable: Unusable) {
        (self.leads, self.loaded_at) = (before.leads, before.loaded_at);
        // Parents come first; a child of a restored record may be usable itself.
        for (key, value) in unusable.records {
            if self.put(&key, &value).is_ok() {
                continue;
            }
            if let Some(Err(error)) = before.stored_form(&key).map(|value| self.put(&key, &value)) {
                tracing::error!(%key, %error, "previous value is unusable too; dropping it");
            }
        }
        let published: BTreeSet<Uuid> = unusable.statuses.iter().map(|(id, _)| *id).collect();
        for (id, seen) in &before.observations {
            let Some(tree) = self.trees.get(id) else { continue };
            // What this plugin observed while it led, and did not publish, counts as far as it went.
            let kept = if self.leads || published.contains(id) {
                Arc::clone(seen)
            } else {
                Arc::new(Observation::default().after(seen, tree))
            };
            self.observations.insert(*id, kept);
        }
        self.set_heads_and_statuses(unusable.heads, &unusable.statuses);
        self.measure_all();
    }

    fn measure_all(&mut self) {
        for id in self.trees.keys().copied().collect::<Vec<_>>() {
            self.measure(id);
        }
    }

    /// Measures a tree that has changed, or is gone.
    pub(super) fn measure(&mut self, id: Uuid) {
        self.vips.set(id, self.trees.get(&id).map(AsRef::as_ref));
    }

    fn set_heads_and_statuses(&mut self, heads: Vec<(Uuid, Revision)>, statuses: &[(Uuid, Value)]) {
        for (id, revision) in heads {
            self.set_head(id, revision);
        }
        for (id, value) in statuses {
            self.set_status(*id, value);
        }
    }

    fn set_status_parts(&mut self, parts: &[(Uuid, u16, Value)]) {
        for (id, part, value) in parts {
            self.set_status_part(*id, *part, Some(value));
        }
    }

    /// Stored form of a record in this state.
    fn stored_form(&self, key: &Key) -> Option<Vec<u8>> {
        let (kind, id) = (key.kind(), key.id());
        let tree = self.trees.get(&self.root_of(kind, id)?)?;
        of_kind!(kind, T => T::find(tree, id).and_then(|record| record.encode().ok()))
    }

    /// Applies one change and adds its notices to `touched`.
    pub(super) fn apply(
        &mut self,
        change: &Change,
        revision: Revision,
        touched: &mut BTreeSet<ModelNotice>,
    ) -> Result<(), LoadError> {
        if let Some(id) = parse_head(&change.key) {
            self.set_head(id, revision);
            touched.insert(ModelNotice::Specification(id));
            return Ok(());
        }
        if let Some(id) = parse_status(&change.key) {
            if change.value.as_ref().is_some_and(|value| self.set_status(id, value)) {
                touched.insert(ModelNotice::Observation(id));
            }
            return Ok(());
        }
        if let Some((id, part)) = parse_status_part(&change.key) {
            self.set_status_part(id, part, change.value.as_ref());
            return Ok(());
        }
        if is_name_key(&change.key) {
            match &change.value {
                Some(_) => self.claims.insert(change.key.clone(), revision),
                None => self.claims.remove(&change.key),
            };
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

    /// Keeps an observation of a tree. Returns true if it changed something.
    pub(super) fn observe(&mut self, id: Uuid, observation: Observation) -> bool {
        let Some(tree) = self.trees.get(&id) else { return false };
        let before = self.observations.get(&id);
        let observation = match before {
            Some(before) => observation.after(before, tree),
            None => observation,
        };
        if before.is_some_and(|before| before.is_same(&observation)) {
            return false;
        }
        let after = Arc::new(observation);
        let is_new = self.loaded_at.is_some_and(|at| tree.load_balancer.created_at > at);
        if let Some(before) = before.cloned().or_else(|| is_new.then(Arc::default)) {
            self.transitions.push(Transition { tree: Arc::clone(tree), before, after: Arc::clone(&after) });
        }
        self.observations.insert(id, after);
        true
    }

    /// Stores the observation that the leader published. Returns true if it changed something.
    fn set_status(&mut self, id: Uuid, value: &[u8]) -> bool {
        if self.leads {
            return false;
        }
        let Some(tree) = self.trees.get(&id) else { return false };
        let record = match StatusRecord::decode(value) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(load_balancer = %id, %error, "ignoring unusable published status until the next one");
                return false;
            }
        };
        let parts: Vec<&StatusPart> =
            (0..record.parts).map_while(|part| self.status_parts.get(&(id, part))).collect();
        if parts.len() < usize::from(record.parts) {
            tracing::warn!(load_balancer = %id, "ignoring published status without all its parts until the next one");
            return false;
        }
        let record = record.joined(parts);
        // A record of another revision is about to be replaced. Without anything else it says what was in force before.
        let is_first = !self.observations.contains_key(&id);
        let older = || record.restore_older(tree).filter(|_| is_first);
        record.restore(tree).or_else(older).is_some_and(|observation| self.observe(id, observation))
    }

    /// Keeps a part of a status, which is published in one transaction with the status and stands before it.
    fn set_status_part(&mut self, id: Uuid, part: u16, value: Option<&Value>) {
        match value.map(|value| StatusPart::decode(value)) {
            Some(Ok(decoded)) => drop(self.status_parts.insert((id, part), decoded)),
            Some(Err(error)) => {
                tracing::warn!(load_balancer = %id, part, %error, "ignoring unusable part of a published status");
            }
            None => drop(self.status_parts.remove(&(id, part))),
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
            Key::Child { kind, parent, .. } => {
                of_kind!(*kind, T => self.put_child::<T>(key, *parent, value), root => self.put_root(key, value))
            }
        }
    }

    /// The load balancer that a resource stands below, or is.
    pub(super) fn root_of(&self, kind: Kind, id: Uuid) -> Option<Uuid> {
        if kind == Kind::LoadBalancer { Some(id) } else { self.children.get(&(kind, id)).copied() }
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

    fn put_child<T: TreeField>(&mut self, key: &Key, parent: Uuid, value: &[u8]) -> Result<(), LoadError> {
        let record: Record<T> = decode(key, value)?;
        let id = record.id;
        let identity = record.identity.clone();
        let orphan = || LoadError::Orphan(key.to_string());
        let root = T::PARENT.and_then(|kind| self.root_of(kind, parent)).ok_or_else(orphan)?;
        let tree = self.trees.get_mut(&root).ok_or_else(orphan)?;
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
            Key::Child { kind, id, .. } => {
                of_kind!(*kind, T => self.remove_child::<T>(*id), root => self.remove_root(*id));
            }
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

    fn remove_child<T: TreeField>(&mut self, id: Uuid) {
        let Some(root) = self.children.remove(&(T::KIND, id)) else { return };
        let Some(tree) = self.trees.get_mut(&root) else { return };
        let tree = Arc::make_mut(tree);
        let owner = Arc::clone(&tree.load_balancer);
        if let Some(record) = T::of_mut(tree).remove(&id) {
            self.requests.forget(&owner.spec, &record.identity);
        }
    }
}

/// Removal of entries from the index of `request_id`s.
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
        every_kind!(T => for record in T::records(tree) {
            self.forget(&tree.load_balancer.spec, &record.identity);
        });
    }
}

fn decode<T: serde::Serialize + serde::de::DeserializeOwned>(
    key: &Key,
    value: &[u8],
) -> Result<Record<T>, LoadError> {
    Record::decode(value).map_err(|source| LoadError::Record { key: key.to_string(), source })
}
