//! How one of several plugins on a store is chosen.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Revision, StoreError};

/// How long a plugin that died, or is cut off, keeps others from its place. The cluster looks for expired leases twice a
/// second; with that, another one has the place within four seconds.
pub const TENURE: Duration = Duration::from_secs(3);

/// What a store that several processes share can do for them.
pub trait Election: Send + Sync {
    /// Puts `key` if it is absent, for as long as this process lives and reaches the store. `None`: it is there.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached. A key that was put all the same goes within [`TENURE`].
    fn campaign(&self, key: &str, value: Vec<u8>) -> BoxFuture<'_, Result<Option<Tenure>, StoreError>>;
}

/// A key that is there as long as this is held. Dropped, it goes within [`TENURE`].
#[derive(Debug)]
pub struct Tenure {
    revision: Revision,
    lease: chainfire_client::Lease,
}

impl Tenure {
    pub(super) fn new(revision: Revision, lease: chainfire_client::Lease) -> Self {
        Self { revision, lease }
    }

    /// The revision that put the key: greater than that of any tenure before.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What others need to know of it.
    pub fn term(&self) -> Term {
        Term { revision: self.revision, renewed: self.lease.renewed() }
    }

    /// Waits until it is over: the store says so, or could not be reached for so long that it may be. Cancel safe.
    pub async fn over(&mut self) {
        self.lease.lost().await;
    }

    /// Removes the key.
    pub async fn resign(self) {
        if let Err(error) = self.lease.revoke().await {
            tracing::debug!(%error, "a lease is left to expire");
        }
    }
}

/// Since when, and how surely, this process has its place.
#[derive(Clone, Debug)]
pub struct Term {
    /// The revision that put the key.
    pub revision: Revision,
    renewed: watch::Receiver<tokio::time::Instant>,
}

impl Term {
    /// A term whose store was reached last at `renewed`.
    #[cfg(test)]
    pub(crate) fn example(revision: Revision, renewed: Instant) -> Self {
        Self { revision, renewed: watch::channel(renewed.into()).1 }
    }

    /// When the store was reached last, or earlier.
    pub fn renewed(&self) -> Instant {
        self.renewed.borrow().into_std()
    }
}
