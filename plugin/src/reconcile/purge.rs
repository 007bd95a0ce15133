//! Removal of deleted records from the store, once OVN has no rows of them. Runs beside the reconcile loop, so that
//! a slow store holds up no other change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fiberlb_daemon::backoff::Backoff;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::catalog::{WriteError, Writer};
use crate::resources::Tree;

/// Most trees that are written concurrently.
const CONCURRENT: usize = 16;
/// Backoff of a tree whose write failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Trees whose deleted records are to be removed.
pub(super) struct Purge {
    writer: Arc<Writer>,
    /// By load balancer, as last observed without rows in OVN.
    pending: Mutex<BTreeMap<Uuid, Arc<Tree>>>,
    wake: Notify,
}

impl Purge {
    /// A purge that writes through `writer`.
    pub(super) fn new(writer: Arc<Writer>) -> Self {
        Self { writer, pending: Mutex::default(), wake: Notify::new() }
    }

    /// Requests removal of the records that `seen` marks as deleted, which frees their addresses and ports.
    pub(super) fn add(&self, seen: Arc<Tree>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(seen.id(), seen);
        self.wake.notify_one();
    }

    /// Processes requested removals; never ends. Dropping it loses nothing: the next leader finds the records, which are
    /// still marked as deleted.
    pub(super) async fn run(&self) {
        let (mut running, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            while running.len() < CONCURRENT
                && let Some(seen) = self.take(&busy)
            {
                busy.insert(seen.id());
                running.push(self.purge(seen));
            }
            tokio::select! {
                Some(id) = running.next() => {
                    busy.remove(&id);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Takes a tree of which no removal is under way.
    fn take(&self, busy: &BTreeSet<Uuid>) -> Option<Arc<Tree>> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pending.keys().find(|id| !busy.contains(id)).copied()?;
        pending.remove(&next)
    }

    /// Removes the deleted records of a tree, with as many attempts as it takes. Returns its id.
    async fn purge(&self, seen: Arc<Tree>) -> Uuid {
        let mut failures = 0_u32;
        loop {
            let purged = self.writer.write(seen.id(), |current| {
                Ok::<_, WriteError>((current.and_then(|current| current.without_deleted_of(&seen)), ()))
            });
            let Err(error) = purged.await else { return seen.id() };
            failures = failures.saturating_add(1);
            let wait = BACKOFF.after(failures);
            tracing::warn!(
                load_balancer = %seen.id(), %error, ?wait,
                "failed to remove deleted resources from the store, after OVN has let go of them; retrying"
            );
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Model;
    use crate::reconcile::examples::model;
    use crate::resources::examples::{LOAD_BALANCER, tree};
    use crate::resources::transaction;
    use fiberlb_store::{SharedStore, Store, StoreFault};

    /// A store with a tree that is marked as deleted, a model that follows it, and a writer whose connection has a fault.
    async fn deleted(fault: StoreFault) -> (SharedStore, Arc<Model>, Arc<Writer>) {
        let store = SharedStore::default();
        let mut tree = tree();
        Arc::make_mut(&mut tree.load_balancer).deleting = true;
        store.commit(transaction(None, Some(&tree)).unwrap()).await.unwrap();
        let (model, connection) = (model(Arc::new(store.clone())).await, store.connection());
        connection.fail(fault);
        let writer = Arc::new(Writer::new(Arc::clone(&model), Arc::new(connection), Arc::default()));
        (store, model, writer)
    }

    /// Runs until the store holds nothing of the tree, its guards included.
    async fn until_gone(purge: &Purge, store: &SharedStore, model: &Model) {
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
        assert!(store.snapshot("").await.unwrap().collect().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_deleted_goes_from_the_store_with_its_guards() {
        let (store, model, writer) = deleted(StoreFault::None).await;
        let purge = Purge::new(writer);
        purge.add(model.tree(LOAD_BALANCER).unwrap());
        until_gone(&purge, &store, &model).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_refuses_for_a_while_is_asked_again() {
        let (store, model, writer) = deleted(StoreFault::Full(3)).await;
        let purge = Purge::new(writer);
        purge.add(model.tree(LOAD_BALANCER).unwrap());
        until_gone(&purge, &store, &model).await;
    }
}
