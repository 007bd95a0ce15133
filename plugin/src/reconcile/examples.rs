//! A northbound database and load balancers, for tests of what writes to it.

use std::sync::Arc;

use fiberlb_northbound::plan::{Installation, fence};
use fiberlb_northbound::{Northbound, double};
use ovsdb::client::double::Double;
use ovsdb::operation::{Columns, Operation};
use serde_json::json;
use uuid::Uuid;

use super::Fence;
use crate::catalog::Model;
use crate::resources::examples::{NETWORK, listener, put, tree};
use crate::resources::{Listener, Record, Tree, leader_key, transaction};
use crate::rows::listener_row;
use fiberlb_store::{Revision, SharedStore, Store, Transaction, Write};

/// Owner of the rows.
pub(crate) const INSTALLATION: Installation = Installation(Uuid::from_u128(9));
/// The row of `NB_Global`.
pub(crate) const GLOBAL: Uuid = Uuid::from_u128(0x78);

/// A northbound database with the network of the examples, and no router.
pub(crate) fn database() -> Double<Northbound> {
    let database = double::database().unwrap();
    let foreign = [
        Operation::insert("NB_Global", GLOBAL, Columns::new()),
        Operation::insert("Logical_Switch", NETWORK, columns([("name", json!("net"))])),
    ];
    database.write(&foreign).unwrap();
    database
}

/// Columns of a row.
pub(crate) fn columns<const N: usize>(columns: [(&str, serde_json::Value); N]) -> Columns {
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Id of the load balancer with this number.
pub(crate) fn id(number: u8) -> Uuid {
    Uuid::from_u128(0x1000 + u128::from(number))
}

fn listener_id(number: u8) -> Uuid {
    Uuid::from_u128(0x2000 + u128::from(number))
}

/// A load balancer with the VIP 10.0.0.NUMBER on the network of the examples, and a listener without a pool.
pub(crate) fn balancer(number: u8) -> Tree {
    let mut root = tree().load_balancer.spec.clone();
    root.vips = vec![[10, 0, 0, number].into()];
    let mut tree = Tree::new(Record::new(id(number), tree().load_balancer.identity.clone(), root));
    let own = Listener { load_balancer_id: id(number), default_pool_id: None, ..listener() };
    put(&mut tree, listener_id(number), own);
    tree
}

/// Row of the listener of the load balancer with this number.
pub(crate) fn row(number: u8) -> Uuid {
    listener_row(INSTALLATION, listener_id(number))
}

/// Numbers of the load balancers whose listeners' rows a transaction inserts.
pub(crate) fn inserted(operations: &[Operation]) -> Vec<u8> {
    let has = |number: &u8| {
        operations.iter().any(|it| matches!(it, Operation::Insert { uuid, .. } if *uuid == row(*number)))
    };
    (0..=u8::MAX).filter(has).collect()
}

/// Term that the fence stands at.
pub(crate) fn term(northbound: &Northbound) -> Option<u64> {
    let global = northbound.nb_global.get(&GLOBAL)?;
    global.external_ids.get(&fence::key(INSTALLATION))?.parse().ok()
}

/// Makes a plugin leader by the store, in the place of any other.
pub(crate) async fn elect(store: &SharedStore) -> Fence {
    let writes = vec![Write::Put { key: leader_key(), value: b"{}".to_vec() }];
    let term = store.commit(Transaction { compares: Vec::new(), writes }).await.unwrap();
    Fence::new(INSTALLATION, Arc::new(store.clone()), term)
}

/// A model that follows the store.
pub(crate) async fn model(store: Arc<dyn Store>) -> Arc<Model> {
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let followed = Arc::clone(&model);
    tokio::spawn(async move { followed.follow(&*store).await });
    model
}

/// Writes a tree as the API does.
pub(crate) async fn write(store: &dyn Store, model: &Model, after: &Tree) -> Revision {
    let before = model.tree(after.id());
    store.commit(transaction(before.as_deref(), Some(after)).unwrap()).await.unwrap()
}
