//! Cases particular to the embedded store: its file, its disk, and their faults.

mod disk;
mod file;

use std::sync::Arc;

use super::*;
use crate::Write;

fn put(key: &str, value: impl Into<Vec<u8>>) -> Transaction {
    Transaction { compares: Vec::new(), writes: vec![Write::Put { key: key.into(), value: value.into() }] }
}

async fn entries(store: &EmbeddedStore) -> Result<Vec<Entry>, StoreError> {
    store.snapshot("").await?.collect().await
}
