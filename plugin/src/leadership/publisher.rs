//! Publishes the reconciler's observations for the followers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use uuid::Uuid;

use crate::catalog::{Model, ModelNotice};
use crate::resources::{STATUSES, head_key, leader_key, parse_status, status_key};
use crate::status::StatusRecord;
use fiberlb_store::{CommitError, Compare, MAX_VALUE_BYTES, Revision, Store, StoreError, Transaction, Write};

/// Batching window: wait of the first observation for others.
const GATHER: Duration = Duration::from_millis(10);
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// Most statuses in one transaction.
const MOST: usize = 50;
/// Bytes of statuses in one transaction; one status always fits.
const BYTES: usize = 512 * 1024;

/// Publishes observations while this plugin leads.
pub(super) struct Publisher {
    model: Arc<Model>,
    store: Arc<dyn Store>,
    /// Revision of the leader's key; every write compares it.
    tenure: Revision,
    /// Hash of each load balancer's last published status; unchanged ones are not written.
    published: HashMap<Uuid, u64>,
    notices: broadcast::Receiver<ModelNotice>,
}

/// Status to be written.
struct PendingStatus {
    id: Uuid,
    head: Revision,
    value: Vec<u8>,
}

impl Publisher {
    /// A publisher that is subscribed to the model.
    ///
    /// # Errors
    /// The published statuses cannot be read.
    pub(super) async fn new(
        model: Arc<Model>,
        store: Arc<dyn Store>,
        tenure: Revision,
    ) -> Result<Self, StoreError> {
        let notices = model.subscribe();
        let mut published = HashMap::new();
        let mut snapshot = store.snapshot(STATUSES).await?;
        while let Some(entries) = snapshot.next().await? {
            let statuses =
                entries.into_iter().filter_map(|entry| Some((parse_status(&entry.key)?, hash(&entry.value))));
            published.extend(statuses);
        }
        Ok(Self { model, store, tenure, published, notices })
    }

    /// Runs until leadership is lost.
    pub(super) async fn run(mut self) {
        // Statuses that are known, and missing or malformed in the store.
        let mut waiting: BTreeSet<Uuid> =
            self.model.load_balancers().into_iter().filter(|id| self.is_known(*id)).collect();
        loop {
            if waiting.is_empty() {
                let notice = self.notices.recv().await;
                self.note(&notice, &mut waiting);
                tokio::time::sleep(GATHER).await;
            }
            while let Ok(notice) = self.notices.try_recv() {
                self.note(&Ok(notice), &mut waiting);
            }
            match self.publish(&mut waiting).await {
                Ok(()) => {}
                Err(CommitError::Conflict { .. }) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to publish statuses; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// True if the load balancer has been observed since it was made.
    fn is_known(&self, id: Uuid) -> bool {
        let observation = self.model.observation(id);
        observation.applied.is_some() || observation.failure.is_some()
    }

    fn note(
        &mut self,
        notice: &Result<ModelNotice, broadcast::error::RecvError>,
        waiting: &mut BTreeSet<Uuid>,
    ) {
        match notice {
            Ok(ModelNotice::Observation(id)) => {
                waiting.insert(*id);
            }
            Ok(ModelNotice::Specification(id)) if self.model.tree(*id).is_none() => {
                self.published.remove(id);
            }
            Ok(ModelNotice::Specification(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => waiting.extend(self.model.load_balancers()),
        }
    }

    /// Writes the changed statuses of the load balancers in `waiting`.
    ///
    /// # Errors
    /// A conflict means that leadership is lost. After other errors the unwritten ones are still in
    /// `waiting`.
    async fn publish(&mut self, waiting: &mut BTreeSet<Uuid>) -> Result<(), CommitError> {
        while !waiting.is_empty() {
            let news = self.take(waiting);
            if news.is_empty() {
                continue;
            }
            match self.store.commit(self.transaction(&news)).await {
                Ok(_) => self.published.extend(news.iter().map(|news| (news.id, hash(&news.value)))),
                Err(CommitError::Conflict { keys }) if !keys.contains(&leader_key()) => {
                    // A tree that was written meanwhile will be observed and notified again.
                    let kept = news.iter().filter(|news| !keys.contains(&head_key(news.id)));
                    waiting.extend(kept.map(|news| news.id));
                }
                Err(error) => {
                    waiting.extend(news.iter().map(|news| news.id));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Takes as many as fit one transaction; unchanged statuses are skipped.
    fn take(&self, waiting: &mut BTreeSet<Uuid>) -> Vec<PendingStatus> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MOST && bytes < BYTES {
            let Some(id) = waiting.pop_first() else { break };
            if let Some(news) = self.news(id) {
                bytes += news.value.len();
                taken.push(news);
            }
        }
        taken
    }

    fn news(&self, id: Uuid) -> Option<PendingStatus> {
        let tree = self.model.tree(id)?;
        let record = StatusRecord::of(&tree, &self.model.observation(id));
        let mut value = record.encode().ok()?;
        if value.len() > MAX_VALUE_BYTES {
            value = record.without_verdicts().encode().ok()?;
        }
        if value.len() > MAX_VALUE_BYTES {
            tracing::warn!(load_balancer = %id, bytes = value.len(), "status too large to publish; skipping it");
            return None;
        }
        let is_news = self.published.get(&id) != Some(&hash(&value));
        is_news.then_some(PendingStatus { id, head: tree.head, value })
    }

    fn transaction(&self, news: &[PendingStatus]) -> Transaction {
        let leads = Compare { key: leader_key(), revision: self.tenure };
        let heads = news.iter().map(|news| Compare { key: head_key(news.id), revision: news.head });
        let writes = news
            .iter()
            .map(|news| Write::Put { key: status_key(news.id), value: news.value.clone() })
            .collect();
        Transaction { compares: [leads].into_iter().chain(heads).collect(), writes }
    }
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

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
        let tenure = store.commit(Transaction { compares: Vec::new(), writes: leads }).await.unwrap();
        store.commit(transaction(None, Some(&tree())).unwrap()).await.unwrap();
        let model = Arc::new(Model::load(&*store).await.unwrap());
        model.lead(true);
        let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
        tokio::spawn(async move { followed.follow(&*source).await });
        (store, model, tenure)
    }

    fn observe(model: &Model, reason: &str) {
        let failure = Some(ApplyFailure { reason: reason.into(), next_attempt_at: 1 });
        let applied = model.tree(LOAD_BALANCER);
        model.observe(LOAD_BALANCER, Observation { applied, failure, ..Observation::default() });
    }

    async fn published(store: &MemoryStore) -> String {
        let mut watch = store.watch(STATUSES, Revision::ZERO).await.unwrap();
        let set = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
        let value = set.changes.first().and_then(|change| change.value.clone()).unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_is_observed_is_published_once() {
        let (store, model, tenure) = site().await;
        let publisher = Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, tenure).await.unwrap();
        let running = tokio::spawn(publisher.run());
        observe(&model, "no such switch");
        assert!(published(&store).await.contains("no such switch"));
        running.abort();
        // A later leader, or this one again, finds it published.
        let again = Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, tenure).await.unwrap();
        assert!(again.take(&mut BTreeSet::from([LOAD_BALANCER])).is_empty());
        observe(&model, "another reason");
        assert_eq!(again.take(&mut BTreeSet::from([LOAD_BALANCER])).len(), 1);
    }

    #[tokio::test]
    async fn what_is_missing_in_the_store_and_known_is_published_again() {
        let (store, model, tenure) = site().await;
        observe(&model, "known from before");
        let publisher = Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, tenure).await.unwrap();
        let running = tokio::spawn(publisher.run());
        assert!(published(&store).await.contains("known from before"));
        running.abort();
    }

    #[tokio::test]
    async fn one_that_leads_no_more_publishes_nothing() {
        let (store, model, tenure) = site().await;
        let publisher = Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, tenure).await.unwrap();
        let running = tokio::spawn(publisher.run());
        let other = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
        store.commit(Transaction { compares: Vec::new(), writes: other }).await.unwrap();
        observe(&model, "late");
        tokio::time::timeout(Duration::from_secs(10), running).await.unwrap().unwrap();
        assert!(store.snapshot(STATUSES).await.unwrap().collect().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_tree_that_was_written_meanwhile_waits_for_its_next_observation() {
        let (store, model, tenure) = site().await;
        let mut publisher =
            Publisher::new(Arc::clone(&model), Arc::clone(&store) as _, tenure).await.unwrap();
        observe(&model, "old");
        let head = vec![Write::Put { key: head_key(LOAD_BALANCER), value: b"{}".to_vec() }];
        let before = model.tree(LOAD_BALANCER).unwrap();
        let news = publisher.take(&mut BTreeSet::from([LOAD_BALANCER]));
        assert_eq!(news.first().map(|news| news.head), Some(before.head));
        store.commit(Transaction { compares: Vec::new(), writes: head }).await.unwrap();
        let refused = store.commit(publisher.transaction(&news)).await;
        assert!(matches!(refused, Err(CommitError::Conflict { keys }) if keys == [head_key(LOAD_BALANCER)]));
        // In either order with the model, nothing wrong is published and nothing waits for ever.
        let mut waiting = BTreeSet::from([LOAD_BALANCER]);
        publisher.publish(&mut waiting).await.unwrap();
        assert!(waiting.is_empty());
    }
}
