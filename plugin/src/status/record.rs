//! Stored form of an [`Observation`], written by the leader and read by followers. Pure.
//!
//! One that is too large for a value of the store is cut: what it says of each backend is in parts of so many backends
//! each, of which a change touches one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ApplyFailure, BackendVerdict, Carried, EjectedBackend, Health, InconclusiveCheck, Observation};
use crate::resources::{InTree as _, RecordError, Tree, TreeField, checksum, each_kind, every_kind};

/// Version of the JSON form of a record that is whole.
const WHOLE: u32 = 1;
/// Version of one that is cut.
const CUT: u32 = 2;
/// Backends of one part.
const PART_BACKENDS: usize = 500;

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
    /// The other applied generations, where they are not 1: for a reader whose tree is of a later revision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    updated: BTreeMap<Uuid, u64>,
    /// Time of the last write to the tree, in milliseconds since 1970: what was made later is not in it.
    #[serde(default)]
    written_at: u64,
    /// Newest generations that were in force, where an older one or none is now, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reached: BTreeMap<Uuid, u64>,
    carried: Carried,
    /// Health of checked backends that are absent from the view: up if true, else not checked at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    others_up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<ApplyFailure>,
    /// Number of parts; 0: it is whole.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub parts: u16,
}

/// Part of a tree's record, about some of its backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusPart {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    generations: BTreeMap<Uuid, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    updated: BTreeMap<Uuid, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    reached: BTreeMap<Uuid, u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    health: BTreeMap<Uuid, Health>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    verdicts: BTreeMap<Uuid, BTreeMap<String, BackendVerdict>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    inconclusive: BTreeMap<Uuid, BTreeMap<String, InconclusiveCheck>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ejections: BTreeMap<Uuid, BTreeMap<String, EjectedBackend>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    unjudged: BTreeSet<Uuid>,
}

impl StatusPart {
    /// The same without verdicts, inconclusive checks and ejections, which are for display only.
    #[must_use]
    pub fn without_verdicts(self) -> Self {
        let (verdicts, inconclusive, ejections) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { verdicts, inconclusive, ejections, ..self }
    }

    /// Encodes the stored form, JSON.
    ///
    /// # Errors
    /// None: all its maps have text keys.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(checksum::add(serde_json::to_vec(self)?))
    }

    /// Reads its stored form.
    ///
    /// # Errors
    /// [`RecordError`] for what is malformed or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        undamaged(bytes)
    }
}

fn undamaged<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    if checksum::holds(bytes) { Ok(serde_json::from_slice(bytes)?) } else { Err(RecordError::Damaged) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// Moves the entries of `ids` to another map.
fn moved<V>(ids: &[Uuid], from: &mut BTreeMap<Uuid, V>) -> BTreeMap<Uuid, V> {
    ids.iter().filter_map(|id| from.remove_entry(id)).collect()
}

impl StatusRecord {
    /// Record of `observation` on `tree`.
    pub fn of(tree: &Tree, observation: &Observation) -> Self {
        let mut carried = Carried::clone(&observation.carried);
        let others_up = !carried.view.health.is_empty();
        let Generations { behind, updated, written_at } = generations(tree, observation.applied.as_deref());
        carried.view.health.retain(|_, health| *health != Health::Up);
        Self {
            version: WHOLE,
            head: tree.head.0,
            generations: behind,
            updated,
            written_at,
            reached: observation.reached.clone(),
            carried,
            others_up,
            failure: observation.failure.clone(),
            parts: 0,
        }
    }

    /// Cuts a record of `tree`, or of one with other backends, into parts.
    pub fn cut(mut self, tree: &Tree) -> (Self, Vec<StatusPart>) {
        let backends: Vec<Uuid> = tree.backends.keys().copied().collect();
        let parts: Vec<_> = backends.chunks(PART_BACKENDS).map(|ids| self.part(ids)).collect();
        (Self { version: CUT, parts: u16::try_from(parts.len()).unwrap_or(u16::MAX), ..self }, parts)
    }

    fn part(&mut self, ids: &[Uuid]) -> StatusPart {
        let Carried { view, unjudged, .. } = &mut self.carried;
        StatusPart {
            generations: moved(ids, &mut self.generations),
            updated: moved(ids, &mut self.updated),
            reached: moved(ids, &mut self.reached),
            health: moved(ids, &mut view.health),
            verdicts: moved(ids, &mut view.verdicts),
            inconclusive: moved(ids, &mut view.inconclusive),
            ejections: moved(ids, &mut view.ejections),
            unjudged: ids.iter().filter_map(|id| unjudged.take(id)).collect(),
        }
    }

    /// The whole record, given all its parts.
    #[must_use]
    pub fn joined<'a>(mut self, parts: impl IntoIterator<Item = &'a StatusPart>) -> Self {
        for part in parts {
            let StatusPart {
                generations,
                updated,
                reached,
                health,
                verdicts,
                inconclusive,
                ejections,
                unjudged,
            } = part.clone();
            self.generations.extend(generations);
            self.updated.extend(updated);
            self.reached.extend(reached);
            self.carried.view.health.extend(health);
            self.carried.view.verdicts.extend(verdicts);
            self.carried.view.inconclusive.extend(inconclusive);
            self.carried.view.ejections.extend(ejections);
            self.carried.unjudged.extend(unjudged);
        }
        Self { version: WHOLE, parts: 0, ..self }
    }

    /// Encodes the stored form, JSON.
    ///
    /// # Errors
    /// None: all its maps have text keys.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        Ok(checksum::add(serde_json::to_vec(self)?))
    }

    /// Reads its stored form.
    ///
    /// # Errors
    /// [`RecordError`] for what is malformed, damaged or newer.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record: Self = undamaged(bytes)?;
        if record.version > CUT { Err(RecordError::Newer(record.version)) } else { Ok(record) }
    }

    /// Observation of `tree`; `None` if the record is of another revision.
    pub fn restore(&self, tree: &Arc<Tree>) -> Option<Observation> {
        (self.head == tree.head.0).then(|| self.observation(tree, &self.generations))
    }

    /// The same where `tree` is of a later revision: what was in force before it was written.
    pub fn restore_older(&self, tree: &Arc<Tree>) -> Option<Observation> {
        if self.head >= tree.head.0 {
            return None;
        }
        let mut generations = BTreeMap::new();
        every_kind!(T => for record in T::records(tree) {
            let first = u64::from(record.created_at <= self.written_at);
            let seen = self.generations.get(&record.id).or_else(|| self.updated.get(&record.id));
            let applied = seen.copied().unwrap_or(first).min(record.generation);
            if applied != record.generation {
                generations.insert(record.id, applied);
            }
        });
        Some(self.observation(tree, &generations))
    }

    fn observation(&self, tree: &Arc<Tree>, generations: &BTreeMap<Uuid, u64>) -> Observation {
        let mut carried = self.carried.clone();
        for backend in tree.checked_backends().filter(|_| self.others_up) {
            carried.view.health.entry(backend.id).or_insert(Health::Up);
        }
        Observation {
            applied: applied(tree, generations),
            carried: Arc::new(carried),
            failure: self.failure.clone(),
            reached: self.reached.clone(),
        }
    }
}

/// Applied generations of the resources of a tree, by id.
#[derive(Default)]
struct Generations {
    /// Generations that differ from the tree's.
    behind: BTreeMap<Uuid, u64>,
    /// The others, where they are not 1.
    updated: BTreeMap<Uuid, u64>,
    /// Time of the last write to the tree.
    written_at: u64,
}

fn generations(tree: &Tree, applied: Option<&Tree>) -> Generations {
    let mut all = Generations::default();
    every_kind!(T => for record in T::records(tree) {
        let in_force = applied.and_then(|tree| T::find(tree, record.id)).map_or(0, |record| record.generation);
        match in_force {
            behind if behind != record.generation => drop(all.behind.insert(record.id, behind)),
            1 => {}
            updated => drop(all.updated.insert(record.id, updated)),
        }
        all.written_at = all.written_at.max(record.updated_at);
    });
    all
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
    use super::super::{BackendVerdict, FailureScope, Statuses};
    use super::*;
    use crate::resources::examples::{BACKENDS, LISTENER, change, tree};
    use crate::resources::{Identity, Listener, Record};
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
        assert!(text.len() < 150, "{text}");
    }

    #[test]
    fn a_damaged_record_is_refused_and_one_of_an_earlier_release_has_no_checksum() {
        let tree = Arc::new(tree());
        let mut carried = Carried::default();
        carried.view.health.insert(BACKENDS[1], Health::Down("connection refused".into()));
        let applied = Some(Arc::clone(&tree));
        let observation = Observation { applied, carried: Arc::new(carried), ..Observation::default() };
        let record = StatusRecord::of(&tree, &observation);
        let (_, parts) = record.clone().cut(&tree);
        let early = serde_json::to_vec(&record).unwrap();
        assert_eq!(StatusRecord::decode(&early).unwrap(), record);
        let flipped = |mut stored: Vec<u8>| {
            let at = stored.iter().position(u8::is_ascii_alphabetic).unwrap();
            stored[at] ^= 0x20;
            stored
        };
        let damaged = StatusRecord::decode(&flipped(record.encode().unwrap()));
        assert!(matches!(damaged, Err(RecordError::Damaged)), "{damaged:?}");
        let damaged = StatusPart::decode(&flipped(parts[0].encode().unwrap()));
        assert!(matches!(damaged, Err(RecordError::Damaged)), "{damaged:?}");
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
        let failure =
            Some(ApplyFailure { reason: "refused".into(), next_attempt_at: 5, scope: FailureScope::Changes });
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
        // As a plugin of an earlier release writes it.
        let without = format!(r#"{{"version":1,"head":{},"carried":{{"view":{{}}}}}}"#, tree.head.0);
        let read = StatusRecord::decode(without.as_bytes()).unwrap().restore(&tree).unwrap();
        assert!(read.carried.view.verdicts.is_empty());
    }

    #[test]
    fn a_record_that_is_cut_reads_the_same_and_a_flip_touches_one_part() {
        let mut tree = tree();
        let spec = tree.backends[&BACKENDS[0]].spec.clone();
        for number in 0..1200 {
            let id = Uuid::from_u128(1 << 100 | number);
            tree.backends.insert(id, Arc::new(Record::new(id, Identity::default(), spec.clone())));
        }
        let tree = Arc::new(tree);
        let ids: Vec<Uuid> = tree.backends.keys().copied().collect();
        let mut carried = Carried::default();
        for (number, id) in ids.iter().enumerate() {
            let reason = format!("refused {number}");
            let health = if number % 3 == 0 { Health::Up } else { Health::Down(reason.clone()) };
            carried.view.health.insert(*id, health);
            let verdict = BackendVerdict { up: false, reason, since_ms: 5 };
            carried.view.verdicts.insert(*id, [("n1".to_owned(), verdict)].into());
            let ejection = EjectedBackend { until_ms: 7, reason: "refused".to_owned() };
            carried.view.ejections.insert(*id, [("n1".to_owned(), ejection)].into());
        }
        carried.unjudged = ids.iter().copied().step_by(7).collect();
        let mut applied = Tree::clone(&tree);
        applied.backends.retain(|id, _| *id != ids[700]);
        let reached = [(ids[700], 1), (LISTENER, 1)].into();
        let applied = Some(Arc::new(applied));
        let mut observation =
            Observation { applied, carried: Arc::new(carried), reached, ..Observation::default() };
        let cut = |observation: &Observation| {
            let (main, parts) = StatusRecord::of(&tree, observation).cut(&tree);
            let encoded: Vec<_> = parts.iter().map(|part| part.encode().unwrap()).collect();
            (main.encode().unwrap(), encoded)
        };
        let (main, parts) = cut(&observation);
        let read: Vec<_> = parts.iter().map(|part| StatusPart::decode(part).unwrap()).collect();
        let joined = StatusRecord::decode(&main).unwrap();
        assert_eq!((usize::from(joined.parts), main.len() < 1000), (parts.len(), true));
        assert_eq!(joined.joined(&read), StatusRecord::of(&tree, &observation));
        Arc::make_mut(&mut observation.carried).view.health.insert(ids[601], Health::Up);
        let (same, flipped) = cut(&observation);
        let changed: Vec<_> = (0..parts.len()).filter(|part| parts[*part] != flipped[*part]).collect();
        assert_eq!((same, changed), (main, vec![1]));
    }

    #[test]
    fn it_is_of_one_revision_and_one_version() {
        let tree = tree();
        let record = StatusRecord::of(&tree, &Observation::default());
        let later = Arc::new(Tree { head: Revision(tree.head.0 + 1), ..tree });
        assert_eq!(record.restore(&later).map(|_| ()), None);
        let newer = br#"{"version":3,"head":1,"carried":{}}"#;
        assert!(matches!(StatusRecord::decode(newer), Err(RecordError::Newer(3))));
    }
}
