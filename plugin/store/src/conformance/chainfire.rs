//! One cluster of three nodes for all cases, which take turns on it.

use std::sync::OnceLock;

use chainfire_client::Config;
use etcd::Cluster;
use tokio::sync::{Mutex, MutexGuard};

use super::super::{ChainFireOptions, ChainFireStore};
use super::*;

#[path = "../../../chainfire-client/tests/etcd/mod.rs"]
pub(crate) mod etcd;

/// The whole cluster, while a case runs.
pub(super) struct ChainFire {
    cluster: MutexGuard<'static, Cluster>,
    start: Revision,
}

/// Begins with no key: the domain is all of the cluster.
fn options(cluster: &Cluster) -> ChainFireOptions {
    ChainFireOptions { domain: String::new(), ..ChainFireOptions::new(Config::new(cluster.endpoints())) }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

impl Backing for ChainFire {
    fn is_here() -> bool {
        etcd::is_installed()
    }

    fn new() -> Self {
        static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start(3)));
        let cluster = wait(cluster.lock());
        cluster.ctl(&["del", "", "--from-key=true"]);
        let start = wait(async {
            let store = ChainFireStore::open(options(&cluster)).await.unwrap();
            let start = store.snapshot("").await.unwrap().revision();
            store.close().await;
            start
        });
        Self { cluster, start }
    }

    fn open(&self, history: HistoryLimits) -> Arc<dyn Store> {
        let options = ChainFireOptions { history, ..options(&self.cluster) };
        Arc::new(wait(ChainFireStore::open(options)).unwrap())
    }

    fn start(&self) -> Revision {
        self.start
    }
}
