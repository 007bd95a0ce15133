//! Helpers of the end-to-end tests: a plugin on a lab's northbound database, and a tenant with a client of it. Helpers of only
//! some of them stand in the files beside this one.

use std::time::{Duration, Instant};

use fiberlb_lab::Lab;
use fiberlb_lab::plugin::Plugin;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use uuid::Uuid;

/// Far above what anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin with a store of its own, and a client of it.
pub(crate) struct Tenant {
    pub(crate) plugin: Plugin,
    pub(crate) client: LoadBalancerServiceClient<Channel>,
    folder: TempDir,
}

impl Tenant {
    /// Starts a plugin, which is a new installation, on the northbound database of a lab.
    pub(crate) async fn start(lab: &Lab) -> Tenant {
        Tenant::start_with(lab, &[]).await
    }

    /// The same with more arguments for the plugin.
    pub(crate) async fn start_with(lab: &Lab, more: &[&str]) -> Tenant {
        let folder = TempDir::new().unwrap();
        let binary = Plugin::binary().unwrap();
        let plugin = Plugin::start(&binary, folder.path(), &lab.nb_endpoint(), more).await.unwrap();
        let client = LoadBalancerServiceClient::new(plugin.channel().unwrap());
        Tenant { plugin, client, folder }
    }

    /// Applies a tree and waits until all of it is in the northbound database.
    pub(crate) async fn apply(&self, tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let answer = self.client.clone().apply_load_balancer(request).await.unwrap().into_inner();
        self.active(&answer.tree.unwrap().load_balancer.unwrap().id).await
    }

    /// Waits until all of a tree is in the northbound database.
    pub(crate) async fn active(&self, id: &str) -> v1::LoadBalancerTree {
        until(&format!("load balancer {id} in force"), async || {
            let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
            let tree = self.client.clone().get_status_tree(request).await.ok()?.into_inner();
            let active = i32::from(v1::ProvisioningStatus::Active);
            states(&tree).iter().all(|state| state.provisioning_status == active).then_some(tree)
        })
        .await
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("plugin.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the end of the plugin's log, newest first:\n{}", lines.join("\n"));
        }
    }
}

/// The states of all resources of a tree.
fn states(tree: &v1::LoadBalancerTree) -> Vec<v1::ResourceState> {
    let root = tree.load_balancer.iter().map(|it| it.state.clone());
    let listeners = tree.listeners.iter().map(|it| it.state.clone());
    let pools = tree.pools.iter().filter_map(|it| it.pool.as_ref()).map(|it| it.state.clone());
    let backends = tree.pools.iter().flat_map(|it| &it.backends).map(|it| it.state.clone());
    let checks = tree.pools.iter().filter_map(|it| it.health_check.as_ref()).map(|it| it.state.clone());
    root.chain(listeners).chain(pools).chain(backends).chain(checks).map(Option::unwrap).collect()
}

/// Adds a tenant network, and gives the UUID under which it is in the database.
#[allow(dead_code, reason = "not where another program makes the networks")]
pub(crate) async fn add_network(lab: &Lab, name: &str, other_config: &[(&str, &str)]) -> Uuid {
    lab.add_switch(name, other_config).await.unwrap();
    // The UUID that is printed in the transaction which makes a row is not the one that it is stored under.
    lab.nbctl(&["get", "Logical_Switch", name, "_uuid"]).await.unwrap().trim().parse().unwrap()
}

/// A load balancer with one TCP listener on port 80 and its pool `web`, of backends given as `ADDRESS:PORT`.
pub(crate) fn tree(name: &str, network: Uuid, vip: &str, backends: &[&str]) -> v1::LoadBalancerTree {
    let load_balancer = v1::LoadBalancer {
        name: name.to_owned(),
        network: network.to_string(),
        vip_address: vip.to_owned(),
        ..Default::default()
    };
    let listener = v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 80,
        default_pool_id: "web".to_owned(),
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "web".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let backends = backends.iter().map(|backend| {
        let address: std::net::SocketAddr = backend.parse().unwrap();
        let (ip, port) = (address.ip().to_string(), address.port().into());
        v1::Backend { address: ip, port, ..Default::default() }
    });
    v1::LoadBalancerTree {
        load_balancer: Some(load_balancer),
        listeners: vec![listener],
        pools: vec![v1::PoolTree { pool: Some(pool), backends: backends.collect(), health_check: None }],
        ..Default::default()
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
