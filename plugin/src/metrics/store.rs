//! A store that is timed.

use std::sync::Arc;
use std::time::Instant;

use fiberlb_store::{
    CommitError, Election, Entry, Revision, Snapshot, Store, StoreError, Transaction, Watch, WatchError,
};
use futures_util::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// All values of the label `request`.
pub(super) const REQUESTS: [&str; 3] = ["get", "commit", "snapshot"];

/// Request to the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StoreLabel {
    pub(super) request: &'static str,
}

/// Durations of requests to the store.
pub(super) type StoreDurations = Family<StoreLabel, Histogram, fn() -> Histogram>;

/// Histograms from half a millisecond to eight seconds.
pub(super) fn durations() -> StoreDurations {
    Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 15)))
}

/// A store whose requests are timed, also those that fail.
pub(super) struct TimedStore {
    inner: Arc<dyn Store>,
    durations: StoreDurations,
}

impl TimedStore {
    pub(super) fn new(inner: Arc<dyn Store>, durations: StoreDurations) -> Self {
        Self { inner, durations }
    }

    fn timed<'a, T: 'a>(&'a self, request: &'static str, answer: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
        Box::pin(async move {
            let began = Instant::now();
            let answer = answer.await;
            let took = began.elapsed().as_secs_f64();
            self.durations.get_or_create(&StoreLabel { request }).observe(took);
            answer
        })
    }
}

impl Store for TimedStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.timed("get", self.inner.get(key))
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.timed("snapshot", self.inner.snapshot(prefix))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        self.timed("commit", self.inner.commit(transaction))
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.inner.watch(prefix, after)
    }

    fn election(&self) -> Option<&dyn Election> {
        self.inner.election()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_store::MemoryStore;

    use super::super::Metrics;
    use super::*;

    #[tokio::test]
    async fn each_request_is_counted_also_one_that_fails() {
        let metrics = Metrics::new();
        let store = metrics.timed(Arc::new(MemoryStore::default()));
        assert_eq!(store.get("/key").await, Ok(None));
        store.commit(Transaction::default()).await.unwrap_err();
        let text = metrics.encode().unwrap();
        for (request, count) in [("get", 1), ("commit", 1), ("snapshot", 0)] {
            let series =
                format!("fiberlb_store_request_duration_seconds_count{{request=\"{request}\"}} {count}\n");
            assert!(text.contains(&series), "{series}{text}");
        }
    }
}
