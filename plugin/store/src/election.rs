//! Leader election among the plugins on a store.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Revision, StoreError};

/// Lease time of leadership: a plugin that died, or is cut off, keeps others out for so long. The cluster
/// looks for expired leases twice a second; with that, another plugin takes over within four seconds.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

/// Election in a store that several processes share.
pub trait Election: Send + Sync {
    /// Puts `key` if it is absent, for as long as this process lives and reaches the store. `None`: it exists
    /// already.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be reached. A key that was put after all expires within [`LEASE_TTL`].
    fn campaign(&self, key: &str, value: Vec<u8>) -> BoxFuture<'_, Result<Option<Leadership>, StoreError>>;
}

/// Lease on the leader's key, kept alive in the background. When dropped, it expires by itself.
pub(super) trait Lease: Debug + Send + Sync {
    /// Time of the last contact with the store, or earlier.
    fn renewed(&self) -> watch::Receiver<tokio::time::Instant>;
    /// See [`Leadership::over`].
    fn lost(&mut self) -> BoxFuture<'_, ()>;
    /// Ends the lease: its key is removed.
    fn revoke(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// Leadership of this process: the key exists as long as this is held. When dropped, the key expires within [`LEASE_TTL`].
#[derive(Debug)]
pub struct Leadership {
    revision: Revision,
    lease: Box<dyn Lease>,
}

impl Leadership {
    pub(super) fn new(revision: Revision, lease: impl Lease + 'static) -> Self {
        Self { revision, lease: Box::new(lease) }
    }

    /// The revision that put the key: greater than that of any leadership before.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The term of this leadership, for others.
    pub fn term(&self) -> Term {
        Term { revision: self.revision, renewed: self.lease.renewed() }
    }

    /// Waits until the lease is lost: the store reports so, or was unreachable for so long that it may have expired.
    /// Cancel safe.
    pub async fn over(&mut self) {
        self.lease.lost().await;
    }

    /// Removes the key.
    pub async fn resign(self) {
        if let Err(error) = self.lease.revoke().await {
            tracing::debug!(%error, "cannot revoke lease; it expires by itself");
        }
    }
}

/// Leadership term of this process: its first revision, and the last contact with the store.
#[derive(Clone, Debug)]
pub struct Term {
    /// The revision that put the key.
    pub revision: Revision,
    renewed: watch::Receiver<tokio::time::Instant>,
}

impl Term {
    /// A term whose store was reached last at `renewed`.
    #[cfg(any(test, feature = "test-support"))]
    pub fn example(revision: Revision, renewed: Instant) -> Self {
        Self { revision, renewed: watch::channel(renewed.into()).1 }
    }

    /// Time of the last contact with the store, or earlier.
    pub fn renewed(&self) -> Instant {
        self.renewed.borrow().into_std()
    }
}
