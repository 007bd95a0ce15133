//! What is known of each checked backend: between the health checker, which tells it, the data plane's rotation, which
//! follows it at once, and the plugin and the disk, which are told of it later.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use fiberlb_proto::agent::v1;
use tokio::sync::watch;
use uuid::Uuid;

use crate::configuration::Configuration;
use crate::dataplane::Rotation;
use crate::health::{Key, Verdict};

/// A verdict on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Up or down.
    pub up: bool,
    /// Why it is down; for people.
    pub reason: String,
    /// Milliseconds since 1970, when the verdict came to be.
    pub since_ms: u64,
}

/// What is known of each checked backend. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Verdicts {
    inner: Arc<Mutex<Inner>>,
    /// Counts news.
    news: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Inner {
    backends: HashMap<Uuid, Backend>,
    /// Verdicts that came before their backends, from disk.
    early: HashMap<Uuid, Known>,
    /// Backends whose verdict the plugin has not heard of.
    unsent: BTreeSet<Uuid>,
    rotation: Rotation,
}

/// A backend that is checked.
#[derive(Debug)]
struct Backend {
    /// Verdicts on anything else are late ones.
    key: Key,
    probation: bool,
    known: Option<Known>,
}

impl Backend {
    fn in_rotation(&self) -> bool {
        self.known.as_ref().map_or(!self.probation, |known| known.up)
    }
}

impl Verdicts {
    /// Nothing but what the disk remembers of backends that will be checked again.
    #[must_use]
    pub fn new(rotation: Rotation, remembered: HashMap<Uuid, Known>) -> Self {
        let inner = Inner { backends: HashMap::new(), early: remembered, unsent: BTreeSet::new(), rotation };
        Self { inner: Arc::new(Mutex::new(inner)), news: Arc::new(watch::Sender::new(0)) }
    }

    /// Makes the checked backends those of a configuration. Call it before the health checker gets its targets.
    ///
    /// A backend that stays keeps its verdict, also where it is checked in another way from now on: a verdict gives way to
    /// a newer one, not to ignorance. One that is not checked any more counts as up.
    pub fn follow(&self, configuration: &Configuration) {
        self.lock().follow(configuration);
    }

    /// A verdict of the health checker. Returns whether it is about anything that is known of, and news.
    pub fn report(&self, verdict: &Verdict) -> bool {
        let since = verdict.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let known = Known {
            up: verdict.up,
            reason: if verdict.up { String::new() } else { verdict.reason.clone() },
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        let mut inner = self.lock();
        let changed = verdict.backends.iter().filter(|id| inner.learn(**id, &verdict.key, &known)).count();
        drop(inner);
        if changed > 0 {
            self.news.send_modify(|count| *count += 1);
        }
        changed > 0
    }

    /// Whether a backend takes connections, as far as its health goes. One that is not checked does.
    #[must_use]
    pub fn in_rotation(&self, backend: Uuid) -> bool {
        self.lock().backends.get(&backend).is_none_or(Backend::in_rotation)
    }

    /// Changes when there is news for [`Verdicts::take_unsent`].
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
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

    /// The verdicts that are new since the last call. None of them is unsent after it.
    #[must_use]
    pub fn take_unsent(&self) -> Vec<v1::Verdict> {
        let mut inner = self.lock();
        let unsent = std::mem::take(&mut inner.unsent);
        let known = |id: &Uuid| Some(to_wire(*id, inner.backends.get(id)?.known.as_ref()?));
        unsent.iter().filter_map(known).collect()
    }

    /// The verdicts on backends that are down, and the backends that no verdict has freed of their probation yet: what a
    /// restart must not forget.
    #[must_use]
    pub fn to_remember(&self) -> (HashMap<Uuid, Known>, BTreeSet<Uuid>) {
        let inner = self.lock();
        let down = |known: &&Known| !known.up;
        let known = inner.backends.iter().filter_map(|(id, backend)| Some((*id, backend.known.as_ref()?)));
        let down = known.filter(|(_, known)| down(known)).map(|(id, known)| (id, known.clone())).collect();
        let unproven =
            inner.backends.iter().filter(|(_, backend)| backend.probation && backend.known.is_none());
        (down, unproven.map(|(id, _)| *id).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn follow(&mut self, configuration: &Configuration) {
        let mut before = std::mem::take(&mut self.backends);
        for pool in configuration.pools.values().map(|item| &item.value) {
            for (backend, check) in pool.checked() {
                let key =
                    Key { network: pool.network, address: backend.monitor_address, check: check.clone() };
                let old = before.remove(&backend.id);
                let was_in = old.as_ref().map(Backend::in_rotation);
                let known = old.and_then(|old| old.known).or_else(|| self.early.remove(&backend.id));
                let new = Backend { key, probation: backend.probation, known };
                if was_in != Some(new.in_rotation()) {
                    self.rotation.set_health(backend.id, new.in_rotation());
                }
                self.backends.insert(backend.id, new);
            }
        }
        for gone in before.into_keys() {
            self.unsent.remove(&gone);
            self.rotation.set_health(gone, true);
        }
        self.early.clear();
    }

    fn learn(&mut self, id: Uuid, key: &Key, known: &Known) -> bool {
        let Some(backend) = self.backends.get_mut(&id).filter(|backend| backend.key == *key) else {
            return false;
        };
        // The same verdict again, of a target made anew or of a remembered one: since when stays as it was.
        if backend.known.as_ref().is_some_and(|old| old.up == known.up && old.reason == known.reason) {
            return false;
        }
        backend.known = Some(known.clone());
        self.rotation.set_health(id, known.up);
        self.unsent.insert(id);
        true
    }
}

fn to_wire(id: Uuid, known: &Known) -> v1::Verdict {
    let Known { up, reason, since_ms } = known.clone();
    v1::Verdict { backend_id: id.to_string(), up, reason, since_ms }
}

#[cfg(test)]
mod tests;
