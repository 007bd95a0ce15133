//! Transactions that are larger than the cluster's.
//!
//! 1. *Prepare.* The writes are stored in chunks, beside a key on the writer's lease that says that it lives. Any number
//!    of writers prepare at a time, and nobody waits for them. What a writer leaves that dies here is removed by the
//!    next one.
//! 2. *Commit.* The lock, which keeps all other writers of the domain out, is put on the lease; the compares are checked;
//!    one transaction puts the lock again, as committed and without the lease, and makes the interval key. From now on
//!    the writes will be applied, even if the writer dies. One that dies before leaves nothing but its lock, which
//!    expires with the lease.
//! 3. *Apply.* Each chunk is one transaction, which also advances the lock, so that no chunk is applied twice
//!    when several plugins do it. The last one removes lock and chunks and puts the interval key again.
//!
//! Others so wait for as many of the cluster's transactions as there are chunks, and some more.
//!
//! The interval key records in which revisions the writes were applied. The last of them is the
//! transaction's revision in the store; the others are translated to it. Readers read before the lock while
//! there is one; watches collect what is applied and publish it at once.

use std::collections::BTreeSet;
use std::time::Duration;

use chainfire_client::{
    Client, Compare, Error, KeyValue, Lease, LeaseId, Operation, Outcome, Range,
    Transaction as ClusterTransaction, max_operations,
};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::{CommitError, Compare as StoreCompare, StoreError, Transaction, Write};
use super::chunk::CHUNK_BYTES;
use super::commit::{Committed, LOOK_PAUSE, conflicts, look, operation, page};
use super::layout::Layout;
use super::{chunk, errors};

/// Lease of a writer that prepares, in case it dies. No longer than that of leadership: the
/// successor of a leader that dies just then must not wait longer.
const LEASE: Duration = super::super::LEASE_TTL;
/// Longest wait of a commit for others' staged transactions.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// Silence after which the writer of a committed transaction is presumed dead, and others apply it.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
/// Attempts at a step whose answer was lost; each step leaves a trace from which its outcome is known.
const ATTEMPTS: usize = 3;

/// The value of the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lock {
    id: Uuid,
    state: Stage,
    /// Number of chunks.
    chunks: u32,
    /// The first chunk that is not applied.
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Preparing,
    Committed,
}

impl Lock {
    fn put(&self, layout: &Layout, lease: Option<LeaseId>) -> Operation {
        // Neither a map with odd keys nor a foreign type is in it: serializing cannot fail.
        let value = serde_json::to_vec(self).unwrap_or_default();
        Operation::Put { key: layout.lock().into(), value, lease }
    }
}

/// A staged transaction cannot be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum FinishError {
    #[error(transparent)]
    Cluster(#[from] Error),
    #[error("{0}")]
    Damaged(String),
}

impl FinishError {
    pub(super) fn into_store(self, name: &str) -> StoreError {
        match self {
            Self::Cluster(error) => errors::store(&error),
            Self::Damaged(reason) => StoreError::Damaged { path: name.to_owned(), reason },
        }
    }
}

/// Commits any number of writes atomically.
pub(super) async fn large(
    client: &Client,
    layout: &Layout,
    transaction: Transaction,
) -> Result<Committed, CommitError> {
    let lease = client.lease(LEASE).await.map_err(nothing_written)?;
    let Transaction { compares, writes } = transaction;
    let committed = async {
        let prepared = PreparedStage::store(client, layout, writes, &lease).await?;
        prepared.commit(&compares).await?.apply().await
    };
    let committed = committed.await;
    // After a commit nothing is left on the lease; before it, this releases the lock.
    if let Err(error) = lease.revoke().await {
        tracing::debug!(%error, "cannot revoke lease; it expires by itself");
    }
    if committed.is_err() {
        drop_abandoned(client, layout).await;
    }
    committed
}

/// Writes that the cluster has in chunks, and that nobody sees.
struct PreparedStage<'a> {
    client: &'a Client,
    layout: &'a Layout,
    lease: LeaseId,
    lock: Lock,
    /// Revision of the owner key, which is there as long as the lease.
    owned: u64,
    pieces: Vec<Vec<Write>>,
}

impl<'a> PreparedStage<'a> {
    /// Stores the writes.
    async fn store(
        client: &'a Client,
        layout: &'a Layout,
        writes: Vec<Write>,
        lease: &Lease,
    ) -> Result<Self, CommitError> {
        drop_abandoned(client, layout).await;
        let pieces = chunk::cut(writes);
        let chunks = u32::try_from(pieces.len())
            .map_err(|_| CommitError::Invalid("it has more writes than can be staged".into()))?;
        let lock = Lock { id: Uuid::new_v4(), state: Stage::Preparing, chunks, next: 0 };
        let owner =
            Operation::Put { key: layout.owner(lock.id).into(), value: Vec::new(), lease: Some(lease.id()) };
        let own = ClusterTransaction { then: vec![owner], ..ClusterTransaction::default() };
        let owned = client.transact(own).await.map_err(nothing_written)?.revision;
        let prepared = Self { client, layout, lease: lease.id(), lock, owned, pieces };
        for (number, piece) in (0..).zip(&prepared.pieces) {
            prepared.upload(number, chunk::encode(piece)).await?;
        }
        Ok(prepared)
    }

    async fn upload(&self, number: u32, value: Vec<u8>) -> Result<(), CommitError> {
        let key = self.layout.chunk(self.lock.id, number).into();
        let request = ClusterTransaction {
            compares: vec![self.is_owned()],
            then: vec![Operation::Put { key, value, lease: None }],
            otherwise: Vec::new(),
        };
        match repeated(self.client, &request).await.map_err(nothing_written)?.succeeded {
            true => Ok(()),
            false => Err(expired()),
        }
    }

    fn is_owned(&self) -> Compare {
        Compare { key: self.layout.owner(self.lock.id).into(), revision: self.owned }
    }

    /// Commits the writes if the compares hold.
    async fn commit(self, compares: &[StoreCompare]) -> Result<Applying<'a>, CommitError> {
        let held = self.acquire().await?;
        self.check(compares).await?;
        let Self { client, layout, ref lock, .. } = self;
        let committed = Lock { state: Stage::Committed, ..lock.clone() };
        let interval =
            Operation::Put { key: layout.interval(lock.id).into(), value: Vec::new(), lease: None };
        let mut request = while_held(layout, held, vec![committed.put(layout, None), interval]);
        request.compares.push(self.is_owned());
        request.otherwise = vec![look(&layout.interval(lock.id))];
        // A retry finds the lock advanced by the first attempt; the interval key exists if and only if it was committed.
        let outcome = repeated(client, &request).await.map_err(errors::commit)?;
        let (succeeded, held) = (outcome.succeeded, outcome.revision);
        let was_committed = || outcome.answers.into_iter().map(page).any(|found| !found.entries.is_empty());
        if succeeded || was_committed() {
            Ok(Applying { client, layout, lock: committed, held, pieces: self.pieces })
        } else {
            Err(expired())
        }
    }

    /// Acquires the lock; returns its revision.
    async fn acquire(&self) -> Result<u64, CommitError> {
        let layout = self.layout;
        loop {
            let take = ClusterTransaction {
                compares: vec![Compare { key: layout.lock().into(), revision: 0 }, self.is_owned()],
                // A plugin of an earlier release that comes to apply this transaction must find no chunks of another one.
                then: vec![
                    self.lock.put(layout, Some(self.lease)),
                    Operation::Delete(layout.earlier_chunks()),
                ],
                otherwise: vec![look(&layout.owner(self.lock.id))],
            };
            let outcome = self.client.transact(take).await.map_err(nothing_written)?;
            if outcome.succeeded {
                return Ok(outcome.revision);
            }
            if outcome.answers.into_iter().map(page).all(|owner| owner.entries.is_empty()) {
                return Err(expired());
            }
            await_lock(self.client, layout).await?;
        }
    }

    /// Checks the compares. Nobody else writes now, so what is read stays valid.
    async fn check(&self, compares: &[StoreCompare]) -> Result<(), CommitError> {
        let (mut looks, mut left) = (Vec::new(), compares);
        while !left.is_empty() {
            let (some, others) = left.split_at(fitting(left));
            looks.push(self.revisions(some));
            left = others;
        }
        // At the same time: others wait.
        let revisions = try_join_all(looks).await?.into_iter().flatten();
        let current = compares.iter().map(|compare| compare.key.clone()).zip(revisions).collect();
        conflicts(self.client, self.layout, compares, &current).await
    }

    /// Revisions of compared keys, by one request.
    async fn revisions(&self, compares: &[StoreCompare]) -> Result<Vec<u64>, CommitError> {
        let then = compares.iter().map(|compare| look(&compare.key)).collect();
        let reads = ClusterTransaction { then, ..ClusterTransaction::default() };
        let outcome = self.client.transact(reads).await.map_err(nothing_written)?;
        let pages = outcome.answers.into_iter().map(page);
        Ok(pages.map(|page| page.entries.first().map_or(0, |entry| entry.revision)).collect())
    }
}

/// Number of the first compares whose keys one request can look at; at least one.
fn fitting(compares: &[StoreCompare]) -> usize {
    let mut bytes = 0;
    let fits = |compare: &&StoreCompare| {
        bytes += compare.key.len();
        bytes <= CHUNK_BYTES
    };
    compares.iter().take(max_operations(0)).take_while(fits).count().max(1)
}

/// Removes what writers left that died while they prepared.
pub(super) async fn drop_abandoned(client: &Client, layout: &Layout) {
    if let Err(error) = try_drop_abandoned(client, layout).await {
        tracing::debug!(%error, "cannot remove abandoned stages; the next large write retries");
    }
}

async fn try_drop_abandoned(client: &Client, layout: &Layout) -> Result<(), Error> {
    let mut pages = client.pages(Range::prefix(layout.stages()).keys_only());
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await? {
        keys.extend(page.entries.into_iter().map(|entry| entry.key));
    }
    let ids: BTreeSet<Uuid> = keys.iter().filter_map(|key| layout.stage_of(key)).collect();
    for id in ids.into_iter().filter(|id| !keys.contains(&layout.owner(*id).into_bytes())) {
        let lock = client.get(layout.lock()).await?;
        let is_in_use = lock
            .as_ref()
            .is_some_and(|lock| serde_json::from_slice(&lock.value).map_or(true, |lock: Lock| lock.id == id));
        if is_in_use {
            continue;
        }
        // Without an owner it can be committed no more; and it was not, unless the lock has changed.
        let compares = vec![
            Compare { key: layout.owner(id).into(), revision: 0 },
            Compare { key: layout.lock().into(), revision: lock.map_or(0, |lock| lock.revision) },
        ];
        let then = vec![Operation::Delete(layout.stage(id))];
        client.transact(ClusterTransaction { compares, then, otherwise: Vec::new() }).await?;
    }
    Ok(())
}

/// Maps an error before the commit: nobody sees what was written.
fn nothing_written(error: Error) -> CommitError {
    match error {
        Error::Unknown(reason) => CommitError::Unavailable(reason),
        error => errors::commit(error),
    }
}

fn expired() -> CommitError {
    CommitError::Unavailable("the lease expired while the transaction was staged: try again".into())
}

fn while_held(layout: &Layout, held: u64, then: Vec<Operation>) -> ClusterTransaction {
    let compares = vec![Compare { key: layout.lock().into(), revision: held }];
    ClusterTransaction { compares, then, otherwise: Vec::new() }
}

/// Retries an idempotent request until its outcome is known. Once an answer was lost, a later failure does
/// not tell the outcome of the first attempt.
async fn repeated(client: &Client, request: &ClusterTransaction) -> Result<Outcome, Error> {
    let mut lost = None;
    for _ in 0..ATTEMPTS {
        match client.transact(request.clone()).await {
            Err(Error::Unknown(reason)) => lost = Some(reason),
            Err(error) => return Err(lost.map_or(error, Error::Unknown)),
            Ok(outcome) => return Ok(outcome),
        }
    }
    Err(Error::Unknown(lost.unwrap_or_default()))
}

/// A staged transaction that is committed, at its writer, which needs not read the chunks.
struct Applying<'a> {
    client: &'a Client,
    layout: &'a Layout,
    lock: Lock,
    /// Revision of the lock.
    held: u64,
    pieces: Vec<Vec<Write>>,
}

impl Applying<'_> {
    /// Applies it, as others may do at the same time.
    async fn apply(self) -> Result<Committed, CommitError> {
        let id = self.lock.id;
        match self.try_apply().await {
            Ok(Some(revision)) => Ok(Committed { revision, changed: true }),
            // A plugin that opened the store at this moment found no key of it: each was removed or overwritten.
            Ok(None) => Err(CommitError::Unknown(format!("the record of staged transaction {id} is gone"))),
            Err(error) => Err(CommitError::Unknown(format!(
                "staged transaction {id} is committed and not yet applied: {error}"
            ))),
        }
    }

    /// Its revision; `None`: its record is gone.
    async fn try_apply(mut self) -> Result<Option<u64>, FinishError> {
        for piece in std::mem::take(&mut self.pieces) {
            let request = while_held(self.layout, self.held, step(self.layout, &self.lock, piece));
            match self.client.transact(request).await {
                Ok(outcome) if outcome.succeeded => self.held = outcome.revision,
                // Another plugin was faster, or the answer is lost: the lock tells.
                Ok(_) | Err(Error::Unknown(_)) => {
                    finish(self.client, self.layout).await?;
                    let interval = self.client.get(self.layout.interval(self.lock.id)).await?;
                    return Ok(interval.map(|interval| interval.revision));
                }
                Err(error) => return Err(error.into()),
            }
            self.lock.next = self.lock.next.saturating_add(1);
        }
        Ok(Some(self.held))
    }
}

/// Waits until no staged transaction is in progress; applies one whose writer is silent.
pub(super) async fn await_lock(client: &Client, layout: &Layout) -> Result<(), CommitError> {
    let begun = Instant::now();
    let (mut seen, mut since) = (0, begun);
    while begun.elapsed() < LOCK_PATIENCE {
        let lock = client.range(Range::key(layout.lock()).keys_only()).await.map_err(errors::commit)?;
        match lock.entries.first().map(|lock| lock.revision) {
            None => return Ok(()),
            Some(revision) if revision != seen => (seen, since) = (revision, Instant::now()),
            Some(_) if since.elapsed() >= SILENCE => {
                finish(client, layout).await.map_err(|error| CommitError::Unavailable(error.to_string()))?;
            }
            Some(_) => {}
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Err(CommitError::Unavailable(
        "a large transaction of another plugin does not end: is it connected to the cluster?".into(),
    ))
}

/// Applies what is committed and not yet applied. Several plugins may do so at the same time.
pub(super) async fn finish(client: &Client, layout: &Layout) -> Result<(), FinishError> {
    while let Some((entry, lock)) = read_lock(client, layout).await? {
        if lock.state == Stage::Preparing {
            return Ok(());
        }
        let writes = read_chunk(client, layout, &lock).await?;
        let request = while_held(layout, entry.revision, step(layout, &lock, writes));
        match client.transact(request).await {
            // If another plugin was faster, the lock has advanced; if the answer is lost, the lock tells.
            Ok(_) | Err(Error::Unknown(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn read_lock(client: &Client, layout: &Layout) -> Result<Option<(KeyValue, Lock)>, FinishError> {
    let Some(entry) = client.get(layout.lock()).await? else { return Ok(None) };
    let lock =
        serde_json::from_slice(&entry.value).map_err(|error| damaged(&layout.lock(), &error.to_string()))?;
    Ok(Some((entry, lock)))
}

/// Operations that apply the next chunk, with these writes.
fn step(layout: &Layout, lock: &Lock, writes: Vec<Write>) -> Vec<Operation> {
    let mut operations: Vec<_> = writes.into_iter().map(|write| operation(write, None)).collect();
    let next = lock.next.saturating_add(1);
    if next < lock.chunks {
        operations.push(Lock { next, ..lock.clone() }.put(layout, None));
    } else {
        operations.push(Operation::Delete(Range::key(layout.lock())));
        operations.push(Operation::Delete(layout.stage(lock.id)));
        operations.push(Operation::Put {
            key: layout.interval(lock.id).into(),
            value: Vec::new(),
            lease: None,
        });
    }
    operations
}

async fn read_chunk(client: &Client, layout: &Layout, lock: &Lock) -> Result<Vec<Write>, FinishError> {
    let key = layout.chunk(lock.id, lock.next);
    let mut found = client.get(key.clone()).await?;
    if found.is_none() {
        found = client.get(layout.earlier_chunk(lock.next)).await?;
    }
    match found {
        Some(entry) => chunk::decode(&entry.value).map_err(|error| damaged(&key, &error.to_string())),
        // Another plugin may have applied and removed it meanwhile.
        None => match read_lock(client, layout).await? {
            Some((_, now)) if now == *lock => Err(damaged(&key, "it is missing")),
            _ => Ok(Vec::new()),
        },
    }
}

fn damaged(key: &str, reason: &str) -> FinishError {
    FinishError::Damaged(format!(
        "the value of {key}, which belongs to a transaction that is being applied, was changed from outside: {reason}"
    ))
}

#[cfg(test)]
mod tests;
