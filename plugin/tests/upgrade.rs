//! Stores that an earlier release has written open, hold the same, and can be written (tests/fixtures).

#![cfg(test)]

#[path = "../store/tests/chainfire_common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chainfire_client::{Client, Config, Operation, Transaction};
use common::{all, etcd, open, soon};
use etcd::Cluster;
use fiberlb_plugin::catalog::{Model, WriteError, Writer};
use fiberlb_plugin::resources::{Key, Tree, transaction};
use fiberlb_store::{EmbeddedStore, Store, Write};
use uuid::Uuid;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/a1c546b").join(name)
}

/// Everything that a tree is stored as, by key: its records and its guards, without the checksums of records, which releases
/// before them ignore.
fn stored_form(tree: &Tree) -> BTreeMap<String, Vec<u8>> {
    let writes = transaction(None, Some(tree)).unwrap().writes;
    let put = |write| match write {
        Write::Put { key, value } => (key, without_checksum(value)),
        Write::Delete { key } => panic!("a tree is stored by deleting {key}"),
    };
    writes.into_iter().map(put).collect()
}

fn without_checksum(value: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8(value).unwrap();
    match text.split_once(r#","crc32":""#) {
        Some((record, _)) => format!("{record}}}").into_bytes(),
        None => text.into_bytes(),
    }
}

fn named(model: &Model, name: &str) -> Arc<Tree> {
    model.named(name).pop().unwrap()
}

/// Checks that a store holds what the fixtures hold, that this release would write every byte of it the same but for checksums, and that it
/// can be written.
async fn holds_the_same(store: Arc<dyn Store>) {
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
    tokio::spawn(async move { followed.follow(&*source).await });
    let keys: BTreeMap<String, Vec<u8>> =
        all(&*store, "/fiberlb/").await.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect();
    let trees: Vec<Arc<Tree>> =
        model.load_balancers().into_iter().map(|id| model.tree(id).unwrap()).collect();
    let expected: BTreeMap<String, Vec<u8>> = trees.iter().flat_map(|tree| stored_form(tree)).collect();
    for (key, value) in &expected {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        assert_eq!(keys.get(key).map(|value| text(value)), Some(text(value)), "{key}");
    }
    let records = keys.keys().filter(|key| Key::parse(key).is_some());
    assert_eq!(records.filter(|key| !expected.contains_key(*key)).collect::<Vec<_>>(), Vec::<&String>::new());

    let shop = named(&model, "shop");
    let sizes = (shop.listeners.len(), shop.pools.len(), shop.backends.len(), shop.health_checks.len());
    assert_eq!((trees.len(), sizes), (3, (4, 3, 6, 2)));
    assert_eq!(shop.backends.values().filter(|backend| backend.deleting).count(), 1);
    let made = |request: &str| model.requested("default", "default", request).map(|(kind, _)| kind.words());
    assert_eq!((made("order-7"), made("order-8")), (Some("load balancer"), Some("pool")));
    let chosen = Uuid::from_u128(0x00000000_0000_4000_8000_0000000000b1);
    assert_eq!(model.kind_of(chosen).map(|kind| kind.words()), Some("backend"));

    let writer = Writer::new(Arc::clone(&model), Arc::clone(&store), Arc::default());
    let doomed = named(&model, "doomed");
    assert!(doomed.load_balancer.deleting);
    for seen in [&doomed, &shop] {
        let purged = writer.write(seen.id(), |current| {
            Ok::<_, WriteError>((current.and_then(|current| current.without_deleted_of(seen)), ()))
        });
        soon(purged).await.unwrap();
    }
    assert!(model.tree(doomed.id()).is_none());
    assert_eq!(named(&model, "shop").backends.len(), 5);
    // The guards that only earlier releases put are gone as well.
    let doomed = doomed.id().to_string();
    let mut left = all(&*store, "/fiberlb/").await.into_iter();
    let of_doomed = left
        .find(|entry| entry.key.contains(&doomed) || String::from_utf8_lossy(&entry.value).contains(&doomed));
    assert_eq!(of_doomed.map(|entry| entry.key), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_an_embedded_store_opens_and_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    std::fs::copy(fixture("store.redb"), &file).unwrap();
    holds_the_same(Arc::new(EmbeddedStore::open(&file).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_an_etcd_cluster_is_taken_over_with_its_published_statuses() {
    if !etcd::is_installed() {
        return;
    }
    let cluster = Cluster::start(1);
    restore(&Client::new(Config::new(cluster.endpoints())).unwrap()).await;
    let store = open(cluster.endpoints()).await;
    let model = Model::load(&*store).await.unwrap();
    let direct = model.observation(named(&model, "direct").id());
    assert!(direct.applied.is_some(), "it was in force, as the plugin of before has published");
    holds_the_same(store).await;
}

/// Puts all keys of the fixture, at the revisions that they had: published statuses name them.
async fn restore(client: &Client) {
    #[derive(serde::Deserialize)]
    struct Entry {
        revision: u64,
        key: String,
        value: String,
    }
    let put = |Entry { key, value, .. }| Operation::Put { key: key.into(), value: value.into(), lease: None };
    let text = std::fs::read_to_string(fixture("etcd.jsonl")).unwrap();
    let mut at: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for entry in text.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap()) {
        at.entry(entry.revision).or_default().push(put(entry));
    }
    let mut now = soon(client.put("/padding", "")).await.unwrap();
    for (revision, then) in at {
        while now + 1 < revision {
            now = soon(client.put("/padding", "")).await.unwrap();
        }
        now = soon(client.transact(Transaction { then, ..Transaction::default() })).await.unwrap().revision;
    }
}
