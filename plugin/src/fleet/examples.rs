//! A fleet and messages of nodes, for tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{Installation, OWNER_KEY};
use ovsdb::client::{self, Client};
use uuid::Uuid;

use super::{Fleet, FleetSettings};
use crate::agents::{Hello, Observer as _};
use crate::catalog::Model;
use crate::datapath::NodeFeatures;
use crate::fleet::directory::records::{FleetKey, NodeRecord, PortRecord, put};
use crate::fleet::state::{Now, Rules};
use crate::resources::examples::{LISTENER, NETWORK, change, tree};
use crate::resources::{Listener, now_ms, transaction};
use fiberlb_store::{MemoryStore, Store, Term, Transaction};

/// A fleet that has just started, with the tree of the examples, its listener changed by `edit`, on the nodes
/// a and b; c is on no network. There is no northbound database.
pub(crate) async fn fleet(edit: impl FnOnce(&mut Listener)) -> Fleet {
    fleet_of(edit, None).await
}

/// The same, of a leader in `term`.
pub(super) async fn fleet_of(edit: impl FnOnce(&mut Listener), term: Option<Term>) -> Fleet {
    let mut tree = tree();
    change::<Listener>(&mut tree, LISTENER, edit);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    store.commit(transaction(None, Some(&tree)).unwrap()).await.unwrap();
    let mut given = Transaction::default();
    for (node, address) in [("a", "10.0.0.201/24"), ("b", "10.0.0.202/24")] {
        let port = PortRecord::new(vec![address.parse().unwrap()]);
        given.writes.push(put(&FleetKey::Port(NETWORK, node.to_owned()), &port).unwrap());
    }
    for node in ["a", "b", "c"] {
        let record = NodeRecord::new(node, "", "", "", 0);
        given.writes.push(put(&FleetKey::Node(node.to_owned()), &record).unwrap());
    }
    store.commit(given).await.unwrap();
    let nowhere = "unix:/nonexistent/ovnnb.sock".parse().unwrap();
    let config = client::Config { endpoints: vec![nowhere], ..client::Config::new("OVN_Northbound") };
    let (northbound, _) = Client::start(config, Northbound::new(OWNER_KEY));
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let installation = Installation(Uuid::from_u128(9));
    Fleet::load(installation, model, northbound, store, FleetSettings::default(), term).await.unwrap()
}

/// Rules with this number of nodes for each network.
pub(super) fn rules(nodes_per_network: usize) -> Rules {
    let (move_after, drain) = (Duration::from_secs(60), Duration::from_secs(300));
    Rules { nodes_per_network, move_after, drain, source_addresses: 1 }
}

/// The current time.
pub(super) fn now() -> Now {
    Now { at: Instant::now(), ms: now_ms() }
}

/// Connects nodes, with epoch 1.
pub(crate) fn join(fleet: &Fleet, nodes: &[&str]) {
    for node in nodes {
        fleet.joined(1, &hello(node)).unwrap();
    }
}

/// The first message of a node that holds nothing.
pub(super) fn hello(node: &str) -> Hello {
    Hello {
        node_id: node.to_owned(),
        boot_id: "boot".to_owned(),
        chassis: String::new(),
        release: String::new(),
        zone: String::new(),
        capabilities: NodeFeatures::of_old_agents(),
        held_vips: BTreeSet::new(),
    }
}
