//! Election among the connections to one store in memory. A lease is never lost unless a test says so.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::election::Lease;
use super::super::{
    CommitError, Compare, Election, LEASE_TTL, Leadership, MemoryStore, Revision, Store as _, StoreError,
    Transaction, Write,
};
use super::SharedStore;

impl Election for SharedStore {
    fn campaign(&self, key: &str, value: Vec<u8>) -> BoxFuture<'_, Result<Option<Leadership>, StoreError>> {
        let key = key.to_owned();
        async move {
            let compares = vec![Compare { key: key.clone(), revision: Revision::ZERO }];
            let writes = vec![Write::Put { key: key.clone(), value }];
            match self.commit(Transaction { compares, writes }).await {
                Ok(revision) => Ok(Some(Leadership::new(revision, self.lease(key, revision)))),
                Err(CommitError::Conflict { .. }) => Ok(None),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            }
        }
        .boxed()
    }
}

impl SharedStore {
    fn lease(&self, key: String, revision: Revision) -> MemoryLease {
        let losses = self.losses.subscribe();
        let held = Some(Held { key, revision });
        MemoryLease { store: self.clone(), held, losses, renewed: watch::channel(Instant::now()).1 }
    }
}

/// Key of a lease.
#[derive(Debug)]
struct Held {
    key: String,
    revision: Revision,
}

impl Held {
    /// Removes the key, unless somebody else has removed or replaced it.
    async fn remove(self, store: &MemoryStore) {
        let compares = vec![Compare { key: self.key.clone(), revision: self.revision }];
        let writes = vec![Write::Delete { key: self.key }];
        let _ = store.commit(Transaction { compares, writes }).await;
    }
}

#[derive(Debug)]
struct MemoryLease {
    store: SharedStore,
    /// `None` once it is revoked.
    held: Option<Held>,
    losses: watch::Receiver<u32>,
    renewed: watch::Receiver<Instant>,
}

/// The store lets a lease expire that its owner did not revoke.
impl Drop for MemoryLease {
    fn drop(&mut self) {
        let store = Arc::clone(&self.store.inner);
        if let Some(held) = self.held.take() {
            tokio::spawn(async move {
                sleep(LEASE_TTL).await;
                held.remove(&store).await;
            });
        }
    }
}

impl Lease for MemoryLease {
    fn renewed(&self) -> watch::Receiver<Instant> {
        self.renewed.clone()
    }

    fn lost(&mut self) -> BoxFuture<'_, ()> {
        async {
            // The sender is gone with the test.
            let _ = self.losses.changed().await;
        }
        .boxed()
    }

    fn revoke(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            self.store.check()?;
            if let Some(held) = self.held.take() {
                held.remove(&self.store.inner).await;
            }
            Ok(())
        }
        .boxed()
    }
}
