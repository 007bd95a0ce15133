//! A store that lives in memory, that several plugins share, and that fails on demand, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;

use super::{
    CommitError, Election, Entry, MemoryStore, Revision, Snapshot, Store, StoreError, Transaction, Watch,
    WatchError,
};

mod election;

/// State of the connection to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It works.
    None,
    /// So many commits are refused.
    Full(u32),
    /// Commits are not answered until this is over.
    Slow,
    /// Nothing but watches works.
    Unreachable,
}

/// The store. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedStore {
    inner: Arc<MemoryStore>,
    fault: watch::Sender<StoreFault>,
    /// Number of leases that tests have revoked.
    losses: watch::Sender<u32>,
    /// Reads and commits over this connection.
    requests: Arc<AtomicU32>,
}

impl Default for SharedStore {
    fn default() -> Self {
        let fault = watch::Sender::new(StoreFault::None);
        Self { inner: Arc::default(), fault, losses: watch::Sender::default(), requests: Arc::default() }
    }
}

impl SharedStore {
    /// Another connection to the same content, with faults of its own.
    pub fn connection(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), ..Self::default() }
    }

    /// Sets the state of this connection.
    pub fn fail(&self, fault: StoreFault) {
        self.fault.send_replace(fault);
    }

    /// Makes the owner of the present lease over this connection believe that it is lost.
    pub fn lose_lease(&self) {
        self.losses.send_modify(|losses| *losses += 1);
    }

    /// Number of reads and commits over this connection.
    pub fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match *self.fault.borrow() {
            StoreFault::Unreachable => Err(StoreError::Unavailable("out of reach".to_owned())),
            _ => Ok(()),
        }
    }

    async fn check_commit(&self) -> Result<(), CommitError> {
        self.check().map_err(|error| CommitError::Unavailable(error.to_string()))?;
        let mut fault = self.fault.subscribe();
        // The sender lives as long as this store.
        let fault =
            fault.wait_for(|fault| *fault != StoreFault::Slow).await.map_or(StoreFault::None, |it| *it);
        match fault {
            StoreFault::Full(left) => {
                self.fail(if left > 1 { StoreFault::Full(left - 1) } else { StoreFault::None });
                Err(CommitError::Full("no room".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl Store for SharedStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let (checked, got) = (self.check(), self.inner.get(key));
        async { checked.and(got.await) }.boxed()
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        let (checked, snapshot) = (self.check(), self.inner.snapshot(prefix));
        async { checked.and(snapshot.await) }.boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        async {
            self.check_commit().await?;
            self.inner.commit(transaction).await
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.inner.watch(prefix, after)
    }

    fn election(&self) -> Option<&dyn Election> {
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
