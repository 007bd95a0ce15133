//! The one way in which specifications are written: read the tree, decide purely, write atomically, answer when the model
//! shows it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::Status;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::model::Model;
use crate::resources::{Tree, transaction};
use crate::store::{CommitError, Store};

/// Writers of one tree queue here instead of colliding in the store. Trees that share a lock only wait a little longer.
const LOCKS: usize = 256;
/// Attempts at a write that collides with other plugins' writes.
const ATTEMPTS: usize = 50;
/// Longest wait for the write that this one collided with to become visible.
const NEWS: Duration = Duration::from_millis(50);

/// Writes trees.
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

    /// Replaces the tree `root` by what `edit` makes of it (`None`: there is none), and answers with that and whatever
    /// else `edit` returns. `edit` is called anew when the tree changed meanwhile, so it must only decide.
    ///
    /// # Errors
    /// Those of `edit`; `ABORTED` when other writers were faster each time; `UNAVAILABLE` or `RESOURCE_EXHAUSTED` when
    /// the store cannot write; `UNKNOWN` when it is not known whether it did.
    pub async fn write<T>(
        &self,
        root: Uuid,
        edit: impl Fn(Option<&Tree>) -> Result<(Option<Tree>, T), Status>,
    ) -> Result<(Option<Tree>, T), Status> {
        let _turn = match self.locks.get(usize::from(root.as_bytes()[15]) % LOCKS) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let before = self.model.tree(root);
            let (after, value) = edit(before.as_deref())?;
            let transaction = transaction(before.as_deref(), after.as_ref())
                .map_err(|error| Status::internal(format!("cannot encode load balancer {root}: {error}")))?;
            if transaction.writes.is_empty() {
                return Ok((after, value));
            }
            let mut news = self.model.revisions();
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.model.reached(revision).await;
                    return Ok((after, value));
                }
                Err(CommitError::Conflict { keys }) => {
                    tracing::debug!(load_balancer = %root, ?keys, "another write came first; trying again");
                    self.metrics.write_conflicts.inc();
                    let _ = tokio::time::timeout(NEWS, news.changed()).await;
                }
                Err(error) => return Err(status(&error)),
            }
        }
        Err(Status::aborted("other writes to this load balancer came first each time: try again"))
    }
}

/// What a failed commit means to the caller.
fn status(error: &CommitError) -> Status {
    match error {
        CommitError::Conflict { .. } => Status::aborted(error.to_string()),
        CommitError::Invalid(_) => Status::resource_exhausted(error.to_string()),
        CommitError::Full(_) => Status::resource_exhausted(error.to_string()),
        CommitError::Unavailable(_) => Status::unavailable(error.to_string()),
        CommitError::Unknown(_) => Status::unknown(error.to_string()),
    }
}
