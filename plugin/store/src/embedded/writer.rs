//! Writer thread: gathers the queued transactions, writes them as one batch, answers.
//!
//! It also decides what an error means for the callers that wait, and for later ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::Database;
use tokio::sync::{mpsc, oneshot, watch};

use super::batch::{self, Outcome, Prepared};
use super::file::{Fault, Faults};
use super::open::{Opened, Source};
use super::panics::caught;
use super::read::FileReader;
use crate::history::History;
use crate::{ChangeSet, CommitError, Revision, StoreError, Transaction, Write};

/// A batch ends at this many transactions, so that the first does not wait for an endless queue...
const BATCH_TRANSACTIONS: usize = 512;

/// ...or after this many bytes, so that its pages fit into memory. A larger transaction is a batch of its own.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Pause before a write to a full disk is retried: looking for room means reopening the file.
const FULL_PAUSE: Duration = Duration::from_secs(1);

/// A transaction and the channel to its caller.
#[derive(Debug)]
pub(super) struct Job {
    /// A valid transaction.
    pub(super) transaction: Transaction,
    /// Receives the outcome; the caller may be gone.
    pub(super) answer: oneshot::Sender<Result<Revision, CommitError>>,
}

type Answer = oneshot::Sender<Result<Revision, CommitError>>;

/// Owns all writing to one store.
pub(super) struct WriterThread {
    source: Source,
    faults: Faults,
    reader: FileReader,
    history: Arc<History>,
    /// Revision of the newest durable transaction.
    revision: Revision,
    condition: Condition,
}

/// Ability of the store to take writes.
#[derive(Debug)]
enum Condition {
    Good,
    /// The disk was full; no write is tried before the instant.
    Full {
        reason: String,
        until: Instant,
    },
    /// Takes no writes until the store is reopened.
    Broken(String),
}

/// Failure to make a batch durable.
enum Failure {
    /// Nothing of it was written.
    Unwritten(String),
    /// Its commit, which would have led to this result, failed halfway. The content of the disk is unknown.
    Halfway(String, Written),
}

impl Failure {
    fn reason(&self) -> &str {
        match self {
            Self::Unwritten(reason) | Self::Halfway(reason, _) => reason,
        }
    }
}

/// The result of a batch.
struct Written {
    outcomes: Vec<Outcome>,
    /// The store's revision after it.
    revision: Revision,
}

impl WriterThread {
    /// Writes to what `reader` reads, opened from `source`, whose revision is `revision`.
    pub(super) fn new(
        source: Source,
        faults: Faults,
        revision: Revision,
        reader: FileReader,
        history: Arc<History>,
    ) -> Self {
        Self { source, faults, reader, history, revision, condition: Condition::Good }
    }

    /// Starts the thread. It ends when `jobs` has no sender left, and drops `alive` last.
    pub(super) fn spawn(self, jobs: mpsc::Receiver<Job>, alive: watch::Sender<()>) -> Result<(), StoreError> {
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || self.run(jobs, alive))
            .map(drop)
            .map_err(|error| StoreError::Unavailable(format!("its thread cannot be started: {error}")))
    }

    fn run(mut self, mut jobs: mpsc::Receiver<Job>, alive: watch::Sender<()>) {
        while let Some(first) = jobs.blocking_recv() {
            self.process(gather(first, &mut jobs));
        }
        self.shut();
        drop(alive);
    }

    fn shut(&self) {
        self.reader.exchange(|database| {
            if let Some(Err(reason)) = database.map(|database| guarded(|| Ok(database.close()?))) {
                tracing::warn!(reason, "store file not closed cleanly; checking it at the next open");
            }
            Err(StoreError::Closed)
        });
        self.history.close();
    }

    fn process(&mut self, jobs: Vec<Job>) {
        let (transactions, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.transaction, job.answer)).unzip();
        let result = match self.admit() {
            Ok(()) => self.write(transactions).or_else(|failure| self.judge(failure)),
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(written) => self.publish(written, answers),
            Err(error) => answers.into_iter().for_each(|answer| tell(answer, Err(error.clone()))),
        }
    }

    /// Checks that a write may be tried now.
    fn admit(&mut self) -> Result<(), CommitError> {
        match &self.condition {
            Condition::Good => Ok(()),
            Condition::Broken(reason) => Err(CommitError::Unavailable(reason.clone())),
            Condition::Full { reason, until } if Instant::now() < *until => {
                Err(CommitError::Full(reason.clone()))
            }
            Condition::Full { .. } if self.reader.is_open() => Ok(()),
            Condition::Full { reason, .. } => {
                let (reason, before) = (reason.clone(), self.revision);
                self.reopen().map_err(|_| self.wait_for_room(reason))?;
                if self.revision != before {
                    // The batch of unknown outcome is there: its changes were never published.
                    self.history.restart(self.revision);
                }
                Ok(())
            }
        }
    }

    fn write(&self, transactions: Vec<Transaction>) -> Result<Written, Failure> {
        self.reader
            .with(|database| self.write_to(database, transactions))
            .unwrap_or_else(|error| Err(Failure::Unwritten(error.to_string())))
    }

    fn write_to(&self, database: &Database, transactions: Vec<Transaction>) -> Result<Written, Failure> {
        let prepared = guarded(|| batch::prepare(database, transactions, self.revision));
        let Prepared { transaction, outcomes, revision } = prepared.map_err(Failure::Unwritten)?;
        let written = Written { outcomes, revision };
        // Readers can see the batch before it is published.
        self.history.announce(revision);
        let ended = guarded(|| {
            if revision > self.revision { Ok(transaction.commit()?) } else { Ok(transaction.abort()?) }
        });
        match ended {
            Ok(()) => Ok(written),
            Err(reason) => Err(Failure::Halfway(reason, written)),
        }
    }

    fn publish(&mut self, written: Written, answers: Vec<Answer>) {
        self.condition = Condition::Good;
        self.revision = written.revision;
        let (sets, results): (Vec<_>, Vec<_>) = written.outcomes.into_iter().map(split).unzip();
        self.history.publish(sets.into_iter().flatten());
        answers.into_iter().zip(results).for_each(|(answer, result)| tell(answer, result));
    }

    /// Decides what `failure` means for its batch and for the store. The batch may turn out to be durable
    /// after all.
    fn judge(&mut self, failure: Failure) -> Result<Written, CommitError> {
        let reason = match self.faults.first() {
            Some(Fault::NoRoom(reason)) => return self.recover(failure, reason),
            Some(Fault::Sync(reason) | Fault::Device(reason)) => reason,
            None => failure.reason().to_owned(),
        };
        Err(self.give_up(&failure, &reason))
    }

    fn give_up(&mut self, failure: &Failure, reason: &str) -> CommitError {
        let reason = format!("{reason}; check the disk and restart the plugin");
        tracing::error!(store = %self.source.name(), %reason, "store failed; refusing writes until restart");
        self.condition = Condition::Broken(reason.clone());
        match failure {
            Failure::Unwritten(_) => CommitError::Unavailable(reason),
            Failure::Halfway(..) => CommitError::Unknown(reason),
        }
    }

    /// Reopens the file, since redb does not go on after a full disk: its content tells what is durable.
    fn recover(&mut self, failure: Failure, reason: String) -> Result<Written, CommitError> {
        let before = self.revision;
        let reopened = self.reopen();
        match (failure, reopened) {
            (Failure::Halfway(_, written), Ok(())) if self.revision == written.revision => Ok(written),
            (_, Ok(())) if self.revision == before => Err(self.wait_for_room(reason)),
            (Failure::Unwritten(_), Err(_)) => Err(self.wait_for_room(reason)),
            (Failure::Halfway(..), Err(_)) => {
                self.wait_for_room(reason.clone());
                Err(CommitError::Unknown(reason))
            }
            (failure, Ok(())) => Err(self.give_up(&failure, "the store's revision makes no sense")),
        }
    }

    fn wait_for_room(&mut self, reason: String) -> CommitError {
        tracing::warn!(store = %self.source.name(), %reason, "disk of the store is full; refusing writes until there is room");
        self.condition = Condition::Full { reason: reason.clone(), until: Instant::now() + FULL_PAUSE };
        CommitError::Full(reason)
    }

    /// Reopens the file. Readers wait meanwhile; snapshots in progress fail.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let (source, mut result) = (&self.source, Err(StoreError::Closed));
        self.reader.exchange(|database| {
            // Its file has failed, so the result of closing it tells nothing.
            let _ = database.map(|database| guarded(|| Ok(database.close()?)));
            let (database, state) = match source.open() {
                Ok(Opened { database, faults, revision }) => (Ok(database), Ok((faults, revision))),
                Err(error) => (Err(error.clone()), Err(error)),
            };
            result = state;
            database
        });
        let (faults, revision) = result?;
        self.faults = faults;
        self.revision = revision;
        Ok(())
    }
}

/// `first` and all that wait behind it now, within the bounds of a batch.
fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = size(&first.transaction);
    let mut batch = vec![first];
    while batch.len() < BATCH_TRANSACTIONS && bytes < BATCH_BYTES {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += size(&job.transaction);
        batch.push(job);
    }
    batch
}

fn size(transaction: &Transaction) -> usize {
    transaction.writes.iter().map(Write::size).sum()
}

/// Runs `step`; an error or a panic becomes text. redb may panic on pages that something else has damaged.
fn guarded<T>(step: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, String> {
    match caught(step) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the structure of its file makes no sense".into()),
    }
}

fn split(outcome: Outcome) -> (Option<ChangeSet>, Result<Revision, CommitError>) {
    match outcome {
        Outcome::Changed(set) => {
            let revision = set.revision;
            (Some(set), Ok(revision))
        }
        Outcome::Unchanged(revision) => (None, Ok(revision)),
        Outcome::Conflict(keys) => (None, Err(CommitError::Conflict { keys })),
    }
}

fn tell(answer: Answer, result: Result<Revision, CommitError>) {
    // A caller that has stopped waiting needs no answer.
    let _ = answer.send(result);
}
