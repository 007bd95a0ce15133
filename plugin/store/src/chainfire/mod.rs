//! The replicated store: a cluster of ChainFire, or of anything that speaks the etcd v3 API.
//!
//! Keys and values are the cluster's, byte for byte, below one prefix (the domain); revisions are the cluster's too. A
//! transaction that fits one of the cluster's is one. A larger one is staged (see `staged`): it is applied in several
//! of the cluster's transactions, which readers, writers and watches of this module take for one. What belongs to that
//! machinery is below `DOMAIN/chainfire/` and is never seen through the [`Store`].
//!
//! One watch of the whole domain feeds the same bounded history that the other stores have. A commit is
//! acknowledged when the watch shows it. This module knows neither what keys mean nor how requests look on
//! the wire.

mod chunk;
mod commit;
mod election;
mod errors;
mod feed;
mod layout;
mod read;
mod staged;

use std::sync::Arc;
use std::time::Duration;

use chainfire_client::Client;
use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinHandle;

use super::history::{History, HistoryLimits};
use super::{
    CommitError, Election, Entry, Revision, Snapshot, Store, StoreError, Transaction, Watch, WatchError,
};
use layout::Layout;
use read::ClusterReader;

/// Longest wait of a commit for the change stream to show it. Longer than a change of leader.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// Settings of a [`ChainFireStore`]: its cluster, and its keys there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFireOptions {
    /// The cluster.
    pub cluster: chainfire_client::Config,
    /// Prefix of all keys of the store, default `/fiberlb/`. Other keys of the cluster are neither read nor
    /// written.
    pub domain: String,
    /// Limits of the history for watches.
    pub history: HistoryLimits,
}

impl ChainFireOptions {
    /// The default settings for this cluster.
    pub fn new(cluster: chainfire_client::Config) -> Self {
        Self { cluster, domain: "/fiberlb/".to_owned(), history: HistoryLimits::default() }
    }
}

/// A [`Store`] in a replicated cluster, which several plugins may share.
#[derive(Debug)]
pub struct ChainFireStore {
    inner: Arc<Inner>,
    feed: JoinHandle<()>,
}

/// State shared by the store and commits in progress.
#[derive(Debug)]
struct Inner {
    client: Client,
    layout: Layout,
    history: Arc<History>,
    /// Revision of the newest change set that the history was given.
    shown: watch::Receiver<Revision>,
    /// True once the store is closed; commits in progress hold it for reading.
    closed: Arc<RwLock<bool>>,
}

impl Drop for ChainFireStore {
    fn drop(&mut self) {
        self.feed.abort();
        self.inner.history.close();
    }
}

impl ChainFireStore {
    /// Opens the store of a cluster; an empty domain becomes a new store. Applies what a writer that died had
    /// committed.
    ///
    /// # Errors
    /// [`StoreError`] with what to do.
    pub async fn open(options: ChainFireOptions) -> Result<Self, StoreError> {
        let name = format!("chainfire://{}", options.cluster.endpoints.join(","));
        let client = Client::new(options.cluster).map_err(|error| errors::store(&error))?;
        let layout = Layout::new(options.domain);
        layout::check_format(&client, &layout, &name).await?;
        staged::finish(&client, &layout).await.map_err(|error| error.into_store(&name))?;
        staged::drop_abandoned(&client, &layout).await;
        read::drop_unused_intervals(&client, &layout).await.map_err(|error| errors::store(&error))?;
        let start = read::stable(&client, &layout).await.map_err(|error| errors::store(&error))?;
        let history = History::new(options.history, Revision(start));
        let feed = feed::Feed::new(client.clone(), layout.clone(), Arc::clone(&history), start);
        let (feed, shown) = feed.spawn();
        let inner = Inner { client, layout, history, shown, closed: Arc::default() };
        Ok(Self { inner: Arc::new(inner), feed })
    }

    async fn reader(&self) -> Result<ClusterReader, StoreError> {
        if *self.inner.closed.read().await {
            return Err(StoreError::Closed);
        }
        Ok(ClusterReader { client: self.inner.client.clone(), layout: self.inner.layout.clone() })
    }

    async fn snapshot_of(&self, prefix: String) -> Result<Snapshot, StoreError> {
        let snapshot = self.reader().await?.snapshot(prefix).await?;
        self.inner.history.announce(snapshot.revision());
        Ok(snapshot)
    }

    async fn watch_from(&self, prefix: String, after: Revision) -> Result<Watch, WatchError> {
        if *self.inner.closed.read().await {
            return Err(WatchError::Closed);
        }
        match self.inner.history.watch(&prefix, after) {
            // Another plugin may have made the revision a moment ago.
            Err(WatchError::Future { .. }) => {
                let current = read::stable(&self.inner.client, &self.inner.layout).await;
                let current = current.map_err(|error| WatchError::Unavailable(error.to_string()))?;
                self.inner.history.announce(Revision(current));
                self.inner.history.watch(&prefix, after)
            }
            decided => decided,
        }
    }

    async fn shut(&self) {
        *self.inner.closed.write().await = true;
        self.inner.history.close();
        self.feed.abort();
    }
}

impl Inner {
    async fn commit(self: Arc<Self>, transaction: Transaction) -> Result<Revision, CommitError> {
        let closed = self.closed.read().await;
        if *closed {
            return Err(CommitError::Unavailable("it is closed".into()));
        }
        transaction.validate()?;
        self.layout.check(&transaction)?;
        let shown = *self.shown.borrow();
        let committed = if commit::fits(&transaction) {
            commit::small(&self.client, &self.layout, transaction, None).await?
        } else {
            staged::large(&self.client, &self.layout, transaction).await?
        };
        if !committed.changed {
            // The cluster's revision may belong to another domain's key, which no change set has.
            return Ok(*self.shown.borrow());
        }
        let revision = Revision(committed.revision);
        if revision <= shown {
            tracing::error!(
                %revision, newest = %shown,
                "cluster went back to an older revision (restored backup?); discarding what was read and resyncing"
            );
            self.history.go_back(revision);
            return Ok(revision);
        }
        self.history.announce(revision);
        self.await_shown(revision).await;
        Ok(revision)
    }

    /// Waits until watches show the commit. It is durable already, so a slow stream must not make it a
    /// failure.
    async fn await_shown(&self, revision: Revision) {
        let mut shown = self.shown.clone();
        let wait = shown.wait_for(|shown| *shown >= revision);
        if tokio::time::timeout(SHOWN_WITHIN, wait).await.is_err() {
            tracing::warn!(%revision, "change stream of the store lags behind its commits");
        }
    }
}

impl Store for ChainFireStore {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        async move { self.reader().await?.get(key).await }.boxed()
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.snapshot_of(prefix.to_owned()).boxed()
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            // A task of its own: a caller that goes away must not leave a transaction half prepared.
            let task = tokio::spawn(inner.commit(transaction));
            task.await.unwrap_or_else(|_| Err(CommitError::Unknown("the program is ending".into())))
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.watch_from(prefix.to_owned(), after).boxed()
    }

    fn election(&self) -> Option<&dyn Election> {
        Some(self)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shut().boxed()
    }
}
