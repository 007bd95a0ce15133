//! Helpers of the tests of the ChainFire store.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

#[path = "../../../chainfire-client/tests/etcd/mod.rs"]
pub mod etcd;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chainfire_client::Config;
use fiberlb_store::{ChainFireOptions, ChainFireStore, Compare, Entry, Revision, Store, Transaction, Write};

const PATIENCE: Duration = Duration::from_secs(40);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

pub async fn open(endpoints: Vec<String>) -> Arc<ChainFireStore> {
    Arc::new(soon(ChainFireStore::open(ChainFireOptions::new(Config::new(endpoints)))).await.unwrap())
}

pub fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.into() }
}

pub fn writes(writes: impl Into<Vec<Write>>) -> Transaction {
    Transaction { compares: Vec::new(), writes: writes.into() }
}

pub fn compare(key: &str, revision: Revision) -> Compare {
    Compare { key: key.into(), revision }
}

/// More writes than one transaction of the cluster takes.
pub const LARGE: usize = 4500;

pub fn large(value: &str) -> Vec<Write> {
    (0..LARGE).map(|n| put(&format!("/fiberlb/large/{n:04}"), value)).collect()
}

pub async fn all(store: &dyn Store, prefix: &str) -> Vec<Entry> {
    soon(async { store.snapshot(prefix).await.unwrap().collect().await.unwrap() }).await
}

pub fn same<T: PartialEq + std::fmt::Debug>(mut values: impl Iterator<Item = T>) -> T {
    let first = values.next().unwrap();
    values.for_each(|value| assert_eq!(value, first, "it is seen in part"));
    first
}
