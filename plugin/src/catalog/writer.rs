//! The only writer of specifications: reads the tree, edits it purely, writes it atomically, and returns once
//! the model shows the write.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Model;
use crate::metrics::Metrics;
use crate::resources::{RecordError, Tree, head_key, transaction};
use crate::store::{CommitError, Revision, Store};

/// Locks on which writers of one tree queue, instead of colliding in the store. Trees that share a lock only
/// wait a little longer.
const LOCKS: usize = 256;
/// Attempts at a write that collides with other plugins' writes.
const ATTEMPTS: usize = 50;
/// Longest time for settling a write whose answer was lost; longer than a change of the cluster's leader
/// takes.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a write whose answer was lost is retried.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Wait for a removal that this write collided with to become visible.
const REMOVAL_WAIT: Duration = Duration::from_millis(50);

/// Reason why a tree was not written, or is not known to be.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Other writers of the same tree were faster each time.
    #[error("other writes to this load balancer came first each time: try again")]
    Contended,
    /// The store refused it, or its outcome is unknown.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// A record cannot be encoded.
    #[error("cannot encode load balancer {root}: {source}")]
    Encode {
        /// The tree's load balancer.
        root: Uuid,
        /// Encoding error of the record.
        source: RecordError,
    },
}

/// The only writer of specifications.
pub struct Writer {
    model: Arc<Model>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    locks: Vec<Mutex<()>>,
}

impl Writer {
    /// A writer into `store`, which feeds `model`.
    pub fn new(model: Arc<Model>, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { model, store, metrics, locks: (0..LOCKS).map(|_| Mutex::new(())).collect() }
    }

    /// Replaces the tree `root` by the one that `edit` makes of it (`None`: there is none), and returns that
    /// tree with the other result of `edit`. `edit` is retried when the tree has changed meanwhile, so it
    /// must be free of side effects.
    ///
    /// # Errors
    /// Errors of `edit`, and [`WriteError`].
    pub async fn write<T, E: From<WriteError>>(
        &self,
        root: Uuid,
        edit: impl Fn(Option<&Tree>) -> Result<(Option<Tree>, T), E>,
    ) -> Result<(Option<Tree>, T), E> {
        let _turn = match self.locks.get(usize::from(root.as_bytes()[15]) % LOCKS) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let before = self.model.tree(root);
            let (after, value) = edit(before.as_deref())?;
            let transaction = transaction(before.as_deref(), after.as_ref())
                .map_err(|source| WriteError::Encode { root, source })?;
            if transaction.writes.is_empty() {
                return Ok((after, value));
            }
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.model.reached(revision).await;
                    return Ok((after, value));
                }
                Err(CommitError::Conflict { keys }) => {
                    tracing::debug!(load_balancer = %root, ?keys, "write conflict; retrying");
                    self.metrics.write_conflicts.inc();
                    self.catch_up(&keys).await;
                }
                Err(CommitError::Unknown(reason)) => {
                    self.settle(before.as_deref(), after.as_ref(), reason).await?;
                    return Ok((after, value));
                }
                Err(error) => return Err(WriteError::Store(error).into()),
            }
        }
        Err(WriteError::Contended.into())
    }

    /// Waits until the model shows the write that won the conflict.
    async fn catch_up(&self, keys: &[String]) {
        for key in keys {
            if let Ok(Some(entry)) = self.store.get(key).await {
                // A model that does not catch up in time just collides again.
                let _ = tokio::time::timeout(SETTLED_WITHIN, self.model.reached(entry.revision)).await;
                return;
            }
        }
        // The keys are deleted again; the change stream lags by a moment at most.
        tokio::time::sleep(REMOVAL_WAIT).await;
    }

    /// Settles a write whose answer was lost by retrying it. That is idempotent, since the write compares the
    /// tree's head; if the head has changed, the tree in the model shows who changed it.
    async fn settle(
        &self,
        before: Option<&Tree>,
        after: Option<&Tree>,
        reason: String,
    ) -> Result<(), WriteError> {
        let Some(root) = before.or(after).map(Tree::id) else { return Ok(()) };
        let lost = |reason: String| Err(CommitError::Unknown(reason).into());
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline {
            tokio::time::sleep(SETTLE_PAUSE).await;
            let Ok(again) = transaction(before, after) else { break };
            match self.store.commit(again).await {
                Ok(revision) => {
                    self.model.reached(revision).await;
                    return Ok(());
                }
                Err(CommitError::Conflict { .. }) => match self.store.get(&head_key(root)).await {
                    Ok(head) => {
                        self.model.reached(head.map_or(Revision::ZERO, |head| head.revision)).await;
                        let is_ours = is_same(self.model.tree(root).as_deref(), after);
                        return if is_ours { Ok(()) } else { lost(reason) };
                    }
                    Err(error) => tracing::debug!(%error, "outcome of a write is still unknown; retrying"),
                },
                Err(error) => tracing::debug!(%error, "outcome of a write is still unknown; retrying"),
            }
        }
        lost(reason)
    }
}

/// Compares two trees regardless of the write that they come from.
fn is_same(one: Option<&Tree>, other: Option<&Tree>) -> bool {
    let without_head = |tree: &Tree| Tree { head: Revision::ZERO, ..tree.clone() };
    one.map(without_head) == other.map(without_head)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::future::{BoxFuture, FutureExt as _};

    use super::*;
    use crate::resources::examples::{LOAD_BALANCER, tree};
    use crate::store::{Entry, MemoryStore, Snapshot, StoreError, Transaction, Watch, WatchError};

    /// A store that loses the answer of the next commit, and applies that commit or not.
    struct Lossy {
        inner: Arc<MemoryStore>,
        loses: AtomicBool,
        carries_out: bool,
    }

    impl Store for Lossy {
        fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
            self.inner.get(key)
        }

        fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
            self.inner.snapshot(prefix)
        }

        fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
            if !self.loses.swap(false, Ordering::Relaxed) {
                return self.inner.commit(transaction);
            }
            async move {
                if self.carries_out {
                    self.inner.commit(transaction).await?;
                }
                Err(CommitError::Unknown("the answer was lost".into()))
            }
            .boxed()
        }

        fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
            self.inner.watch(prefix, after)
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            self.inner.close()
        }
    }

    fn make(_before: Option<&Tree>) -> Result<(Option<Tree>, ()), WriteError> {
        Ok((Some(tree()), ()))
    }

    /// A writer whose next answer is lost, and the store behind it.
    async fn writer(carries_out: bool) -> (Writer, Arc<MemoryStore>) {
        let inner = Arc::new(MemoryStore::default());
        let lossy = Lossy { inner: Arc::clone(&inner), loses: AtomicBool::new(true), carries_out };
        let model = Arc::new(Model::load(&*inner).await.unwrap());
        let (followed, source) = (Arc::clone(&model), Arc::clone(&inner));
        tokio::spawn(async move { followed.follow(&*source).await });
        (Writer::new(model, Arc::new(lossy), Arc::default()), inner)
    }

    #[tokio::test]
    async fn a_write_whose_answer_was_lost_is_done_once_and_acknowledged() {
        for carries_out in [true, false] {
            let (writer, store) = writer(carries_out).await;
            let (made, ()) = writer.write(LOAD_BALANCER, make).await.unwrap();
            let head = store.get(&head_key(LOAD_BALANCER)).await.unwrap().unwrap();
            assert_eq!(head.revision, Revision(1), "once");
            assert!(is_same(writer.model.tree(LOAD_BALANCER).as_deref(), made.as_ref()));
        }
    }

    #[tokio::test]
    async fn a_lost_write_that_another_one_followed_stays_unknown() {
        let (writer, store) = writer(true).await;
        let other = async {
            let mut revisions = writer.model.revisions();
            revisions.wait_for(|revision| *revision == Revision(1)).await.unwrap();
            let before = writer.model.tree(LOAD_BALANCER).unwrap();
            let mut changed = Tree::clone(&before);
            changed.listeners.clear();
            store.commit(transaction(Some(&before), Some(&changed)).unwrap()).await.unwrap();
        };
        let (lost, ()) = tokio::join!(writer.write(LOAD_BALANCER, make), other);
        assert!(matches!(lost, Err(WriteError::Store(CommitError::Unknown(_)))));
    }
}
