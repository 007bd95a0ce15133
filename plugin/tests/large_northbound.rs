//! Northbound databases that are larger than a message may be: the plugin finds its place in them, writes and deletes.
#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use fiberlb_ovn_testing::{Server, columns, connect};
use fiberlb_plugin::agents::Listen;
use fiberlb_plugin::api::NetworkSettings;
use fiberlb_plugin::config::Config;
use fiberlb_plugin::{agents, app, config};
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use fiberlb_proto::v1::{
    ApplyLoadBalancerRequest, Backend, DeleteLoadBalancerRequest, GetLoadBalancerRequest,
    GetStatusTreeRequest, Listener, ListenerProtocol, LoadBalancer, LoadBalancerTree, Pool, PoolProtocol,
    PoolTree, ProvisioningStatus,
};
use ovsdb::operation::Operation;
use ovsdb::untyped::UntypedReplica;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

/// Limit on everything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const NETWORK: Uuid = Uuid::from_u128(0xfeed);

/// A plugin that runs.
struct Plugin {
    client: LoadBalancerServiceClient<Channel>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Plugin {
    async fn start(folder: &Path, server: &Server, max_message_bytes: usize) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let app = app::start(Config {
            api: config::ApiSettings { listen: anywhere, ..config::ApiSettings::default() },
            store: config::StoreSettings {
                path: folder.join("store.redb"),
                ..config::StoreSettings::default()
            },
            northbound: config::NorthboundSettings {
                endpoints: vec![server.unix().to_string()],
                max_message_bytes,
                ..config::NorthboundSettings::default()
            },
            agents: agents::Settings { listen: Listen::Off, ..agents::Settings::default() },
            metrics: config::MetricsSettings { listen: anywhere, ..config::MetricsSettings::default() },
            networks: NetworkSettings { allow_unknown_subnets: true },
            ..Config::default()
        });
        let app = app.await.unwrap();
        let client = LoadBalancerServiceClient::connect(format!("http://{}", app.api_address)).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { client, stop, running }
    }

    async fn stop(self) {
        drop(self.stop);
        self.running.await.unwrap().unwrap();
    }

    /// Applies a load balancer with a listener, and waits until it is carried out; its id.
    async fn apply(&self, name: &str, vip: &str) -> String {
        let listener = Listener { protocol: ListenerProtocol::Tcp.into(), port: 80, ..Listener::default() };
        let id = self.store(tree(name, vip, vec![listener], Vec::new())).await;
        self.carried_out(&id).await;
        id
    }

    /// Applies a tree, which is then to be carried out; its id.
    async fn store(&self, tree: LoadBalancerTree) -> String {
        let request = ApplyLoadBalancerRequest { tree: Some(tree), ..ApplyLoadBalancerRequest::default() };
        let applied = self.client.clone().apply_load_balancer(request).await.unwrap().into_inner();
        applied.tree.unwrap().load_balancer.unwrap().id
    }

    async fn carried_out(&self, id: &str) {
        until(&format!("load balancer {id} in force"), async || {
            let request = GetStatusTreeRequest { load_balancer_id: id.to_owned() };
            let tree = self.client.clone().get_status_tree(request).await.unwrap().into_inner();
            let state = tree.load_balancer.unwrap().state.unwrap();
            state.provisioning_status == i32::from(ProvisioningStatus::Active)
        })
        .await;
    }

    /// Deletes a load balancer, and waits until it is gone.
    async fn delete(&self, id: &str) {
        let request = DeleteLoadBalancerRequest {
            id: id.to_owned(),
            cascade: true,
            ..DeleteLoadBalancerRequest::default()
        };
        self.client.clone().delete_load_balancer(request).await.unwrap();
        until("the end of a load balancer", async || {
            let request = GetLoadBalancerRequest { id: id.to_owned() };
            self.client
                .clone()
                .get_load_balancer(request)
                .await
                .is_err_and(|error| error.code() == Code::NotFound)
        })
        .await;
    }
}

fn tree(name: &str, vip: &str, listeners: Vec<Listener>, backends: Vec<Backend>) -> LoadBalancerTree {
    let load_balancer = LoadBalancer {
        name: name.to_owned(),
        network: NETWORK.to_string(),
        vip_address: vip.to_owned(),
        ..LoadBalancer::default()
    };
    let pool = Pool { name: "pool".to_owned(), protocol: PoolProtocol::Tcp.into(), ..Pool::default() };
    let pools = vec![PoolTree { pool: Some(pool), backends, health_check: None }];
    LoadBalancerTree { load_balancer: Some(load_balancer), listeners, pools, ..LoadBalancerTree::default() }
}

/// A tree whose rows take as much as one may by default, but for a little: 100 listeners on two backends whose weights repeat them
/// 511 times.
fn long_tree(name: &str, vip: &str) -> LoadBalancerTree {
    let listener = |port| Listener {
        protocol: ListenerProtocol::Tcp.into(),
        port,
        default_pool_id: "pool".to_owned(),
        ..Listener::default()
    };
    let backend = |last: u32, weight| Backend {
        address: format!("fd00:1111:2222:3333:4444:5555:6666:{last}"),
        port: 10_000,
        weight: Some(weight),
        ..Backend::default()
    };
    tree(name, vip, (1..=100).map(listener).collect(), vec![backend(1001, 256), backend(1002, 255)])
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "not seen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rows of listeners of FiberLB.
fn ours(server: &Server) -> usize {
    let owned = json!([["name", "!=", "foreign"], ["protocol", "!=", ["set", []]]]);
    server.count("Load_Balancer", &owned)
}

/// A plugin starts, works, and works on after the database has come back, with `rows` foreign rows of so many bytes.
async fn works_beside(rows: u128, bytes: usize, max_message_bytes: usize) {
    let mut server = Server::start().await;
    let network = json!({"name": "net", "other_config": ["map", [["subnet", "10.0.0.0/24"]]]});
    server.foreign(&[json!({"op": "insert", "table": "Logical_Switch", "uuid": NETWORK, "row": network})]);
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(folder.path(), &server, max_message_bytes).await;
    let first = plugin.apply("first", "10.0.0.101").await;
    let (writer, _events) =
        connect(fiberlb_ovn_testing::config(server.unix()), UntypedReplica::of(Vec::new())).await;
    let vips = json!(["map", [["192.0.2.1:80", "x".repeat(bytes)]]]);
    for number in 1..=rows {
        let row = columns(json!({"name": "foreign", "vips": vips}));
        writer
            .transact(vec![Operation::insert("Load_Balancer", Uuid::from_u128(number << 96), row)])
            .await
            .unwrap();
    }
    drop(writer);
    plugin.stop().await;

    let plugin = Plugin::start(folder.path(), &server, max_message_bytes).await;
    let second = plugin.apply("second", "10.0.0.102").await;
    assert_eq!(ours(&server), 2);
    plugin.delete(&first).await;
    assert_eq!(ours(&server), 1);

    server.kill();
    server.start_again().await;
    plugin.apply("third", "10.0.0.103").await;
    plugin.delete(&second).await;
    assert_eq!(ours(&server), 1);
    plugin.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_larger_than_a_message_is_worked_with() {
    works_beside(50, 100_000, 1 << 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "large: see make test-hostile"]
async fn hostile_a_database_larger_than_a_message_by_default_is_worked_with() {
    works_beside(75, 2_000_000, config::NorthboundSettings::default().max_message_bytes).await;
}

/// Tenants within all their limits fill the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "large: see make test-hostile"]
async fn hostile_load_balancers_larger_together_than_a_message_are_worked_with() {
    let max_message_bytes = config::NorthboundSettings::default().max_message_bytes;
    let server = Server::start().await;
    server.foreign(&[
        json!({"op": "insert", "table": "Logical_Switch", "uuid": NETWORK, "row": {"name": "net"}}),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::start(folder.path(), &server, max_message_bytes).await;
    let mut ids = Vec::new();
    for number in 1..=62 {
        ids.push(plugin.store(long_tree(&format!("lb-{number}"), &format!("fd00::{number}"))).await);
    }
    for id in &ids {
        plugin.carried_out(id).await;
    }
    assert_eq!(ours(&server), 6200);
    let of_row = 511 * "[fd00:1111:2222:3333:4444:5555:6666:1001]:10000,".len();
    assert!(6200 * of_row > max_message_bytes);
    plugin.stop().await;

    let plugin = Plugin::start(folder.path(), &server, max_message_bytes).await;
    plugin.delete(&ids[0]).await;
    assert_eq!(ours(&server), 6100);
    for id in &ids[1..] {
        plugin.carried_out(id).await;
    }
    plugin.stop().await;
}
