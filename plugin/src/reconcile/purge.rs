//! Removal of deleted records from the store, once OVN has no rows of them. Runs beside the reconcile loop,
//! so that a slow store holds up no other change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::catalog::{WriteError, Writer};
use crate::resources::Tree;

/// Most trees that are written concurrently.
const CONCURRENT: usize = 16;

/// Trees whose deleted records are to be removed.
pub(super) struct Purge {
    writer: Arc<Writer>,
    /// By load balancer, as last observed without rows in OVN.
    pending: Mutex<BTreeMap<Uuid, Arc<Tree>>>,
    wake: Notify,
    failed: mpsc::UnboundedSender<Uuid>,
}

impl Purge {
    /// A purge that writes through `writer`, and a receiver of the load balancers for which it failed.
    pub(super) fn new(writer: Arc<Writer>) -> (Self, mpsc::UnboundedReceiver<Uuid>) {
        let (failed, failures) = mpsc::unbounded_channel();
        (Self { writer, pending: Mutex::default(), wake: Notify::new(), failed }, failures)
    }

    /// Requests removal of the records that `seen` marks as deleted, which frees their addresses and ports.
    pub(super) fn add(&self, seen: Arc<Tree>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(seen.id(), seen);
        self.wake.notify_one();
    }

    /// Processes requested removals; never ends.
    pub(super) async fn run(&self) {
        loop {
            self.wake.notified().await;
            let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
            stream::iter(pending.into_values())
                .for_each_concurrent(CONCURRENT, |seen| self.purge(seen))
                .await;
        }
    }

    async fn purge(&self, seen: Arc<Tree>) {
        let purged = self.writer.write(seen.id(), |current| {
            Ok::<_, WriteError>((current.and_then(|current| current.without_deleted_of(&seen)), ()))
        });
        if let Err(error) = purged.await {
            tracing::warn!(
                load_balancer = %seen.id(), %error,
                "failed to remove deleted resources from the store, after OVN has let go of them; retrying"
            );
            // The receiver is gone once the reconciler has ended: its successor enqueues everything.
            let _ = self.failed.send(seen.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalog::Model;
    use crate::resources::examples::{LOAD_BALANCER, tree};
    use crate::resources::transaction;
    use crate::store::{MemoryStore, Store as _};

    /// A store with a tree that is marked as deleted, and a writer into it.
    async fn deleted() -> (Arc<MemoryStore>, Arc<Model>, Arc<Writer>) {
        let store = Arc::new(MemoryStore::default());
        let mut tree = tree();
        Arc::make_mut(&mut tree.load_balancer).deleting = true;
        store.commit(transaction(None, Some(&tree)).unwrap()).await.unwrap();
        let model = Arc::new(Model::load(&*store).await.unwrap());
        let writer = Arc::new(Writer::new(Arc::clone(&model), Arc::clone(&store) as _, Arc::default()));
        (store, model, writer)
    }

    #[tokio::test]
    async fn what_is_deleted_goes_from_the_store() {
        let (store, model, writer) = deleted().await;
        let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
        tokio::spawn(async move { followed.follow(&*source).await });
        let (purge, _failures) = Purge::new(writer);
        purge.add(model.tree(LOAD_BALANCER).unwrap());
        let mut notices = model.subscribe();
        let gone = async {
            while model.tree(LOAD_BALANCER).is_some() {
                notices.recv().await.unwrap();
            }
        };
        tokio::select! {
            () = purge.run() => {}
            gone = tokio::time::timeout(Duration::from_secs(10), gone) => gone.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_failure_is_reported_with_its_load_balancer() {
        let (store, model, writer) = deleted().await;
        let (purge, mut failures) = Purge::new(writer);
        purge.add(model.tree(LOAD_BALANCER).unwrap());
        store.close().await;
        tokio::select! {
            () = purge.run() => {}
            failed = failures.recv() => assert_eq!(failed, Some(LOAD_BALANCER)),
        }
    }
}
