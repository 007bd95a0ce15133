//! Readiness of the plugin, for `/readyz`: store, catalog and listeners. Followers are as ready as the leader.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use fiberlb_daemon::admin::{BoxFuture, Readiness, Unready};
use fiberlb_daemon::listen::Listeners;
use fiberlb_store::Store;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::resources::installation_key;

/// Longest wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// Age up to which a look at the store serves the next question too: questions must not load it.
const FRESH: Duration = Duration::from_secs(1);

/// Readiness of this process, filled in while it starts.
#[derive(Default)]
pub(crate) struct PluginReadiness {
    store: OnceLock<Arc<dyn Store>>,
    /// Time and outcome of the last look at the store.
    looked: Mutex<Option<(Instant, Option<String>)>>,
    is_loaded: AtomicBool,
    listeners: Listeners,
}

impl PluginReadiness {
    /// Readiness of a process with these listeners, of which nothing is ready yet.
    pub(crate) fn new(listeners: Listeners) -> Self {
        Self { listeners, ..Self::default() }
    }

    /// Notes that the store is open.
    pub(crate) fn opened(&self, store: Arc<dyn Store>) {
        // There is one in a process.
        let _ = self.store.set(store);
    }

    /// Notes that the catalog holds what is stored.
    pub(crate) fn loaded(&self) {
        self.is_loaded.store(true, Relaxed);
    }

    /// Reason why the store is not of use.
    async fn store_obstacle(&self) -> Option<String> {
        let Some(store) = self.store.get() else { return Some("it is not open yet".to_owned()) };
        let mut looked = self.looked.lock().await;
        if let Some((at, obstacle)) = &*looked
            && at.elapsed() < FRESH
        {
            return obstacle.clone();
        }
        let obstacle = match timeout(STORE_TIMEOUT, store.get(&installation_key())).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", STORE_TIMEOUT.as_secs())),
        };
        *looked = Some((Instant::now(), obstacle.clone()));
        obstacle
    }
}

impl Readiness for PluginReadiness {
    fn unready(&self) -> BoxFuture<'_, Vec<Unready>> {
        Box::pin(async {
            let store = self.store_obstacle().await.map(|reason| Unready::new("store", reason));
            let is_loaded = self.is_loaded.load(Relaxed);
            let catalog = (!is_loaded).then(|| Unready::new("catalog", "it is not loaded yet"));
            let listeners = self.listeners.obstacles();
            let listeners =
                listeners.into_iter().map(|(name, reason)| Unready::new(format!("listener {name}"), reason));
            store.into_iter().chain(catalog).chain(listeners).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fiberlb_store::MemoryStore;

    async fn unready(readiness: &PluginReadiness) -> Vec<String> {
        readiness.unready().await.into_iter().map(|unready| unready.part).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_is_named_until_it_is_ready() {
        let listeners = Listeners::default();
        let readiness = PluginReadiness::new(listeners.clone());
        assert_eq!(unready(&readiness).await, ["store", "catalog"]);
        let store = Arc::new(MemoryStore::default());
        readiness.opened(Arc::clone(&store) as _);
        listeners.declare("api");
        assert_eq!(unready(&readiness).await, ["catalog", "listener api"]);
        readiness.loaded();
        assert_eq!(unready(&readiness).await, ["listener api"]);
        store.close().await;
        assert_eq!(unready(&readiness).await, ["listener api"], "the last look is fresh");
        tokio::time::advance(FRESH).await;
        assert_eq!(unready(&readiness).await, ["store", "listener api"]);
    }
}
