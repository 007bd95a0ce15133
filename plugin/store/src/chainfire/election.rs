//! Keys that live as long as their owner.

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::election::{Election, LEASE_TTL, Leadership, Lease};
use super::super::{CommitError, Compare, Revision, StoreError, Transaction, Write};
use super::{ChainFireStore, Inner, commit, errors};

impl Election for ChainFireStore {
    fn campaign(&self, key: &str, value: Vec<u8>) -> BoxFuture<'_, Result<Option<Leadership>, StoreError>> {
        self.inner.campaign(key.to_owned(), value).boxed()
    }
}

impl Lease for chainfire_client::Lease {
    fn renewed(&self) -> watch::Receiver<Instant> {
        self.renewed()
    }

    fn lost(&mut self) -> BoxFuture<'_, ()> {
        self.lost().boxed()
    }

    fn revoke(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async { (*self).revoke().await.map_err(|error| errors::store(&error)) }.boxed()
    }
}

impl Inner {
    async fn campaign(&self, key: String, value: Vec<u8>) -> Result<Option<Leadership>, StoreError> {
        let lease = self.client.lease(LEASE_TTL).await.map_err(|error| errors::store(&error))?;
        let put = Transaction {
            compares: vec![Compare { key: key.clone(), revision: Revision::ZERO }],
            writes: vec![Write::Put { key, value }],
        };
        match commit::small(&self.client, &self.layout, put, Some(lease.id())).await {
            Ok(committed) => {
                let revision = Revision(committed.revision);
                self.history.announce(revision);
                Ok(Some(Leadership::new(revision, lease)))
            }
            Err(error) => {
                // If it was put after all, it must not block others.
                Leadership::new(Revision::ZERO, lease).resign().await;
                match error {
                    CommitError::Conflict { .. } => Ok(None),
                    error => Err(StoreError::Unavailable(error.to_string())),
                }
            }
        }
    }
}
