//! The only writer of specifications: reads an aggregate, edits it purely, writes it atomically, and returns once
//! the model shows the write.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use uuid::Uuid;

use super::Model;
use crate::metrics::Metrics;
use crate::resources::{Aggregate, Changes, RecordError, Tree, UserError};
use fiberlb_store::{CommitError, Compare, Revision, Store, Transaction, Write};

/// Locks that are kept before those that nobody holds are dropped.
const KEPT_LOCKS: usize = 1024;
/// Attempts at a write that collides with other plugins' writes.
const ATTEMPTS: usize = 50;
/// Longest time for settling a write whose answer was lost; longer than a change of the cluster's leader
/// takes.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);
/// Pause before a write whose answer was lost is retried.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
/// Wait for a removal that this write collided with to become visible.
const REMOVAL_WAIT: Duration = Duration::from_millis(50);

/// Reason why an aggregate was not written, or is not known to be.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Other writers of the same aggregate were faster each time.
    #[error("other writes to this object came first each time: try again")]
    Contended,
    /// The store refused it, or its outcome is unknown.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// It would leave a use of a resource that is not there.
    #[error(transparent)]
    User(#[from] UserError),
    /// A record cannot be encoded.
    #[error("cannot encode a record below {root}: {source}")]
    Encode {
        /// Id of the aggregate.
        root: Uuid,
        /// Encoding error of the record.
        source: RecordError,
    },
}

/// Present state of aggregates, which follows the store.
pub trait AggregateSource<A>: Send + Sync + 'static {
    /// The aggregate with this id.
    fn current(&self, id: Uuid) -> Option<Arc<A>>;
    /// Revision of the last shown write with a claimed key; [`Revision::ZERO`] where there was none.
    fn claimed(&self, key: &str) -> Revision;
    /// Waits until everything up to `revision` is shown.
    fn reached(&self, revision: Revision) -> impl Future<Output = ()> + Send;
}

impl AggregateSource<Tree> for Model {
    fn current(&self, id: Uuid) -> Option<Arc<Tree>> {
        self.tree(id)
    }

    fn claimed(&self, key: &str) -> Revision {
        self.claimed(key)
    }

    async fn reached(&self, revision: Revision) {
        self.reached(revision).await;
    }
}

/// Sole use of a key for a write: by a lock among the writers of this plugin, and, on a store that several plugins share, by
/// putting the key only if nobody has put it since what the model shows.
#[derive(Debug)]
pub struct KeyClaim {
    shared: Option<(String, Revision)>,
    _turn: Vec<OwnedMutexGuard<()>>,
}

impl KeyClaim {
    fn join(&self, transaction: &mut Transaction) {
        let Some((key, seen)) = &self.shared else { return };
        transaction.compares.push(Compare { key: key.clone(), revision: *seen });
        transaction.writes.push(Write::Put { key: key.clone(), value: br#"{"version":1}"#.to_vec() });
    }

    /// The claimed key, if it is one of these, on which a transaction failed.
    fn lost(&self, failed: &[String]) -> Option<&String> {
        self.shared.as_ref().map(|(key, _)| key).filter(|key| failed.contains(key))
    }
}

/// Locks by id, on which writers of one aggregate queue instead of colliding in the store. No two ids share one: a large
/// write may take a second.
#[derive(Default)]
struct Locks(StdMutex<HashMap<Uuid, Weak<Mutex<()>>>>);

impl Locks {
    /// Takes the locks of all these ids, in the same order for each caller so that no two wait for each other.
    async fn take(&self, ids: impl IntoIterator<Item = Uuid>) -> Vec<OwnedMutexGuard<()>> {
        let ids: BTreeSet<Uuid> = ids.into_iter().collect();
        let mut taken = Vec::new();
        for id in ids {
            taken.push(self.of(id).lock_owned().await);
        }
        taken
    }

    fn of(&self, id: Uuid) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(&id).and_then(Weak::upgrade) {
            return lock;
        }
        if locks.len() >= KEPT_LOCKS {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::default();
        locks.insert(id, Arc::downgrade(&lock));
        lock
    }
}

/// The only writer of specifications.
pub struct Writer<M = Model> {
    model: Arc<M>,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    roots: Locks,
    /// Of resources whose users change. Taken after the lock of the root.
    used: Locks,
    /// Of claimed keys. Taken before the lock of a root.
    claims: Locks,
}

impl<M> Writer<M> {
    /// A writer into `store`, which feeds `model`.
    pub fn new(model: Arc<M>, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        let [roots, used, claims] = std::array::from_fn(|_| Locks::default());
        Self { model, store, metrics, roots, used, claims }
    }

    /// Replaces the aggregate `root` by the one that `edit` makes of it (`None`: there is none), and returns that
    /// one with the other result of `edit`. `edit` is retried when the aggregate has changed meanwhile, so it
    /// must be free of side effects.
    ///
    /// # Errors
    /// Errors of `edit`, and [`WriteError`].
    pub async fn write<A: Aggregate, T, E: From<WriteError>>(
        &self,
        root: Uuid,
        edit: impl Fn(Option<&A>) -> Result<(Option<A>, T), E>,
    ) -> Result<(Option<A>, T), E>
    where
        M: AggregateSource<A>,
    {
        self.write_claimed(root, None, edit).await
    }

    /// Claims a key for a write that goes by what the model shows from now on.
    pub async fn claim<A>(&self, key: String) -> KeyClaim
    where
        M: AggregateSource<A>,
    {
        let turn = self.claims.take([Uuid::new_v5(&Uuid::nil(), key.as_bytes())]).await;
        let shared = self.store.election().map(|_| {
            let seen = self.model.claimed(&key);
            (key, seen)
        });
        KeyClaim { shared, _turn: turn }
    }

    /// As [`Self::write`]; with a claim it is [`WriteError::Contended`] if somebody else has written with the key since, once
    /// the model shows that.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_claimed<A: Aggregate, T, E: From<WriteError>>(
        &self,
        root: Uuid,
        claim: Option<&KeyClaim>,
        edit: impl Fn(Option<&A>) -> Result<(Option<A>, T), E>,
    ) -> Result<(Option<A>, T), E>
    where
        M: AggregateSource<A>,
    {
        let _turn = self.roots.take([root]).await;
        for _ in 0..ATTEMPTS {
            let before = self.model.current(root);
            let (mut after, value) = edit(before.as_deref())?;
            let changes = Changes::between(before.as_deref(), after.as_ref())
                .map_err(|source| WriteError::Encode { root, source })?;
            if changes.is_empty() {
                return Ok((after, value));
            }
            match self.commit(changes, claim).await {
                Ok(revision) => {
                    self.model.reached(revision).await;
                    after.iter_mut().for_each(|after| after.set_head(revision));
                    return Ok((after, value));
                }
                Err(WriteError::Store(CommitError::Conflict { keys })) => {
                    tracing::debug!(%root, ?keys, "write conflict; retrying");
                    self.metrics.write_conflicts.inc();
                    if let Some(key) = claim.and_then(|claim| claim.lost(&keys)) {
                        self.catch_up::<A>(std::slice::from_ref(key)).await;
                        return Err(WriteError::Contended.into());
                    }
                    self.catch_up::<A>(&keys).await;
                }
                Err(WriteError::Store(CommitError::Unknown(reason))) => {
                    let head = self.settle(before.as_deref(), after.as_ref(), claim, reason).await?;
                    after.iter_mut().for_each(|after| after.set_head(head));
                    return Ok((after, value));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(WriteError::Contended.into())
    }

    /// Commits changes with those of the users of resources, as they are now in the store.
    async fn commit<A: Aggregate>(
        &self,
        changes: Changes<'_, A>,
        claim: Option<&KeyClaim>,
    ) -> Result<Revision, WriteError> {
        let users = changes.users();
        let _turns = self.used.take(users.keys().map(|used| used.id)).await;
        let mut transaction = changes.transaction();
        claim.iter().for_each(|claim| claim.join(&mut transaction));
        for (used, change) in &users {
            let stored = self.store.get(&used.users_key()).await;
            let stored = stored.map_err(|error| CommitError::Unavailable(error.to_string()))?;
            change.join(*used, stored.as_ref(), &mut transaction)?;
        }
        Ok(self.store.commit(transaction).await?)
    }

    /// Waits until the model shows the write that won the conflict.
    async fn catch_up<A>(&self, keys: &[String])
    where
        M: AggregateSource<A>,
    {
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

    /// Settles a write whose answer was lost by retrying it, and returns its revision. That is idempotent, since the write compares the
    /// aggregate's head; if the head has changed, the aggregate in the model shows who changed it.
    async fn settle<A: Aggregate>(
        &self,
        before: Option<&A>,
        after: Option<&A>,
        claim: Option<&KeyClaim>,
        reason: String,
    ) -> Result<Revision, WriteError>
    where
        M: AggregateSource<A>,
    {
        let Some(root) = before.or(after).map(A::id) else { return Ok(Revision::ZERO) };
        let lost = |reason: String| Err(CommitError::Unknown(reason).into());
        let deadline = Instant::now() + SETTLED_WITHIN;
        while Instant::now() < deadline {
            tokio::time::sleep(SETTLE_PAUSE).await;
            let Ok(again) = Changes::between(before, after) else { break };
            match self.commit(again, claim).await {
                Ok(revision) => {
                    self.model.reached(revision).await;
                    return Ok(revision);
                }
                Err(WriteError::Store(CommitError::Conflict { .. }) | WriteError::User(_)) => {
                    match self.store.get(&A::head_key(root)).await {
                        Ok(head) => {
                            self.model.reached(head.map_or(Revision::ZERO, |head| head.revision)).await;
                            let current = self.model.current(root);
                            let is_ours = is_same(current.as_deref(), after);
                            let head = current.map_or(Revision::ZERO, |current| current.head());
                            return if is_ours { Ok(head) } else { lost(reason) };
                        }
                        Err(error) => {
                            tracing::debug!(%error, "outcome of a write is still unknown; retrying");
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "outcome of a write is still unknown; retrying"),
            }
        }
        lost(reason)
    }
}

/// Compares two states of an aggregate regardless of the writes that they come from.
fn is_same<A: Aggregate>(one: Option<&A>, other: Option<&A>) -> bool {
    Changes::between(one, other).is_ok_and(|changes| changes.is_empty())
}

#[cfg(test)]
mod tests;
