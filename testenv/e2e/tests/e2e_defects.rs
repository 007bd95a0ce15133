//! Defects of OVN's Octavia provider, as tests on the rows of a real northbound database.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;
#[path = "common/rows.rs"]
mod rows;

use fiberlb_lab::{Lab, can_run};
use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use fiberlb_proto::v1::pool_service_client::PoolServiceClient;
use prost_types::FieldMask;
use serde_json::{Value, json};
use tonic::transport::Channel;

use common::{Tenant, add_network, tree, until};
use rows::listener_rows;

const BACKENDS: [&str; 2] = ["10.0.0.1:8080", "10.0.0.2:8080"];

/// A lab's central part with one switch, a plugin on it, and one load balancer in force.
struct Site {
    tenant: Tenant,
    tree: v1::LoadBalancerTree,
    lab: Lab,
}

impl Site {
    async fn start(name: &str, change: impl FnOnce(&mut v1::LoadBalancerTree)) -> Site {
        let lab = Lab::start(name).await.unwrap();
        let network = add_network(&lab, "sw0", &[]).await;
        let tenant = Tenant::start(&lab).await;
        let mut wanted = tree("lb", network, "10.0.0.100", &BACKENDS);
        change(&mut wanted);
        let tree = tenant.apply(wanted).await;
        Site { tenant, tree, lab }
    }

    fn channel(&self) -> Channel {
        self.tenant.plugin.channel().unwrap()
    }

    async fn active(&self) -> v1::LoadBalancerTree {
        self.tenant.active(&self.tree.load_balancer.as_ref().unwrap().id).await
    }

    /// The `Load_Balancer` row of a listener, if there is one.
    async fn row(&self, port: u32) -> Option<Value> {
        let has_port = |row: &Value| {
            let mut keys = row["vips"].as_object().unwrap().keys();
            keys.any(|vip| vip.ends_with(&format!(":{port}")))
        };
        listener_rows(&self.lab).await.into_values().find(has_port)
    }

    async fn update_pool(&self, pool: v1::Pool, field: &str) {
        let update_mask = Some(mask(field));
        let request = v1::UpdatePoolRequest { pool: Some(pool), update_mask, ..Default::default() };
        PoolServiceClient::new(self.channel()).update_pool(request).await.unwrap();
        self.active().await;
    }

    async fn update_listener(&self, listener: v1::Listener, field: &str) {
        let update_mask = Some(mask(field));
        let request =
            v1::UpdateListenerRequest { listener: Some(listener), update_mask, ..Default::default() };
        ListenerServiceClient::new(self.channel()).update_listener(request).await.unwrap();
        self.active().await;
    }

    async fn update_backend(&self, backend: v1::Backend, field: &str) {
        let update_mask = Some(mask(field));
        let request = v1::UpdateBackendRequest { backend: Some(backend), update_mask, ..Default::default() };
        BackendServiceClient::new(self.channel()).update_backend(request).await.unwrap();
        self.active().await;
    }
}

fn mask(field: &str) -> FieldMask {
    FieldMask { paths: vec![field.to_owned()] }
}

fn source_ip(seconds: i64) -> v1::SessionPersistence {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    let kind = v1::SessionPersistenceType::SourceIp.into();
    v1::SessionPersistence { r#type: kind, timeout, ..Default::default() }
}

/// Number of times that a backend stands in the list of a VIP.
fn times_listed(row: &Value, vip: &str, backend: &str) -> usize {
    row["vips"][vip].as_str().unwrap().split(',').filter(|entry| *entry == backend).count()
}

/// A second listener on port 81 with a pool of its own.
fn add_second_pool(tree: &mut v1::LoadBalancerTree) {
    let mut pool = tree.pools[0].clone();
    pool.pool.as_mut().unwrap().name = "second".to_owned();
    tree.pools.push(pool);
    let mut listener = tree.listeners[0].clone();
    (listener.port, listener.default_pool_id) = (81, "second".to_owned());
    tree.listeners.push(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_is_disabled_and_then_deleted_leaves_nothing() {
    if !can_run("a_listener_that_is_disabled_and_then_deleted_leaves_nothing") {
        return;
    }
    let site = Site::start("defect1", add_second_pool).await;
    let listener = site.tree.listeners.iter().find(|listener| listener.port == 81).unwrap();
    let off = v1::Listener { id: listener.id.clone(), admin_state_up: Some(false), ..Default::default() };
    site.update_listener(off, "admin_state_up").await;
    let row = site.row(81).await.unwrap();
    assert_eq!(row["vips"], json!({"10.0.0.100:81": ""}));
    assert_eq!(row["options"]["reject"], "true");

    let request = v1::DeleteListenerRequest { id: listener.id.clone(), ..Default::default() };
    ListenerServiceClient::new(site.channel()).delete_listener(request).await.unwrap();
    until("the end of the listener's row", async || site.row(81).await.is_none().then_some(())).await;
    let left = listener_rows(&site.lab).await;
    assert!(left.len() == 1 && site.row(80).await.is_some(), "{left:?}");
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn selection_and_affinity_of_two_pools_do_not_touch_each_other() {
    if !can_run("selection_and_affinity_of_two_pools_do_not_touch_each_other") {
        return;
    }
    let site = Site::start("defect2", |tree| {
        add_second_pool(tree);
        tree.pools[0].pool.as_mut().unwrap().algorithm = v1::Algorithm::SourceIp.into();
        tree.pools[1].pool.as_mut().unwrap().session_persistence = Some(source_ip(77));
    })
    .await;
    let first = site.row(80).await.unwrap();
    assert_eq!(first["selection_fields"], json!(["ip_dst", "ip_src"]));
    assert_eq!(first["options"].get("affinity_timeout"), None);
    let second = site.row(81).await.unwrap();
    assert_eq!(second["selection_fields"], json!([]));
    assert_eq!(second["options"]["affinity_timeout"], "77");

    let listener = site.tree.listeners.iter().find(|listener| listener.port == 80).unwrap();
    let request = v1::DeleteListenerRequest { id: listener.id.clone(), ..Default::default() };
    ListenerServiceClient::new(site.channel()).delete_listener(request).await.unwrap();
    let request =
        v1::DeletePoolRequest { id: listener.default_pool_id.clone(), cascade: true, ..Default::default() };
    PoolServiceClient::new(site.channel()).delete_pool(request).await.unwrap();
    until("the end of the first row", async || site.row(80).await.is_none().then_some(())).await;
    assert_eq!(site.row(81).await.unwrap(), second);
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_vip_is_written_whole() {
    if !can_run("an_ipv6_vip_is_written_whole") {
        return;
    }
    let site = Site::start("defect4", |wanted| {
        wanted.load_balancer.as_mut().unwrap().vip_address = "fd00:0:0:1::100".to_owned();
        for (last, backend) in (1..).zip(&mut wanted.pools[0].backends) {
            backend.address = format!("fd00:0:0:1::{last}");
        }
    })
    .await;
    let row = site.row(80).await.unwrap();
    assert_eq!(row["vips"], json!({"[fd00:0:0:1::100]:80": "[fd00:0:0:1::1]:8080,[fd00:0:0:1::2]:8080"}));
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_backups_are_carried_out() {
    if !can_run("weights_and_backups_are_carried_out") {
        return;
    }
    let site = Site::start("defect6", |wanted| {
        wanted.pools[0].backends[0].weight = Some(256);
        wanted.pools[0].backends[1].weight = Some(64);
        let backup =
            v1::Backend { address: "10.0.0.3".to_owned(), port: 8080, backup: true, ..Default::default() };
        wanted.pools[0].backends.push(backup);
    })
    .await;
    let listed = async || {
        let row = site.row(80).await.unwrap();
        ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]
            .map(|backend| times_listed(&row, "10.0.0.100:80", backend))
    };
    assert_eq!(listed().await, [4, 1, 0]);
    for (backend, expected) in [("10.0.0.1", [0, 1, 0]), ("10.0.0.2", [0, 0, 1])] {
        let stored = site.tree.pools[0].backends.iter().find(|stored| stored.address == backend).unwrap();
        let drained = v1::Backend { id: stored.id.clone(), weight: Some(0), ..Default::default() };
        site.update_backend(drained, "weight").await;
        assert_eq!(listed().await, expected);
    }
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_algorithm_changes_the_row() {
    if !can_run("a_changed_algorithm_changes_the_row") {
        return;
    }
    let site = Site::start("defect7", |_| {}).await;
    let id = site.tree.pools[0].pool.as_ref().unwrap().id.clone();
    let expected = [
        (v1::Algorithm::SourceIp, json!(["ip_dst", "ip_src"])),
        (v1::Algorithm::SourceIpPort, json!(["ip_dst", "ip_src", "tp_dst", "tp_src"])),
        (v1::Algorithm::RoundRobin, json!([])),
    ];
    for (algorithm, fields) in expected {
        let pool = v1::Pool { id: id.clone(), algorithm: algorithm.into(), ..Default::default() };
        site.update_pool(pool, "algorithm").await;
        assert_eq!(site.row(80).await.unwrap()["selection_fields"], fields, "{algorithm:?}");
    }
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_optional_field_can_be_updated_alone() {
    if !can_run("each_optional_field_can_be_updated_alone") {
        return;
    }
    let site = Site::start("defect9", |_| {}).await;
    let id = site.tree.pools[0].pool.as_ref().unwrap().id.clone();
    let pool = || v1::Pool { id: id.clone(), ..Default::default() };
    site.update_pool(v1::Pool { session_persistence: Some(source_ip(60)), ..pool() }, "session_persistence")
        .await;
    assert_eq!(site.row(80).await.unwrap()["options"]["affinity_timeout"], "60");
    site.update_pool(pool(), "session_persistence").await;
    assert_eq!(site.row(80).await.unwrap()["options"].get("affinity_timeout"), None);
    site.update_pool(v1::Pool { name: "renamed".to_owned(), ..pool() }, "name").await;
    site.update_pool(v1::Pool { admin_state_up: Some(false), ..pool() }, "admin_state_up").await;
    assert_eq!(site.row(80).await.unwrap()["vips"], json!({"10.0.0.100:80": ""}));
    site.update_pool(v1::Pool { admin_state_up: Some(true), ..pool() }, "admin_state_up").await;

    let id = site.tree.listeners[0].id.clone();
    let listener = || v1::Listener { id: id.clone(), ..Default::default() };
    site.update_listener(listener(), "default_pool_id").await;
    assert_eq!(site.row(80).await.unwrap()["vips"], json!({"10.0.0.100:80": ""}));
    site.update_listener(v1::Listener { name: "renamed".to_owned(), ..listener() }, "name").await;
    assert_eq!(site.row(80).await.unwrap()["name"], "renamed");

    let id = site.tree.pools[0].backends[0].id.clone();
    let backend = || v1::Backend { id: id.clone(), ..Default::default() };
    site.update_backend(v1::Backend { backup: true, ..backend() }, "backup").await;
    site.update_backend(v1::Backend { monitor_port: 8081, ..backend() }, "monitor_port").await;
    site.update_backend(v1::Backend { admin_state_up: Some(false), ..backend() }, "admin_state_up").await;
    let tree = site.active().await;
    let stored = tree.pools[0].backends.iter().find(|stored| stored.id == id).unwrap();
    assert!(
        stored.backup && stored.monitor_port == 8081 && stored.admin_state_up == Some(false),
        "{stored:?}"
    );
    site.lab.close().unwrap();
}
