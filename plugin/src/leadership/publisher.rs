//! Publishes the reconciler's observations: for the followers, and for the plugin itself after its restart.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use uuid::Uuid;

use crate::catalog::{Model, ModelNotice};
use crate::resources::{
    STATUSES, Tree, head_key, leader_key, parse_status_part, status_key, status_part_key,
};
use crate::status::StatusRecord;
use fiberlb_store::{CommitError, Compare, MAX_VALUE_BYTES, Revision, Store, StoreError, Transaction, Write};

/// Batching window: wait of the first observation for others, where followers wait for it.
const GATHER: Duration = Duration::from_millis(10);
/// The same on a store of its own, where only a restart needs what is published: each write costs as much as that of a tree.
const GATHER_ALONE: Duration = Duration::from_secs(1);
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// Most statuses in one transaction.
const MOST: usize = 50;
/// Bytes of statuses in one transaction; one status always fits.
const BYTES: usize = 512 * 1024;
/// Largest status that is published as one value.
const WHOLE_BYTES: usize = MAX_VALUE_BYTES / 4;

/// Publishes observations while this plugin leads.
pub(super) struct Publisher {
    model: Arc<Model>,
    store: Arc<dyn Store>,
    /// Revision of the leader's key, which every write compares; `None` on a store of its own.
    term: Option<Revision>,
    /// Hashes of the published values, by key; unchanged ones are not written.
    published: BTreeMap<String, u64>,
    notices: broadcast::Receiver<ModelNotice>,
    /// Load balancers whose status may have changed since it was published.
    waiting: BTreeSet<Uuid>,
}

/// Status to be written.
struct PendingStatus {
    id: Uuid,
    /// Head of its tree; `None` for what is left of one that is gone.
    head: Option<Revision>,
    writes: Vec<Write>,
}

impl Publisher {
    /// A publisher that is subscribed to the model.
    ///
    /// # Errors
    /// The published statuses cannot be read.
    pub(super) async fn new(
        model: Arc<Model>,
        store: Arc<dyn Store>,
        term: Option<Revision>,
    ) -> Result<Self, StoreError> {
        let notices = model.subscribe();
        let (mut published, mut waiting) = (BTreeMap::new(), BTreeSet::new());
        let mut snapshot = store.snapshot(STATUSES).await?;
        while let Some(entries) = snapshot.next().await? {
            // Of a load balancer that is gone there may be parts left.
            waiting.extend(entries.iter().filter_map(|entry| Some(parse_status_part(&entry.key)?.0)));
            published.extend(entries.into_iter().map(|entry| (entry.key, hash(&entry.value))));
        }
        // Those that are known, and missing or malformed in the store.
        waiting.extend(model.load_balancers());
        Ok(Self { model, store, term, published, notices, waiting })
    }

    /// Runs until leadership is lost. Cancel safe.
    pub(super) async fn run(&mut self) {
        let gather = if self.term.is_some() { GATHER } else { GATHER_ALONE };
        loop {
            if self.waiting.is_empty() {
                let notice = self.notices.recv().await;
                self.note(&notice);
                tokio::time::sleep(gather).await;
            }
            match self.publish().await {
                Ok(()) => {}
                Err(CommitError::Conflict { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to publish statuses; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Records a notice of the model.
    fn note(&mut self, notice: &Result<ModelNotice, RecvError>) {
        match notice {
            Ok(ModelNotice::Observation(id)) => {
                self.waiting.insert(*id);
            }
            Ok(ModelNotice::Specification(id)) if self.model.tree(*id).is_none() => {
                self.waiting.insert(*id);
            }
            Ok(ModelNotice::Specification(_)) | Err(RecvError::Closed) => {}
            Err(RecvError::Lagged(_)) => {
                self.waiting.extend(self.model.load_balancers());
                // Those that are gone have left their statuses.
                let published = self.published.keys();
                self.waiting.extend(published.filter_map(|key| Some(parse_status_part(key)?.0)));
            }
        }
    }

    /// Writes the changed statuses of the load balancers that wait, and of those that the model has given notice of.
    ///
    /// # Errors
    /// A conflict means that leadership is lost. After other errors the unwritten ones still wait.
    pub(super) async fn publish(&mut self) -> Result<(), CommitError> {
        loop {
            match self.notices.try_recv() {
                Ok(notice) => self.note(&Ok(notice)),
                Err(TryRecvError::Lagged(missed)) => self.note(&Err(RecvError::Lagged(missed))),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        while !self.waiting.is_empty() {
            let (mut seen, news) = self.take();
            if !news.is_empty() {
                match self.store.commit(self.transaction(&news)).await {
                    Ok(_) => self.wrote(news),
                    Err(CommitError::Conflict { keys }) if !keys.contains(&leader_key()) => {
                        // A tree that was written meanwhile will be observed and notified again.
                        seen.retain(|id| {
                            keys.contains(&head_key(*id)) || news.iter().all(|news| news.id != *id)
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
            self.waiting.retain(|id| !seen.contains(id));
        }
        Ok(())
    }

    /// Takes as many waiting ids as fit one transaction, and returns them with the changed statuses among them.
    fn take(&self) -> (BTreeSet<Uuid>, Vec<PendingStatus>) {
        let (mut seen, mut news, mut bytes) = (BTreeSet::new(), Vec::new(), 0);
        for id in &self.waiting {
            if news.len() == MOST || bytes >= BYTES {
                break;
            }
            seen.insert(*id);
            if let Some(pending) = self.news(*id) {
                bytes += pending.writes.iter().map(bytes_of).sum::<usize>();
                news.push(pending);
            }
        }
        (seen, news)
    }

    fn news(&self, id: Uuid) -> Option<PendingStatus> {
        let tree = self.model.tree(id);
        let values = match &tree {
            Some(tree) => self.values(tree)?,
            None => Vec::new(),
        };
        let is_published = |key: &str, value: &[u8]| self.published.get(key) == Some(&hash(value));
        let is_news = values.iter().any(|(key, value)| !is_published(key, value));
        let parts = self.published.range(status_part_key(id, 0)..=status_part_key(id, u16::MAX));
        let parts = parts.map(|(key, _)| key).filter(|key| values.iter().all(|(kept, _)| kept != *key));
        let mut writes: Vec<Write> = parts.map(|key| Write::Delete { key: key.clone() }).collect();
        // The first value says that there is news in the others.
        let main = status_key(id);
        let changed = values.into_iter().filter(|(key, value)| *key == main || !is_published(key, value));
        if is_news {
            writes.extend(changed.map(|(key, value)| Write::Put { key, value }));
        }
        (!writes.is_empty()).then(|| PendingStatus { id, head: tree.map(|tree| tree.head), writes })
    }

    /// Values of a tree's status, the one that the others are parts of last; `None` if it has not been observed since it
    /// was made.
    fn values(&self, tree: &Tree) -> Option<Vec<(String, Vec<u8>)>> {
        let (id, observation) = (tree.id(), self.model.observation(tree.id()));
        if observation.applied.is_none() && observation.failure.is_none() {
            return None;
        }
        let record = StatusRecord::of(tree, &observation);
        let whole = record.encode().ok()?;
        if whole.len() <= WHOLE_BYTES {
            return Some(vec![(status_key(id), whole)]);
        }
        let (main, parts) = record.cut(tree);
        let mut values = Vec::new();
        for (number, part) in (0..).zip(parts) {
            let mut value = part.encode().ok()?;
            if value.len() > MAX_VALUE_BYTES {
                value = part.without_verdicts().encode().ok()?;
            }
            values.push((status_part_key(id, number), value));
        }
        values.push((status_key(id), main.encode().ok()?));
        Some(values)
    }

    fn transaction(&self, news: &[PendingStatus]) -> Transaction {
        let leads = self.term.map(|revision| Compare { key: leader_key(), revision });
        let heads =
            news.iter().filter_map(|news| Some(Compare { key: head_key(news.id), revision: news.head? }));
        let writes = news.iter().flat_map(|news| news.writes.clone()).collect();
        Transaction { compares: leads.into_iter().chain(heads).collect(), writes }
    }

    fn wrote(&mut self, news: Vec<PendingStatus>) {
        for news in news {
            if news.head.is_none() {
                self.published.remove(&status_key(news.id));
            }
            for write in news.writes {
                match write {
                    Write::Put { key, value } => drop(self.published.insert(key, hash(&value))),
                    Write::Delete { key } => drop(self.published.remove(&key)),
                }
            }
        }
    }
}

fn bytes_of(write: &Write) -> usize {
    match write {
        Write::Put { value, .. } => value.len(),
        Write::Delete { .. } => 0,
    }
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod large;
#[cfg(test)]
mod sequences;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{LOAD_BALANCER, tree};
    use crate::resources::transaction;
    use crate::status::{ApplyFailure, Observation};
    use fiberlb_store::MemoryStore;

    /// A store whose leader is this plugin since the returned revision, with the tree of the examples, and a
    /// model of it.
    async fn site() -> (Arc<MemoryStore>, Arc<Model>, Revision) {
        let store = Arc::new(MemoryStore::default());
        let leads = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
        let term = store.commit(Transaction { compares: Vec::new(), writes: leads }).await.unwrap();
        store.commit(transaction(None, Some(&tree())).unwrap()).await.unwrap();
        let model = Arc::new(Model::load(&*store).await.unwrap());
        model.lead(true);
        let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
        tokio::spawn(async move { followed.follow(&*source).await });
        (store, model, term)
    }

    fn observe(model: &Model, reason: &str) {
        let failure = Some(ApplyFailure {
            reason: reason.into(),
            next_attempt_at: 1,
            scope: crate::status::FailureScope::Changes,
        });
        let applied = model.tree(LOAD_BALANCER);
        model.observe(LOAD_BALANCER, Observation { applied, failure, ..Observation::default() });
    }

    fn start(mut publisher: Publisher) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { publisher.run().await })
    }

    async fn published(store: &MemoryStore) -> String {
        let mut watch = store.watch(STATUSES, Revision::ZERO).await.unwrap();
        let set = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
        let value = set.changes.first().and_then(|change| change.value.clone()).unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_observed_is_published_once() {
        let (store, model, term) = site().await;
        let publisher =
            Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, Some(term)).await.unwrap();
        let running = start(publisher);
        observe(&model, "no such switch");
        assert!(published(&store).await.contains("no such switch"));
        running.abort();
        // A later leader, or this one again, finds it published.
        let again = Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, Some(term)).await.unwrap();
        assert!(again.waiting.contains(&LOAD_BALANCER) && again.take().1.is_empty());
        observe(&model, "another reason");
        assert_eq!(again.take().1.len(), 1);
    }

    #[tokio::test]
    async fn what_is_missing_in_the_store_and_known_is_published_again() {
        let (store, model, term) = site().await;
        observe(&model, "known from before");
        let publisher =
            Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, Some(term)).await.unwrap();
        let running = start(publisher);
        assert!(published(&store).await.contains("known from before"));
        running.abort();
    }

    #[tokio::test]
    async fn one_that_leads_no_more_publishes_nothing() {
        let (store, model, term) = site().await;
        let publisher =
            Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, Some(term)).await.unwrap();
        let running = start(publisher);
        let other = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
        store.commit(Transaction { compares: Vec::new(), writes: other }).await.unwrap();
        observe(&model, "late");
        tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
        assert!(store.snapshot(STATUSES).await.unwrap().collect().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_tree_that_was_written_meanwhile_waits_for_its_next_observation() {
        let (store, model, term) = site().await;
        let mut publisher =
            Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, Some(term)).await.unwrap();
        observe(&model, "old");
        let head = vec![Write::Put { key: head_key(LOAD_BALANCER), value: b"{}".to_vec() }];
        let before = model.tree(LOAD_BALANCER).unwrap();
        let (_, news) = publisher.take();
        assert_eq!(news.first().map(|news| news.head), Some(Some(before.head)));
        store.commit(Transaction { compares: Vec::new(), writes: head }).await.unwrap();
        let refused = store.commit(publisher.transaction(&news)).await;
        assert!(matches!(refused, Err(CommitError::Conflict { keys }) if keys == [head_key(LOAD_BALANCER)]));
        // In either order with the model, nothing wrong is published and nothing waits for ever.
        publisher.publish().await.unwrap();
        assert!(publisher.waiting.is_empty());
    }
}
