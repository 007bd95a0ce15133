use std::sync::Arc;

use chainfire_client::Config;

use super::super::super::conformance::chainfire::etcd::{self, Cluster};
use super::super::{ChainFireOptions, ChainFireStore};
use super::*;
use crate::{Revision, Store};

/// More writes than two chunks hold, below `prefix`.
fn many(prefix: &str) -> Vec<Write> {
    let writes = chunk::CHUNK_WRITES * 2 + 1;
    (0..writes)
        .map(|n| Write::Put { key: format!("/fiberlb/{prefix}/{n:05}"), value: vec![b'v'; 50] })
        .collect()
}

fn small(key: &str) -> Transaction {
    Transaction { compares: Vec::new(), writes: vec![Write::Put { key: key.into(), value: Vec::new() }] }
}

/// A writer of its own on a cluster, and the store of another plugin.
struct Site {
    cluster: Cluster,
    client: Client,
    layout: Layout,
    other: Arc<ChainFireStore>,
}

impl Site {
    /// `None` where etcd is not installed.
    async fn start() -> Option<Self> {
        let cluster = etcd::is_installed().then(|| Cluster::start(1))?;
        let client = Client::new(Config::new(cluster.endpoints())).unwrap();
        let other = ChainFireStore::open(ChainFireOptions::new(Config::new(cluster.endpoints())));
        let other = Arc::new(other.await.unwrap());
        Some(Self { cluster, client, layout: Layout::new("/fiberlb/".into()), other })
    }

    async fn prepare(&self, prefix: &str, lease: &Lease) -> PreparedStage<'_> {
        PreparedStage::store(&self.client, &self.layout, many(prefix), lease).await.unwrap()
    }

    async fn lease(&self) -> Lease {
        self.client.lease(LEASE).await.unwrap()
    }

    async fn count(&self, prefix: &str) -> usize {
        self.other.snapshot(prefix).await.unwrap().collect().await.unwrap().len()
    }

    /// Keys of staged transactions in the cluster.
    fn staged(&self) -> usize {
        let keys = self.cluster.ctl(&["get", "--prefix", "--keys-only", &self.layout.stages()]);
        keys.split_whitespace().count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_write_while_a_large_transaction_is_prepared() {
    let Some(site) = Site::start().await else { return };
    let (held, late) = (site.lease().await, site.lease().await);
    let prepared = site.prepare("held", &held).await;
    let lost = site.prepare("lost", &late).await;
    let first = site.other.commit(small("/fiberlb/small")).await.unwrap();
    let large = Transaction { compares: Vec::new(), writes: many("large") };
    site.other.commit(large).await.unwrap();
    assert_eq!(site.count("/fiberlb/large/").await, many("").len());
    assert_eq!((site.count("/fiberlb/held/").await, site.count("/fiberlb/").await), (0, many("").len() + 1));
    let as_read = |revision| vec![StoreCompare { key: "/fiberlb/small".into(), revision }];
    let committed = prepared.commit(&as_read(first)).await.unwrap().apply().await.unwrap();
    assert!(Revision(committed.revision) > first);
    assert_eq!(site.count("/fiberlb/held/").await, many("").len());
    // One that depends on what another has changed meanwhile.
    site.other.commit(small("/fiberlb/small")).await.unwrap();
    let conflict = lost.commit(&as_read(first)).await.err();
    assert_eq!(conflict, Some(CommitError::Conflict { keys: vec!["/fiberlb/small".into()] }));
    late.revoke().await.unwrap();
    site.other.commit(small("/fiberlb/small")).await.unwrap();
    drop_abandoned(&site.client, &site.layout).await;
    assert_eq!((site.staged(), site.count("/fiberlb/lost/").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_writer_prepared_is_removed_and_what_it_committed_is_applied() {
    let Some(site) = Site::start().await else { return };
    let (alive, dead, dies) = (site.lease().await, site.lease().await, site.lease().await);
    let kept = site.prepare("kept", &alive).await;
    let abandoned = site.prepare("abandoned", &dead).await;
    let whole = site.staged();
    dead.revoke().await.unwrap();
    drop_abandoned(&site.client, &site.layout).await;
    assert_eq!(site.staged() * 2, whole, "only of the one whose writer lives");
    assert!(matches!(abandoned.commit(&[]).await.err(), Some(CommitError::Unavailable(_))));
    // It dies between its commit and the first chunk.
    drop(site.prepare("committed", &dies).await.commit(&[]).await.unwrap());
    dies.revoke().await.unwrap();
    drop_abandoned(&site.client, &site.layout).await;
    assert_eq!(site.count("/fiberlb/committed/").await, 0);
    site.other.commit(small("/fiberlb/small")).await.unwrap();
    assert_eq!(site.count("/fiberlb/committed/").await, many("").len());
    kept.commit(&[]).await.unwrap().apply().await.unwrap();
    assert_eq!((site.staged(), site.count("/fiberlb/kept/").await), (0, many("").len()));
}

#[test]
fn looks_at_compares_fit_the_clusters_requests() {
    let compares = |count, bytes: usize| {
        (0..count)
            .map(|n| StoreCompare { key: format!("{n:0bytes$}"), revision: Revision::ZERO })
            .collect::<Vec<_>>()
    };
    assert_eq!(fitting(&compares(10_000, 100)), max_operations(0));
    assert_eq!(fitting(&compares(10_000, 1000)), CHUNK_BYTES / 1000);
    assert_eq!(fitting(&compares(2, 8)), 2);
}
