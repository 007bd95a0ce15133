//! Stored form of an [`Observation`], written by the leader and read by followers. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ApplyFailure, Carried, Health, Observation};
use crate::resources::{InTree as _, RecordError, Tree, TreeField, each_kind, every_kind};

/// Version of the JSON form.
const VERSION: u32 = 1;

/// Observation of a tree at one revision of its head.
///
/// Small where all is well: applied generations that equal the desired ones, and backends that are up, are
/// left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusRecord {
    version: u32,
    /// Revision of the tree's head.
    pub head: u64,
    /// Applied generations that differ from the desired ones, by id; 0: not applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    generations: BTreeMap<Uuid, u64>,
    carried: Carried,
    /// Health of checked backends that are absent from the view: up if true, else not checked at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    others_up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<ApplyFailure>,
}

impl StatusRecord {
    /// Record of `observation` on `tree`.
    pub fn of(tree: &Tree, observation: &Observation) -> Self {
        let mut carried = Carried::clone(&observation.carried);
        let others_up = !carried.view.health.is_empty();
        carried.view.health.retain(|_, health| *health != Health::Up);
        Self {
            version: VERSION,
            head: tree.head.0,
            generations: behind(tree, observation.applied.as_deref()),
            carried,
            others_up,
            failure: observation.failure.clone(),
        }
    }

    /// The same without verdicts, which are for display only, for a tree with too many of them.
    pub fn without_verdicts(mut self) -> Self {
        self.carried.view.verdicts.clear();
        self
    }

    /// Encodes the stored form, JSON.
    ///
    /// # Errors
    /// None: all its maps have text keys.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads its stored form.
    ///
    /// # Errors
    /// [`RecordError`] for what is malformed or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = serde_json::from_slice(bytes)?;
        if record.version > VERSION { Err(RecordError::Newer(record.version)) } else { Ok(record) }
    }

    /// Observation of `tree`; `None` if the record is of another revision.
    pub fn restore(&self, tree: &Arc<Tree>) -> Option<Observation> {
        if self.head != tree.head.0 {
            return None;
        }
        let mut carried = self.carried.clone();
        for backend in tree.checked_backends().filter(|_| self.others_up) {
            carried.view.health.entry(backend.id).or_insert(Health::Up);
        }
        Some(Observation {
            applied: applied(tree, &self.generations),
            carried: Arc::new(carried),
            failure: self.failure.clone(),
        })
    }
}

/// Applied generations that differ from those of `tree`, by id.
fn behind(tree: &Tree, applied: Option<&Tree>) -> BTreeMap<Uuid, u64> {
    let mut generations = BTreeMap::new();
    every_kind!(T => for record in T::records(tree) {
        let in_force = applied.and_then(|tree| T::find(tree, record.id)).map_or(0, |record| record.generation);
        if in_force != record.generation {
            generations.insert(record.id, in_force);
        }
    });
    generations
}

/// The applied tree: `tree` with other generations of some of its records. `None`: nothing of it is applied.
fn applied(tree: &Arc<Tree>, generations: &BTreeMap<Uuid, u64>) -> Option<Arc<Tree>> {
    fn below<T: TreeField>(tree: &mut Tree, id: Uuid, generation: u64) {
        if generation == 0 {
            T::of_mut(tree).remove(&id);
        } else if let Some(record) = T::of_mut(tree).get_mut(&id) {
            Arc::make_mut(record).generation = generation;
        }
    }
    match generations.get(&tree.id()) {
        Some(0) => return None,
        None if generations.is_empty() => return Some(Arc::clone(tree)),
        _ => {}
    }
    let mut applied = Tree::clone(tree);
    for (id, generation) in generations {
        if *id == tree.id() {
            Arc::make_mut(&mut applied.load_balancer).generation = *generation;
        }
        each_kind!(T => below::<T>(&mut applied, *id, *generation));
    }
    Some(Arc::new(applied))
}

#[cfg(test)]
mod tests {
    use super::super::{BackendVerdict, Statuses};
    use super::*;
    use crate::resources::Listener;
    use crate::resources::examples::{BACKENDS, LISTENER, change, tree};
    use fiberlb_store::Revision;

    fn restored(tree: &Arc<Tree>, observation: &Observation) -> Observation {
        let record = StatusRecord::of(tree, observation);
        let read = StatusRecord::decode(&record.encode().unwrap()).unwrap();
        assert_eq!(read, record);
        read.restore(tree).unwrap()
    }

    /// Statuses of all resources that users see.
    fn seen(tree: &Tree, observation: &Observation) -> Vec<super::super::Status> {
        let statuses = Statuses::new(tree, observation, None);
        let mut all = vec![statuses.load_balancer()];
        all.extend(tree.listeners.values().map(|record| statuses.listener(record)));
        all.extend(tree.pools.values().map(|record| statuses.pool(record)));
        all.extend(tree.backends.values().map(|record| statuses.backend(record)));
        all
    }

    #[test]
    fn what_is_in_force_takes_little_room_and_reads_the_same() {
        let tree = Arc::new(tree());
        let observation = Observation { applied: Some(Arc::clone(&tree)), ..Observation::default() };
        assert_eq!(seen(&tree, &restored(&tree, &observation)), seen(&tree, &observation));
        let text = String::from_utf8(StatusRecord::of(&tree, &observation).encode().unwrap()).unwrap();
        assert!(text.len() < 100, "{text}");
    }

    #[test]
    fn backends_that_are_up_are_left_out() {
        let tree = Arc::new(tree());
        let mut carried = Carried::default();
        carried.view.health = BACKENDS.into_iter().map(|backend| (backend, Health::Up)).collect();
        carried.view.health.insert(BACKENDS[1], Health::Down("connection refused".into()));
        let applied = Some(Arc::clone(&tree));
        let observation = Observation { applied, carried: Arc::new(carried), ..Observation::default() };
        let text = String::from_utf8(StatusRecord::of(&tree, &observation).encode().unwrap()).unwrap();
        assert!(
            !text.contains(&BACKENDS[0].to_string()) && text.contains(&BACKENDS[1].to_string()),
            "{text}"
        );
        assert_eq!(restored(&tree, &observation).carried, observation.carried);
    }

    #[test]
    fn what_is_behind_reads_the_same() {
        let before = Arc::new(tree());
        let mut now = tree();
        change::<Listener>(&mut now, LISTENER, |listener| listener.port += 1);
        let record = now.listeners[&LISTENER].changed(now.listeners[&LISTENER].spec.clone());
        now.listeners.insert(LISTENER, Arc::new(record));
        now.head = Revision(7);
        let now = Arc::new(now);
        let failure = Some(ApplyFailure { reason: "refused".into(), next_attempt_at: 5 });
        let mut applied = Tree::clone(&before);
        applied.backends.remove(&BACKENDS[0]);
        let cases = [Some(before), Some(Arc::new(applied)), None];
        for applied in cases {
            let observation = Observation { applied, failure: failure.clone(), ..Observation::default() };
            assert_eq!(seen(&now, &restored(&now, &observation)), seen(&now, &observation));
        }
    }

    #[test]
    fn verdicts_are_published_and_records_without_them_are_read() {
        let tree = Arc::new(tree());
        let verdict = BackendVerdict { up: false, reason: "refused".into(), since_ms: 5 };
        let mut carried = Carried::default();
        carried.view.verdicts = [(BACKENDS[0], [("n1".to_owned(), verdict)].into())].into();
        let applied = Some(Arc::clone(&tree));
        let observation = Observation { applied, carried: Arc::new(carried), ..Observation::default() };
        assert_eq!(restored(&tree, &observation).carried, observation.carried);
        let without = StatusRecord::of(&tree, &observation).without_verdicts().encode().unwrap();
        // As a plugin of an earlier release writes it.
        assert!(!String::from_utf8(without.clone()).unwrap().contains("verdicts"));
        let read = StatusRecord::decode(&without).unwrap().restore(&tree).unwrap();
        assert!(read.carried.view.verdicts.is_empty());
    }

    #[test]
    fn it_is_of_one_revision_and_one_version() {
        let tree = tree();
        let record = StatusRecord::of(&tree, &Observation::default());
        let later = Arc::new(Tree { head: Revision(tree.head.0 + 1), ..tree });
        assert_eq!(record.restore(&later).map(|_| ()), None);
        let newer = br#"{"version":2,"head":1,"carried":{}}"#;
        assert!(matches!(StatusRecord::decode(newer), Err(RecordError::Newer(2))));
    }
}
