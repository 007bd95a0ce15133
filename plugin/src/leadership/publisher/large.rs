//! Statuses of the largest trees, on real etcd.

use std::time::Duration;

use chainfire_client::Config;
use tokio::time::timeout;

use super::*;
use crate::resources::examples::{BACKENDS, LOAD_BALANCER, tree};
use crate::resources::{Identity, Record, transaction};
use crate::status::{BackendVerdict, Health, Observation};
use etcd::Cluster;
use fiberlb_store::{ChainFireOptions, ChainFireStore};

#[path = "../../../chainfire-client/tests/etcd/mod.rs"]
mod etcd;

/// Longer than anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

async fn plugin(cluster: &Cluster) -> (Arc<ChainFireStore>, Arc<Model>) {
    let store = ChainFireStore::open(ChainFireOptions::new(Config::new(cluster.endpoints()))).await.unwrap();
    let store = Arc::new(store);
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
    tokio::spawn(async move { followed.follow(&*source).await });
    (store, model)
}

/// Waits until a plugin shows what another one observed.
async fn shows(follower: &Model, leader: &Model) {
    let mut notices = follower.subscribe();
    let observed = || {
        let (one, other) = (follower.observation(LOAD_BALANCER), leader.observation(LOAD_BALANCER));
        one.carried == other.carried && one.applied.is_some()
    };
    let waiting = async {
        while !observed() {
            notices.recv().await.unwrap();
        }
    };
    timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_show_the_status_of_a_tree_of_ten_thousand_backends() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    let mut whole = tree();
    let spec = whole.backends[&BACKENDS[0]].spec.clone();
    for number in 0..10_000 {
        let id = Uuid::from_u128(1 << 100 | number);
        whole.backends.insert(id, Arc::new(Record::new(id, Identity::default(), spec.clone())));
    }
    let ((store, leader), (other, follower)) = (plugin(&cluster).await, plugin(&cluster).await);
    let made = store.commit(transaction(None, Some(&whole)).unwrap()).await.unwrap();
    let leads = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
    let term = store.commit(Transaction { compares: Vec::new(), writes: leads }).await.unwrap();
    leader.lead(true);
    leader.reached(made).await;
    follower.reached(made).await;
    let current = leader.tree(LOAD_BALANCER).unwrap();
    let observe = |flipped: Option<Uuid>| {
        let mut observation = Observation { applied: Some(Arc::clone(&current)), ..Observation::default() };
        let view = &mut Arc::make_mut(&mut observation.carried).view;
        for backend in current.checked_backends() {
            let reason = format!("connect to backend {}: connection refused", backend.id);
            let verdict = BackendVerdict { up: false, reason: reason.clone(), since_ms: 1_790_000_000_000 };
            let nodes = ["node-1", "node-2"].map(|node| (node.to_owned(), verdict.clone()));
            view.verdicts.insert(backend.id, nodes.into());
            let health = if flipped == Some(backend.id) { Health::Up } else { Health::Down(reason) };
            view.health.insert(backend.id, health);
        }
        leader.observe(LOAD_BALANCER, observation);
    };
    observe(None);
    assert!(StatusRecord::of(&current, &leader.observation(LOAD_BALANCER)).encode().unwrap().len() > 3 << 20);
    let mut publisher =
        Publisher::new(Arc::clone(&leader), Arc::clone(&store) as _, Some(term)).await.unwrap();
    publisher.publish().await.unwrap();
    shows(&follower, &leader).await;
    // One flip is two values, of which none is large.
    let start = other.snapshot(STATUSES).await.unwrap().revision();
    let mut watch = other.watch(STATUSES, start).await.unwrap();
    observe(Some(Uuid::from_u128(1 << 100 | 7000)));
    publisher.publish().await.unwrap();
    shows(&follower, &leader).await;
    let sizes: Vec<usize> = timeout(PATIENCE, watch.next())
        .await
        .unwrap()
        .unwrap()
        .changes
        .iter()
        .map(|change| change.value.as_ref().unwrap().len())
        .collect();
    assert!(sizes.len() == 2 && sizes.iter().sum::<usize>() < MAX_VALUE_BYTES / 2, "{sizes:?}");
    // A plugin that starts reads the parts, too; nothing is left of a tree that is gone.
    let (_, late) = plugin(&cluster).await;
    shows(&late, &leader).await;
    let gone = store.commit(transaction(Some(&current), None).unwrap()).await.unwrap();
    leader.reached(gone).await;
    publisher.publish().await.unwrap();
    assert!(other.snapshot(STATUSES).await.unwrap().collect().await.unwrap().is_empty());
}
