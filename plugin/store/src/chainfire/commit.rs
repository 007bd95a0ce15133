//! Transactions that fit one of the cluster's.

use std::collections::HashMap;
use std::time::Duration;

use chainfire_client::{
    Answer, Client, Compare, LeaseId, MAX_COMPARES, Operation, Page, Range,
    Transaction as ClusterTransaction, max_operations,
};

use super::super::transaction::failed_compares;
use super::super::{CommitError, Compare as StoreCompare, Revision, Transaction, Write};
use super::chunk::CHUNK_BYTES;
use super::layout::Layout;
use super::{errors, read, staged};

/// Attempts at a transaction that meets a staged one each time.
const ATTEMPTS: usize = 50;

/// A transaction that is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    pub(super) revision: u64,
    /// It changed something: watches will show it.
    pub(super) changed: bool,
}

/// Returns true if it fits one transaction of the cluster; one compare is for the lock.
pub(super) fn fits(transaction: &Transaction) -> bool {
    let bytes: usize = transaction.writes.iter().map(Write::size).sum();
    let compared: usize = transaction.compares.iter().map(|compare| compare.key.len()).sum();
    transaction.compares.len() < MAX_COMPARES
        && transaction.writes.len() <= max_operations(transaction.compares.len() + 1)
        // The keys of compares are sent twice: to compare, and to find those that failed.
        && bytes + 2 * compared <= CHUNK_BYTES
}

/// Commits with one transaction of the cluster, which also checks that no staged one is in progress. Puts are
/// attached to `lease`, if there is one.
pub(super) async fn small(
    client: &Client,
    layout: &Layout,
    transaction: Transaction,
    lease: Option<LeaseId>,
) -> Result<Committed, CommitError> {
    // The cluster's revision, in place of the one that the caller knows, for keys of staged transactions.
    let mut revisions: HashMap<String, u64> = HashMap::new();
    for _ in 0..ATTEMPTS {
        let request = request(layout, &transaction, &revisions, lease);
        let outcome = client.transact(request).await.map_err(errors::commit)?;
        if outcome.succeeded {
            let changed = outcome.answers.iter().any(|answer| !matches!(answer, Answer::Deleted(0)));
            return Ok(Committed { revision: outcome.revision, changed });
        }
        let mut pages = outcome.answers.into_iter().map(page);
        if pages.next().is_some_and(|lock| !lock.entries.is_empty()) {
            staged::await_lock(client, layout).await?;
            continue;
        }
        let current = pages.map(|page| page.entries.first().map_or(0, |entry| entry.revision));
        let current: HashMap<_, _> =
            transaction.compares.iter().map(|compare| compare.key.clone()).zip(current).collect();
        conflicts(client, layout, &transaction.compares, &current).await?;
        revisions = current;
    }
    Err(CommitError::Unavailable("other transactions came first each time: try again".into()))
}

fn request(
    layout: &Layout,
    transaction: &Transaction,
    revisions: &HashMap<String, u64>,
    lease: Option<LeaseId>,
) -> ClusterTransaction {
    let unlocked = Compare { key: layout.lock().into(), revision: 0 };
    let compares = transaction.compares.iter().map(|compare| Compare {
        key: compare.key.clone().into(),
        revision: revisions.get(&compare.key).copied().unwrap_or(compare.revision.0),
    });
    let seen = transaction.compares.iter().map(|compare| look(&compare.key));
    ClusterTransaction {
        compares: [unlocked].into_iter().chain(compares).collect(),
        then: transaction.writes.iter().cloned().map(|write| operation(write, lease)).collect(),
        otherwise: [look(&layout.lock())].into_iter().chain(seen).collect(),
    }
}

/// Operation that reads a key's revision.
pub(super) fn look(key: &str) -> Operation {
    Operation::Get(Range::key(key).keys_only())
}

/// The cluster's form of a write.
pub(super) fn operation(write: Write, lease: Option<LeaseId>) -> Operation {
    match write {
        Write::Put { key, value } => Operation::Put { key: key.into(), value, lease },
        Write::Delete { key } => Operation::Delete(Range::key(key)),
    }
}

/// Page of a read; empty for other operations.
pub(super) fn page(answer: Answer) -> Page {
    match answer {
        Answer::Got(page) => page,
        Answer::Put | Answer::Deleted(_) => Page::default(),
    }
}

/// Fails with the compares that do not hold, given the cluster's revision of each key. A key of a staged
/// transaction may have been put by any of the cluster's transactions that applied it.
pub(super) async fn conflicts(
    client: &Client,
    layout: &Layout,
    compares: &[StoreCompare],
    current: &HashMap<String, u64>,
) -> Result<(), CommitError> {
    let of = |key: &str| current.get(key).copied().unwrap_or(0);
    let mut known: HashMap<u64, u64> = HashMap::new();
    for compare in compares {
        let found = of(&compare.key);
        // A staged transaction's own revision is the last of those that applied it.
        if found != 0 && found < compare.revision.0 && !known.contains_key(&found) {
            let revision = read::revision_of(client, layout, found).await.map_err(errors::commit)?;
            known.insert(found, revision);
        }
    }
    let failed = failed_compares(compares, |key| {
        let found = of(key);
        Ok::<_, std::convert::Infallible>(Revision(known.get(&found).copied().unwrap_or(found)))
    });
    match failed {
        Ok(keys) if keys.is_empty() => Ok(()),
        Ok(keys) => Err(CommitError::Conflict { keys }),
        Err(never) => match never {},
    }
}

/// Pause before another look at a lock.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(20);
