use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::resources::examples::{LISTENER, LOAD_BALANCER, POOL, change, pool, put as put_in, tree};
use crate::resources::{Identity, Listener, Pool, Record, Resource as _, head_key, status_key, transaction};
use crate::status::{ApplyFailure, Provisioning, StatusRecord};
use crate::vips::vips_bytes;
use fiberlb_store::{HistoryLimits, MemoryStore, Transaction, Write};

/// A store that remembers its last change alone, with the tree of the examples in it.
async fn forgetful() -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::with_history(HistoryLimits { sets: 1, bytes: 1 << 20 }));
    store.commit(transaction(None, Some(&tree())).unwrap()).await.unwrap();
    store
}

/// Changes the listener's port; the tree's new head.
async fn set_port(store: &MemoryStore, model: &Model, port: u16) -> Revision {
    let before = model.tree(LOAD_BALANCER).unwrap();
    let mut after = Tree::clone(&before);
    change::<Listener>(&mut after, LISTENER, |listener| listener.port = port);
    store.commit(transaction(Some(&before), Some(&after)).unwrap()).await.unwrap()
}

async fn put(store: &MemoryStore, key: String, value: &[u8]) -> Revision {
    let writes = vec![Write::Put { key, value: value.to_vec() }];
    store.commit(Transaction { compares: Vec::new(), writes }).await.unwrap()
}

/// A model that follows the store from now on.
fn follow(model: &Arc<Model>, store: &Arc<MemoryStore>) {
    let (model, store) = (Arc::clone(model), Arc::clone(store));
    tokio::spawn(async move { model.follow(&*store).await });
}

async fn reached(model: &Model, revision: Revision) {
    tokio::time::timeout(Duration::from_secs(10), model.reached(revision)).await.unwrap();
}

fn port(model: &Model) -> u16 {
    model.tree(LOAD_BALANCER).unwrap().listeners[&LISTENER].spec.port
}

#[tokio::test]
async fn changes_that_were_missed_are_read_anew() {
    let store = forgetful().await;
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let head = set_port(&store, &model, 8080).await;
    let other = put(&store, "/fiberlb/other".into(), b"{}").await;
    let mut notices = model.subscribe();
    follow(&model, &store);
    reached(&model, other).await;
    assert_eq!(port(&model), 8080);
    assert_eq!(model.vips_bytes(), vips_bytes(&tree()) + 2, "the key of the VIP has two digits more");
    assert_eq!(model.tree(LOAD_BALANCER).unwrap().head, head);
    assert_eq!(notices.recv().await.unwrap(), ModelNotice::Specification(LOAD_BALANCER));
    // It keeps following.
    let later = set_port(&store, &model, 90).await;
    reached(&model, later).await;
    assert_eq!(port(&model), 90);
    assert_eq!(model.vips_bytes(), vips_bytes(&tree()));
    let gone = transaction(model.tree(LOAD_BALANCER).as_deref(), None).unwrap();
    reached(&model, store.commit(gone).await.unwrap()).await;
    assert_eq!(model.vips_bytes(), 0);
}

#[tokio::test]
async fn a_value_that_somebody_broke_stays_as_it_was_until_it_is_put_right() {
    let store = forgetful().await;
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let before = model.tree(LOAD_BALANCER).unwrap();
    let (root, listener) = (
        before.load_balancer.spec.key(LOAD_BALANCER).to_string(),
        format!("/fiberlb/listeners/{LOAD_BALANCER}/{LISTENER}"),
    );
    let good = store.get(&listener).await.unwrap().unwrap().value;
    put(&store, root.clone(), b"broken").await;
    put(&store, listener.clone(), b"broken").await;
    let last = put(&store, "/fiberlb/other".into(), b"{}").await;
    follow(&model, &store);
    reached(&model, last).await;
    assert_eq!(*model.tree(LOAD_BALANCER).unwrap(), *before, "read anew, and as it was");
    let last = put(&store, listener, &good).await;
    reached(&model, last).await;
    assert_eq!(port(&model), 80);
    let refused = Model::load(&*store).await.err().unwrap().to_string();
    assert!(refused.contains(&root), "a plugin that starts says which: {refused}");
}

#[tokio::test]
async fn statuses_come_from_the_store_unless_this_plugin_leads() {
    let store = forgetful().await;
    let model = Arc::new(Model::load(&*store).await.unwrap());
    follow(&model, &store);
    let tree = model.tree(LOAD_BALANCER).unwrap();
    let published = |reason: &str| {
        let failure = Some(ApplyFailure {
            reason: reason.into(),
            next_attempt_at: 1,
            scope: crate::status::FailureScope::Changes,
        });
        let observation = Observation { applied: Some(Arc::clone(&tree)), failure, ..Observation::default() };
        StatusRecord::of(&tree, &observation).encode().unwrap()
    };
    let reason = || model.observation(LOAD_BALANCER).failure.clone().map(|failure| failure.reason);
    let mut notices = model.subscribe();
    let told = put(&store, status_key(LOAD_BALANCER), &published("no row")).await;
    reached(&model, told).await;
    assert_eq!(reason().as_deref(), Some("no row"));
    assert_eq!(notices.recv().await.unwrap(), ModelNotice::Observation(LOAD_BALANCER));
    model.lead(true);
    let told = put(&store, status_key(LOAD_BALANCER), &published("of another")).await;
    reached(&model, told).await;
    assert_eq!(reason().as_deref(), Some("no row"), "what this plugin observed counts");
    model.lead(false);
    model.reload(&*store).await.unwrap();
    assert_eq!(reason().as_deref(), Some("of another"));
    // A malformed one changes nothing, and is removed with its tree.
    let told = put(&store, status_key(LOAD_BALANCER), b"broken").await;
    reached(&model, told).await;
    assert_eq!(reason().as_deref(), Some("of another"));
    let current = model.tree(LOAD_BALANCER).unwrap();
    let gone = store.commit(transaction(Some(&current), None).unwrap()).await.unwrap();
    reached(&model, gone).await;
    assert_eq!(reason(), None);
    assert!(store.get(&status_key(LOAD_BALANCER)).await.unwrap().is_none());
    assert!(store.get(&head_key(LOAD_BALANCER)).await.unwrap().is_none());
}

#[tokio::test]
async fn an_id_that_two_resources_have_is_found_whatever_their_kinds() {
    let store = forgetful().await;
    let model = Model::load(&*store).await.unwrap();
    assert!(model.shared_ids().is_empty());
    let other = Uuid::from_u128(77);
    let mut thief = tree();
    thief = Tree::new(Record::new(other, Identity::default(), thief.load_balancer.spec.clone()));
    for id in [POOL, LOAD_BALANCER, LISTENER] {
        put_in(&mut thief, id, Pool { load_balancer_id: other, ..pool() });
    }
    store.commit(unguarded(&thief)).await.unwrap();
    let found = Model::load(&*store).await.unwrap().shared_ids();
    let both: BTreeSet<Uuid> = [LOAD_BALANCER, other].into();
    assert_eq!(found, [LISTENER, POOL, LOAD_BALANCER].map(|id| (id, both.clone())).into());
}

/// Puts the records of a tree, as a damaged store has them, without looking at guards.
fn unguarded(tree: &Tree) -> Transaction {
    let mut transaction = transaction(None, Some(tree)).unwrap();
    transaction.compares.clear();
    transaction
}

/// Observation of a tree in force, of which something has failed since if there is a reason.
fn in_force(tree: &Arc<Tree>, reason: Option<&str>) -> Observation {
    let failed = |reason: &str| ApplyFailure {
        reason: reason.to_owned(),
        next_attempt_at: 1,
        scope: crate::status::FailureScope::Tree,
    };
    let failure = reason.map(failed);
    Observation { applied: Some(Arc::clone(tree)), failure, ..Observation::default() }
}

/// Kinds of events with the provisioning status since each.
fn events(model: &Model) -> Vec<(Kind, Provisioning)> {
    model.status_events(LOAD_BALANCER).iter().map(|event| (event.kind, event.after.0)).collect()
}

#[tokio::test]
async fn what_becomes_of_statuses_is_remembered_until_the_load_balancer_goes() {
    let store = forgetful().await;
    let model = Arc::new(Model::load(&*store).await.unwrap());
    model.lead(true);
    follow(&model, &store);
    let tree = model.tree(LOAD_BALANCER).unwrap();
    model.observe(LOAD_BALANCER, in_force(&tree, None));
    assert_eq!(events(&model), [], "what was before the start is not known");
    model.observe(LOAD_BALANCER, in_force(&tree, Some("no such switch")));
    model.observe(LOAD_BALANCER, in_force(&tree, Some("still none")));
    model.observe(LOAD_BALANCER, in_force(&tree, None));
    let [failed, mended] = [Provisioning::Error, Provisioning::Active];
    assert_eq!(events(&model), [(Kind::LoadBalancer, failed), (Kind::LoadBalancer, mended)]);
    let event = model.status_events(LOAD_BALANCER).remove(0);
    assert_eq!((event.before.0, &*event.reason), (mended, "no such switch"));
    assert!(event.at >= model.loaded_at());

    let gone = transaction(Some(&tree), None).unwrap();
    reached(&model, store.commit(gone).await.unwrap()).await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while !model.status_events(LOAD_BALANCER).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_is_created_while_the_plugin_runs_has_events_from_its_beginning() {
    let store = Arc::new(MemoryStore::default());
    let model = Arc::new(Model::load(&*store).await.unwrap());
    model.lead(true);
    follow(&model, &store);
    let mut new = tree();
    Arc::make_mut(&mut new.load_balancer).created_at = model.loaded_at() + 1;
    let made = store.commit(transaction(None, Some(&new)).unwrap()).await.unwrap();
    reached(&model, made).await;
    let tree = model.tree(LOAD_BALANCER).unwrap();
    model.observe(LOAD_BALANCER, in_force(&tree, None));
    assert_eq!(events(&model), [(Kind::LoadBalancer, Provisioning::Active)]);
    let begun = model.status_events(LOAD_BALANCER).pop().unwrap();
    assert_eq!((begun.before.0, &*begun.name), (Provisioning::PendingCreate, ""));
}

#[tokio::test]
async fn a_follower_sees_what_the_leader_publishes() {
    let store = forgetful().await;
    let model = Arc::new(Model::load(&*store).await.unwrap());
    follow(&model, &store);
    let tree = model.tree(LOAD_BALANCER).unwrap();
    for reason in [None, Some("no such switch")] {
        let record = StatusRecord::of(&tree, &in_force(&tree, reason)).encode().unwrap();
        reached(&model, put(&store, status_key(LOAD_BALANCER), &record).await).await;
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        while events(&model) != [(Kind::LoadBalancer, Provisioning::Error)] {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
