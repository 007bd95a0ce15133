//! Table of the targets by number and by key, with their states. Pure.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::observe::{Doubt, TargetState};
use super::report::{Target, TargetKey};
use super::schedule::Id;

/// Every target, each once.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<Id, TargetEntry>,
    ids: HashMap<TargetKey, Id>,
    next: Id,
}

/// A target and its state.
#[derive(Debug)]
pub(super) struct TargetEntry {
    pub(super) key: TargetKey,
    /// Sorted, each once.
    pub(super) backends: Vec<Uuid>,
    pub(super) state: TargetState,
    /// Probes that say nothing.
    pub(super) doubt: Doubt,
    /// As of [`Target`].
    pub(super) has_route: bool,
    /// Time of the verdict in `state`.
    pub(super) since: SystemTime,
    /// Duration of the latest conclusive probe.
    pub(super) took: Option<Duration>,
}

/// Changes made by a new set of targets.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) added: Vec<Id>,
    pub(super) removed: Vec<(Id, TargetEntry)>,
    /// Backends that now share a known target.
    pub(super) joined: Vec<(Id, Vec<Uuid>)>,
}

impl Table {
    /// Replaces the targets. Those with a known key keep their state. New ones come in no order, so that
    /// those of one pool are no neighbours in time.
    pub(super) fn replace(&mut self, targets: Vec<Target>, now: SystemTime) -> Changes {
        let wanted = merge(targets);
        let mut changes = Changes { removed: self.remove_others(&wanted), ..Changes::default() };
        for (key, Wanted { backends, has_route }) in wanted {
            let backends: Vec<Uuid> = backends.into_iter().collect();
            let id = match self.ids.get(&key).copied() {
                Some(id) => {
                    self.rejoin(id, backends, &mut changes);
                    id
                }
                None => {
                    let id = self.insert(key, backends, now);
                    changes.added.push(id);
                    id
                }
            };
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.has_route = has_route;
            }
        }
        changes
    }

    pub(super) fn get(&self, id: Id) -> Option<&TargetEntry> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut TargetEntry> {
        self.entries.get_mut(&id)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &TargetEntry> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove_others(&mut self, wanted: &HashMap<TargetKey, Wanted>) -> Vec<(Id, TargetEntry)> {
        let removed: Vec<_> = self.entries.extract_if(|_, entry| !wanted.contains_key(&entry.key)).collect();
        for (_, entry) in &removed {
            self.ids.remove(&entry.key);
        }
        removed
    }

    fn rejoin(&mut self, id: Id, backends: Vec<Uuid>, changes: &mut Changes) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.backends, backends);
        let fresh = |backend: &&Uuid| before.binary_search(backend).is_err();
        let joined: Vec<Uuid> = entry.backends.iter().filter(fresh).copied().collect();
        if !joined.is_empty() {
            changes.joined.push((id, joined));
        }
    }

    fn insert(&mut self, key: TargetKey, backends: Vec<Uuid>, now: SystemTime) -> Id {
        let id = self.next;
        self.next += 1;
        self.ids.insert(key.clone(), id);
        let (state, doubt) = (TargetState::NEW, Doubt::default());
        let entry = TargetEntry { key, backends, state, doubt, has_route: true, since: now, took: None };
        self.entries.insert(id, entry);
        id
    }
}

/// All that targets of one key say.
#[derive(Default)]
struct Wanted {
    backends: BTreeSet<Uuid>,
    has_route: bool,
}

/// One entry for each key.
fn merge(targets: Vec<Target>) -> HashMap<TargetKey, Wanted> {
    let mut merged: HashMap<TargetKey, Wanted> = HashMap::with_capacity(targets.len());
    for target in targets {
        let wanted = merged.entry(target.key).or_default();
        wanted.backends.extend(target.backends);
        wanted.has_route |= target.has_route;
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::check::{Check, CheckKind};
    use super::*;

    fn target(port: u16, fall: u32, backends: &[u128]) -> Target {
        let second = Duration::from_secs(1);
        let check = Arc::new(Check::new(CheckKind::Tcp, second, second, 1, fall).unwrap());
        let key = TargetKey { network: Uuid::nil(), address: ([192, 0, 2, 1], port).into(), check };
        Target { key, backends: backends.iter().map(|id| Uuid::from_u128(*id)).collect(), has_route: true }
    }

    fn replace(table: &mut Table, targets: Vec<Target>) -> Changes {
        table.replace(targets, SystemTime::now())
    }

    #[test]
    fn equal_targets_are_one() {
        let mut table = Table::default();
        let changes =
            replace(&mut table, vec![target(1, 3, &[1]), target(1, 3, &[2, 1]), target(1, 2, &[3])]);
        assert_eq!((changes.added.len(), table.len()), (2, 2));
        let shared = table.entries().find(|entry| entry.key.check.fall() == 3).unwrap();
        assert_eq!(shared.backends, [Uuid::from_u128(1), Uuid::from_u128(2)]);
    }

    #[test]
    fn what_stays_keeps_its_state_and_number() {
        let mut table = Table::default();
        let id = replace(&mut table, vec![target(1, 3, &[1]), target(2, 3, &[9])]).added[0];
        let entry = table.get_mut(id).unwrap();
        let port = entry.key.address.port();
        entry.state = TargetState::Up { bad: 2 };
        let changes = replace(&mut table, vec![target(port, 3, &[1, 5, 9])]);
        assert!(changes.added.is_empty());
        assert_eq!(changes.removed.len(), 1);
        assert_eq!(changes.joined[0].0, id);
        assert!(changes.joined[0].1.contains(&Uuid::from_u128(5)));
        assert_eq!(table.get(id).unwrap().state, TargetState::Up { bad: 2 });
        assert_eq!(table.ids.len(), table.len());
    }

    #[test]
    fn a_changed_check_is_another_target() {
        let mut table = Table::default();
        let old = replace(&mut table, vec![target(1, 3, &[1])]).added[0];
        let changes = replace(&mut table, vec![target(1, 4, &[1])]);
        assert_eq!(changes.removed[0].0, old);
        assert_ne!(changes.added[0], old);
    }
}
