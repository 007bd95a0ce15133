//! Verdicts on checked backends: received from the health checker, applied to the data plane's rotation at
//! once, and passed on to the plugin and the disk.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fiberlb_proto::agent::v1;
use tokio::sync::watch;
use uuid::Uuid;

use crate::configuration::Configuration;
use crate::dataplane::Rotation;
use crate::health::{InconclusiveCheck, TargetKey, Verdict};

/// A verdict on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownVerdict {
    /// True if the backend is up.
    pub up: bool,
    /// Reason why it is down, for people; empty when up.
    pub reason: String,
    /// Time of the verdict, in milliseconds since 1970.
    pub since_ms: u64,
}

/// Verdicts on all checked backends. Clones are the same table.
#[derive(Clone, Debug)]
pub struct Verdicts {
    inner: Arc<Mutex<VerdictTable>>,
    /// Number of changes.
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct VerdictTable {
    backends: HashMap<Uuid, CheckedBackend>,
    /// Verdicts from disk, before their backends are known.
    stored: HashMap<Uuid, KnownVerdict>,
    /// Backends whose verdict is not sent to the plugin yet.
    unsent: BTreeSet<Uuid>,
    /// Backends of whose checks it is not sent yet that they say nothing, or say something again.
    unsent_inconclusive: BTreeSet<Uuid>,
    rotation: Rotation,
}

/// A backend that is checked.
#[derive(Debug)]
struct CheckedBackend {
    /// Its target; verdicts on another one are late.
    key: TargetKey,
    probation: bool,
    known: Option<KnownVerdict>,
    /// Reason why its probes say nothing, with the time since when, in milliseconds since 1970.
    inconclusive: Option<(String, u64)>,
}

impl CheckedBackend {
    fn in_rotation(&self) -> bool {
        self.known.as_ref().map_or(!self.probation, |known| known.up)
    }
}

impl Verdicts {
    /// Verdicts as stored on disk, for backends that will be checked again.
    #[must_use]
    pub fn new(rotation: Rotation, stored: HashMap<Uuid, KnownVerdict>) -> Self {
        let inner = VerdictTable {
            backends: HashMap::new(),
            stored,
            unsent: BTreeSet::new(),
            unsent_inconclusive: BTreeSet::new(),
            rotation,
        };
        Self { inner: Arc::new(Mutex::new(inner)), changes: Arc::new(watch::Sender::new(0)) }
    }

    /// Sets the checked backends. Call it before the health checker gets its targets.
    ///
    /// A backend that stays keeps its verdict, also where it is checked in another way from now on: a verdict
    /// is replaced by a newer one only. A backend that is no longer checked counts as up.
    pub fn set_configuration(&self, configuration: &Configuration) {
        self.lock().set_configuration(configuration);
    }

    /// Records a verdict of the health checker. Returns true if it changes that of a checked backend.
    pub fn report(&self, verdict: &Verdict) -> bool {
        let known = KnownVerdict {
            up: verdict.up,
            reason: if verdict.up { String::new() } else { verdict.reason.clone() },
            since_ms: milliseconds(verdict.at),
        };
        let mut inner = self.lock();
        let changed = verdict.backends.iter().filter(|id| inner.record(**id, &verdict.key, &known)).count();
        drop(inner);
        if changed > 0 {
            self.changes.send_modify(|count| *count += 1);
        }
        changed > 0
    }

    /// Records that probes of a target say nothing, or say something again.
    pub fn report_inconclusive(&self, check: &InconclusiveCheck) {
        let said = check.reason.clone().map(|reason| (reason, milliseconds(check.at)));
        let mut inner = self.lock();
        let VerdictTable { backends, unsent_inconclusive, .. } = &mut *inner;
        for id in &check.backends {
            if let Some(backend) = backends.get_mut(id).filter(|backend| backend.key == check.key) {
                backend.inconclusive.clone_from(&said);
                unsent_inconclusive.insert(*id);
            }
        }
        drop(inner);
        self.changes.send_modify(|count| *count += 1);
    }

    /// True if a backend takes connections, as far as its health goes. One that is not checked does.
    #[must_use]
    pub fn in_rotation(&self, backend: Uuid) -> bool {
        self.lock().backends.get(&backend).is_none_or(CheckedBackend::in_rotation)
    }

    /// Receiver that changes with the verdicts, for [`Verdicts::take_unsent`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All verdicts. None of them is unsent after it.
    #[must_use]
    pub fn take_all(&self) -> Vec<v1::Verdict> {
        let mut inner = self.lock();
        inner.unsent.clear();
        inner
            .backends
            .iter()
            .filter_map(|(id, backend)| Some(to_wire(*id, backend.known.as_ref()?)))
            .collect()
    }

    /// Verdicts that are not sent yet. None of them is unsent after it.
    #[must_use]
    pub fn take_unsent(&self) -> Vec<v1::Verdict> {
        let mut inner = self.lock();
        let unsent = std::mem::take(&mut inner.unsent);
        let known = |id: &Uuid| Some(to_wire(*id, inner.backends.get(id)?.known.as_ref()?));
        unsent.iter().filter_map(known).collect()
    }

    /// All checks whose probes say nothing. None of them is unsent after it.
    #[must_use]
    pub fn take_all_inconclusive(&self) -> Vec<v1::InconclusiveCheck> {
        let mut inner = self.lock();
        inner.unsent_inconclusive.clear();
        let doubted = inner.backends.iter().filter(|(_, backend)| backend.inconclusive.is_some());
        doubted.map(|(id, backend)| inconclusive_to_wire(*id, backend)).collect()
    }

    /// Checks of which it is not sent yet that they say nothing, or say something again. None of them is unsent after it.
    #[must_use]
    pub fn take_unsent_inconclusive(&self) -> Vec<v1::InconclusiveCheck> {
        let mut inner = self.lock();
        let unsent = std::mem::take(&mut inner.unsent_inconclusive);
        unsent.iter().filter_map(|id| Some(inconclusive_to_wire(*id, inner.backends.get(id)?))).collect()
    }

    /// State that must survive a restart: the verdicts on backends that are down, and the backends that are
    /// still in probation.
    #[must_use]
    pub fn to_store(&self) -> (HashMap<Uuid, KnownVerdict>, BTreeSet<Uuid>) {
        let inner = self.lock();
        let down = |known: &&KnownVerdict| !known.up;
        let known = inner.backends.iter().filter_map(|(id, backend)| Some((*id, backend.known.as_ref()?)));
        let down = known.filter(|(_, known)| down(known)).map(|(id, known)| (id, known.clone())).collect();
        let unproven =
            inner.backends.iter().filter(|(_, backend)| backend.probation && backend.known.is_none());
        (down, unproven.map(|(id, _)| *id).collect())
    }

    fn lock(&self) -> MutexGuard<'_, VerdictTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VerdictTable {
    fn set_configuration(&mut self, configuration: &Configuration) {
        let mut before = std::mem::take(&mut self.backends);
        for pool in configuration.pools.values().map(|item| &item.value) {
            for (backend, check) in pool.checked() {
                let key = TargetKey {
                    network: pool.network,
                    address: backend.monitor_address,
                    check: check.clone(),
                };
                let old = before.remove(&backend.id);
                let was_in = old.as_ref().map(CheckedBackend::in_rotation);
                let (known, inconclusive) = match old {
                    Some(old) if old.key == key => (old.known, old.inconclusive),
                    Some(old) => {
                        // Another target: what its probes say is to be seen.
                        if old.inconclusive.is_some() {
                            self.unsent_inconclusive.insert(backend.id);
                        }
                        (old.known, None)
                    }
                    None => (None, None),
                };
                let known = known.or_else(|| self.stored.remove(&backend.id));
                let new = CheckedBackend { key, probation: backend.probation, known, inconclusive };
                if was_in != Some(new.in_rotation()) {
                    self.rotation.set_health(backend.id, new.in_rotation());
                }
                self.backends.insert(backend.id, new);
            }
        }
        for gone in before.into_keys() {
            self.unsent.remove(&gone);
            self.unsent_inconclusive.remove(&gone);
            self.rotation.set_health(gone, true);
        }
        self.stored.clear();
    }

    fn record(&mut self, id: Uuid, key: &TargetKey, known: &KnownVerdict) -> bool {
        let Some(backend) = self.backends.get_mut(&id).filter(|backend| backend.key == *key) else {
            return false;
        };
        // The same verdict again, of a new target or of a stored verdict: its time stays.
        if backend.known.as_ref().is_some_and(|old| old.up == known.up && old.reason == known.reason) {
            return false;
        }
        backend.known = Some(known.clone());
        self.rotation.set_health(id, known.up);
        self.unsent.insert(id);
        true
    }
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn inconclusive_to_wire(id: Uuid, backend: &CheckedBackend) -> v1::InconclusiveCheck {
    let (reason, since_ms) = backend.inconclusive.clone().unwrap_or_default();
    v1::InconclusiveCheck { backend_id: id.to_string(), reason, since_ms }
}

fn to_wire(id: Uuid, known: &KnownVerdict) -> v1::Verdict {
    let KnownVerdict { up, reason, since_ms } = known.clone();
    v1::Verdict { backend_id: id.to_string(), up, reason, since_ms }
}

#[cfg(test)]
mod tests;
