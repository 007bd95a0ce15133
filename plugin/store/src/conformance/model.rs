//! Random histories: a store must do what a plain map does.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::{Change, CommitError};
use super::*;

/// Few keys, so that they meet; one is a prefix of others.
const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/b", "/b/1", "/c"];

#[derive(Clone, Debug)]
enum Step {
    Commit { compares: Vec<(usize, Expectation)>, writes: Vec<(usize, Option<u8>)> },
    Reopen,
}

#[derive(Clone, Debug)]
enum Expectation {
    AsItIs,
    Absent,
    Other(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let expectation = prop_oneof![
        6 => Just(Expectation::AsItIs),
        1 => Just(Expectation::Absent),
        1 => (0..20_u64).prop_map(Expectation::Other),
    ];
    let compares = prop::collection::vec((0..KEYS.len(), expectation), 0..4);
    let writes = prop::collection::vec((0..KEYS.len(), prop::option::weighted(0.7, any::<u8>())), 0..5);
    prop_oneof![
        12 => (compares, writes).prop_map(|(compares, writes)| Step::Commit { compares, writes }),
        1 => Just(Step::Reopen),
    ]
}

/// Expected content of a store.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, (Vec<u8>, Revision)>,
    revision: Revision,
    /// Change sets that a watch should have shown.
    published: Vec<ChangeSet>,
}

impl Model {
    fn revision_of(&self, key: &str) -> Revision {
        self.entries.get(key).map_or(Revision::ZERO, |(_, revision)| *revision)
    }

    fn transaction(&self, compares: &[(usize, Expectation)], writes: &[(usize, Option<u8>)]) -> Transaction {
        let compares = compares.iter().map(|(key, expectation)| {
            let key = KEYS[*key];
            let revision = match expectation {
                Expectation::AsItIs => self.revision_of(key),
                Expectation::Absent => Revision::ZERO,
                Expectation::Other(revision) => Revision(*revision),
            };
            compare(key, revision)
        });
        let writes = writes.iter().map(|(key, value)| match value {
            Some(value) => Write::Put { key: KEYS[*key].into(), value: vec![*value] },
            None => delete(KEYS[*key]),
        });
        Transaction { compares: compares.collect(), writes: writes.collect() }
    }

    /// Applies the expected effect of a commit, given the revision that the store chose.
    fn commit(&mut self, transaction: Transaction, result: &Result<Revision, CommitError>) {
        if transaction.validate().is_err() {
            return assert!(matches!(result, Err(CommitError::Invalid(_))), "{result:?}");
        }
        let failed = transaction.compares.into_iter().filter(|c| self.revision_of(&c.key) != c.revision);
        let failed: Vec<_> = failed.map(|compare| compare.key).collect();
        if !failed.is_empty() {
            return assert_eq!(*result, Err(CommitError::Conflict { keys: failed }));
        }
        let revision = *result.as_ref().unwrap();
        let mut changes = Vec::new();
        for write in transaction.writes {
            changes.extend(self.write(write, revision));
        }
        if changes.is_empty() {
            return assert_eq!(revision, self.revision);
        }
        assert!(revision > self.revision);
        self.revision = revision;
        self.published.push(ChangeSet { revision, changes });
    }

    fn write(&mut self, write: Write, revision: Revision) -> Option<Change> {
        match write {
            Write::Put { key, value } => {
                self.entries.insert(key.clone(), (value.clone(), revision));
                Some(Change { key, value: Some(value.into()) })
            }
            Write::Delete { key } => self.entries.remove(&key).map(|_| Change { key, value: None }),
        }
    }

    fn entries(&self, prefix: &str) -> Vec<Entry> {
        let inside = self.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        inside
            .map(|(key, (value, revision))| Entry {
                key: key.clone(),
                value: value.as_slice().into(),
                revision: *revision,
            })
            .collect()
    }
}

/// Runs `cases` random histories; with reopens if the backing keeps its data.
pub(super) fn check<B: Backing>(cases: u32, durable: bool) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let histories = prop::collection::vec(step(), 1..40);
    TestRunner::new(config)
        .run(&histories, |steps| {
            runtime.block_on(async { run(&B::new(), steps, durable).await });
            Ok(())
        })
        .unwrap();
}

async fn run(backing: &impl Backing, steps: Vec<Step>, durable: bool) {
    let mut store = backing.open(HistoryLimits::default());
    let mut model = Model { revision: backing.start(), ..Model::default() };
    let mut watched_from = model.revision;
    for step in steps {
        match step {
            Step::Commit { compares, writes } => {
                let transaction = model.transaction(&compares, &writes);
                let result = soon(store.commit(transaction.clone())).await;
                model.commit(transaction, &result);
            }
            Step::Reopen if durable => {
                check_watch(&*store, &model, watched_from).await;
                soon(store.close()).await;
                store = backing.open(HistoryLimits::default());
                watched_from = model.revision;
            }
            Step::Reopen => {}
        }
        check_entries(&*store, &model).await;
    }
    check_watch(&*store, &model, watched_from).await;
    soon(store.close()).await;
}

async fn check_entries(store: &dyn Store, model: &Model) {
    for prefix in ["", "/a", "/a/", "/none"] {
        let snapshot = soon(store.snapshot(prefix)).await.unwrap();
        assert_eq!(snapshot.revision(), model.revision);
        assert_eq!(snapshot.collect().await.unwrap(), model.entries(prefix));
    }
    for key in KEYS {
        let entry = soon(store.get(key)).await.unwrap();
        assert_eq!(entry.map_or(Revision::ZERO, |entry| entry.revision), model.revision_of(key));
    }
}

async fn check_watch(store: &dyn Store, model: &Model, after: Revision) {
    let mut watch = soon(store.watch("", after)).await.unwrap();
    for expected in model.published.iter().filter(|set| set.revision > after) {
        assert_eq!(*next(&mut watch).await, *expected);
    }
}
