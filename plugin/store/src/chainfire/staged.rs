//! Transactions that are larger than the cluster's.
//!
//! One is in progress at a time; its lock keeps all other writers of the domain out.
//!
//! 1. *Prepare.* The lock is put on a lease, the compares are checked, the writes are stored in chunks. A
//!    writer that dies here leaves nothing: the lock expires with the lease, and the next writer removes the
//!    chunks.
//! 2. *Commit.* One transaction puts the lock again, as committed and without the lease, and makes the
//!    interval key. From now on the writes will be applied, even if the writer dies.
//! 3. *Apply.* Each chunk is one transaction, which also advances the lock, so that no chunk is applied twice
//!    when several plugins do it. The last one removes lock and chunks and puts the interval key again.
//!
//! The interval key thus records in which revisions the writes were applied. The last of them is the
//! transaction's revision in the store; the others are translated to it. Readers read before the lock while
//! there is one; watches collect what is applied and publish it at once.

use std::collections::HashMap;
use std::time::Duration;

use chainfire_client::{
    Client, Compare, Error, KeyValue, Lease, LeaseId, MAX_OPERATIONS, Operation, Outcome, Range,
    Transaction as ClusterTransaction,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::{CommitError, Compare as StoreCompare, StoreError, Transaction, Write};
use super::commit::{Committed, LOOK_PAUSE, conflicts, look, operation, page};
use super::layout::Layout;
use super::{chunk, errors};

/// Lease of the lock while its writer prepares, in case it dies. No longer than that of leadership: the
/// successor of a leader that dies just then must not wait longer.
const LEASE: Duration = super::super::TENURE;
/// Longest wait of a commit for others' staged transactions.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);
/// Silence after which the writer of a committed transaction is presumed dead, and others apply it.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
/// Bytes of chunks that are stored with one request.
const UPLOAD_BYTES: usize = 1_200_000;
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
    let committed = prepare_and_commit(client, layout, transaction, &lease).await;
    // Before the commit this releases the lock; after it nothing is left on the lease.
    if let Err(error) = lease.revoke().await {
        tracing::debug!(%error, "cannot revoke lease; it expires by itself");
    }
    let id = committed?;
    let applied = async {
        finish(client, layout).await?;
        Ok::<_, FinishError>(client.get(layout.interval(id)).await?)
    };
    match applied.await {
        Ok(Some(interval)) => Ok(Committed { revision: interval.revision, changed: true }),
        // A plugin that opened the store at this moment found no key of it: each was removed or overwritten.
        Ok(None) => Err(CommitError::Unknown(format!("the record of staged transaction {id} is gone"))),
        Err(error) => Err(CommitError::Unknown(format!(
            "staged transaction {id} is committed and not yet applied: {error}"
        ))),
    }
}

async fn prepare_and_commit(
    client: &Client,
    layout: &Layout,
    transaction: Transaction,
    lease: &Lease,
) -> Result<Uuid, CommitError> {
    let pieces: Vec<_> = chunk::cut(transaction.writes).into_iter().map(chunk::encode).collect();
    let chunks = u32::try_from(pieces.len())
        .map_err(|_| CommitError::Invalid("it has more writes than can be staged".into()))?;
    let lock = Lock { id: Uuid::new_v4(), state: Stage::Preparing, chunks, next: 0 };
    let held = acquire(client, layout, &lock, lease).await?;
    check_compares(client, layout, &transaction.compares).await?;
    upload(client, layout, held, pieces).await?;
    commit(client, layout, held, &lock).await?;
    Ok(lock.id)
}

/// Acquires the lock, and removes what an earlier holder left; returns the lock's revision.
async fn acquire(client: &Client, layout: &Layout, lock: &Lock, lease: &Lease) -> Result<u64, CommitError> {
    loop {
        let take = ClusterTransaction {
            compares: vec![Compare { key: layout.lock().into(), revision: 0 }],
            then: vec![lock.put(layout, Some(lease.id())), Operation::Delete(layout.chunks())],
            otherwise: Vec::new(),
        };
        let outcome = client.transact(take).await.map_err(nothing_written)?;
        if outcome.succeeded {
            return Ok(outcome.revision);
        }
        await_lock(client, layout).await?;
    }
}

/// Maps an error before the commit: nobody sees what was written.
fn nothing_written(error: Error) -> CommitError {
    match error {
        Error::Unknown(reason) => CommitError::Unavailable(reason),
        error => errors::commit(error),
    }
}

/// Checks the compares. Nobody else writes now, so the values read stay valid.
async fn check_compares(
    client: &Client,
    layout: &Layout,
    compares: &[StoreCompare],
) -> Result<(), CommitError> {
    let mut current = HashMap::new();
    for some in compares.chunks(MAX_OPERATIONS) {
        let then = some.iter().map(|compare| look(&compare.key)).collect();
        let reads = ClusterTransaction { then, ..ClusterTransaction::default() };
        let outcome = client.transact(reads).await.map_err(nothing_written)?;
        let pages = outcome.answers.into_iter().map(page);
        let revisions = pages.map(|page| page.entries.first().map_or(0, |entry| entry.revision));
        current.extend(some.iter().map(|compare| compare.key.clone()).zip(revisions));
    }
    conflicts(client, layout, compares, &current).await
}

async fn upload(
    client: &Client,
    layout: &Layout,
    held: u64,
    pieces: Vec<Vec<u8>>,
) -> Result<(), CommitError> {
    let (mut puts, mut bytes) = (Vec::new(), 0);
    for (number, value) in (0..).zip(pieces) {
        if !puts.is_empty() && (bytes + value.len() > UPLOAD_BYTES || puts.len() == MAX_OPERATIONS) {
            store(client, layout, held, std::mem::take(&mut puts)).await?;
            bytes = 0;
        }
        bytes += value.len();
        puts.push(Operation::Put { key: layout.chunk(number).into(), value, lease: None });
    }
    store(client, layout, held, puts).await
}

async fn store(client: &Client, layout: &Layout, held: u64, puts: Vec<Operation>) -> Result<(), CommitError> {
    let request = while_held(layout, held, puts);
    match repeated(client, &request).await.map_err(nothing_written)?.succeeded {
        true => Ok(()),
        false => Err(lock_lost()),
    }
}

fn lock_lost() -> CommitError {
    CommitError::Unavailable("the lock expired while the transaction was staged: try again".into())
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

/// The point of commit. A lost answer is looked up: the interval key exists if and only if it was committed.
async fn commit(client: &Client, layout: &Layout, held: u64, lock: &Lock) -> Result<(), CommitError> {
    let committed = Lock { state: Stage::Committed, ..lock.clone() };
    let interval = Operation::Put { key: layout.interval(lock.id).into(), value: Vec::new(), lease: None };
    let mut request = while_held(layout, held, vec![committed.put(layout, None), interval]);
    request.otherwise = vec![look(&layout.interval(lock.id))];
    // A retry finds the lock advanced by the first attempt.
    let outcome = repeated(client, &request).await.map_err(errors::commit)?;
    let was_committed =
        |outcome: Outcome| outcome.answers.into_iter().map(page).any(|interval| !interval.entries.is_empty());
    if outcome.succeeded || was_committed(outcome) { Ok(()) } else { Err(lock_lost()) }
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
        let request = while_held(layout, entry.revision, step(client, layout, &lock).await?);
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

/// Operations that apply the next chunk.
async fn step(client: &Client, layout: &Layout, lock: &Lock) -> Result<Vec<Operation>, FinishError> {
    let writes = read_chunk(client, layout, lock).await?;
    let mut operations: Vec<_> = writes.into_iter().map(|write| operation(write, None)).collect();
    let next = lock.next.saturating_add(1);
    if next < lock.chunks {
        operations.push(Lock { next, ..lock.clone() }.put(layout, None));
    } else {
        operations.push(Operation::Delete(Range::key(layout.lock())));
        operations.push(Operation::Delete(layout.chunks()));
        operations.push(Operation::Put {
            key: layout.interval(lock.id).into(),
            value: Vec::new(),
            lease: None,
        });
    }
    Ok(operations)
}

async fn read_chunk(client: &Client, layout: &Layout, lock: &Lock) -> Result<Vec<Write>, FinishError> {
    let key = layout.chunk(lock.next);
    match client.get(key.clone()).await? {
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
