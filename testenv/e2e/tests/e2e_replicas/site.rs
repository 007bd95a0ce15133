//! Three plugins on three etcd members and one northbound database.

use std::net::IpAddr;
use std::time::Duration;

use fiberlb_lab::authority::Authority;
use fiberlb_lab::etcd::Cluster;
use fiberlb_lab::replica::{Replica, ReplicaSpec};
use fiberlb_lab::{Host, Lab, workspace_binary};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::common::{add_network, tree, until};

/// Status of a load balancer in force.
pub(crate) const ACTIVE: i32 = v1::ProvisioningStatus::Active as i32;

pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) etcd: Cluster,
    pub(crate) plugins: Vec<Replica>,
    pub(crate) network: Uuid,
    client: Host,
    pub(crate) authority: Authority,
}

impl Site {
    pub(crate) async fn start(name: &str) -> Site {
        let lab = Lab::start(name).await.unwrap();
        let etcd = Cluster::start(&lab, 3).await.unwrap();
        let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/16")]).await;
        let mut hosts = Vec::new();
        for index in 0..3 {
            hosts.push(lab.add_host(&format!("plugin{index}")).await.unwrap());
        }
        let addresses: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        let authority = Authority::new(lab.world(), &addresses).unwrap();
        let spec = ReplicaSpec {
            store: etcd.store(),
            // As processes in the lab reach it.
            northbound: vec!["unix:/run/central/nb.sock".to_owned()],
            agents: true,
            more: authority.plugin_arguments(),
        };
        let mut plugins = Vec::new();
        for (index, host) in hosts.into_iter().enumerate() {
            plugins.push(Replica::start(host, &format!("plugin{index}"), &spec).await.unwrap());
        }
        for plugin in &plugins {
            plugin.ready().await.unwrap();
        }
        let client = lab.add_host("client").await.unwrap();
        Site { lab, etcd, plugins, network, client, authority }
    }

    pub(crate) fn client(&self, plugin: usize) -> LoadBalancerServiceClient<Channel> {
        LoadBalancerServiceClient::new(self.channel(plugin))
    }

    pub(crate) fn channel(&self, plugin: usize) -> Channel {
        self.plugins[plugin].channel_from(&self.client)
    }

    /// The same for streams that go on for long.
    pub(crate) fn channel_without_limit(&self, plugin: usize) -> Channel {
        let address = std::net::SocketAddr::new(self.plugins[plugin].host().address(), 9630);
        self.client.channel(&Endpoint::from_static("http://fiberlb-plugin"), address)
    }

    /// The plugin that says that it leads, if exactly one does.
    pub(crate) async fn leader(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        for (index, plugin) in self.plugins.iter().enumerate() {
            // One that is down or frozen does not answer.
            let asked = tokio::time::timeout(Duration::from_millis(500), plugin.metric("fiberlb_leads"));
            if matches!(asked.await, Ok(Ok(leads)) if leads == 1.0) {
                leaders.push(index);
            }
        }
        (leaders.len() == 1).then(|| leaders[0])
    }

    pub(crate) async fn await_leader(&self) -> usize {
        until("one leader", async || self.leader().await).await
    }

    pub(crate) async fn apply(&self, plugin: usize, tree: v1::LoadBalancerTree) -> Result<String, Status> {
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let answer = self.client(plugin).apply_load_balancer(request).await?.into_inner();
        Ok(answer.tree.unwrap().load_balancer.unwrap().id)
    }

    /// A load balancer of one listener and two backends.
    pub(crate) fn tree(&self, name: &str, vip: &str) -> v1::LoadBalancerTree {
        tree(name, self.network, vip, &["10.0.200.1:8080", "10.0.200.2:8080"])
    }

    pub(crate) async fn status_tree(&self, plugin: usize, id: &str) -> Result<v1::LoadBalancerTree, Status> {
        let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
        Ok(self.client(plugin).get_status_tree(request).await?.into_inner())
    }

    /// Waits until a plugin says that a load balancer and its listener are in force.
    pub(crate) async fn active(&self, plugin: usize, id: &str) {
        until(&format!("load balancer {id} in force, as plugin {plugin} says"), async || {
            let tree = self.status_tree(plugin, id).await.ok()?;
            let root = tree.load_balancer?.state?;
            let listener = tree.listeners.first()?.state.clone()?;
            let all = [root, listener].iter().all(|state| state.provisioning_status == ACTIVE);
            all.then_some(())
        })
        .await;
    }

    /// Output of the command that compares OVN with the store, asked of a plugin.
    pub(crate) async fn verify(&self, plugin: usize) -> (bool, String) {
        let fiberlb = workspace_binary("fiberlb").unwrap();
        let url = self.plugins[plugin].url();
        let mut command = self.client.command(&fiberlb.to_string_lossy());
        let output = command.args(["--endpoint", &url, "ovn", "verify"]).output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs `fiberlb-plugin` on a host of its own; whether it ended well, and all that it said.
    pub(crate) async fn plugin_command(&self, arguments: &[&str]) -> (bool, String) {
        let plugin = workspace_binary("fiberlb-plugin").unwrap();
        let mut command = self.client.command(&plugin.to_string_lossy());
        let ended = tokio::time::timeout(Duration::from_secs(30), command.args(arguments).output()).await;
        let output = ended.expect("it does not end").unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Transactions that a plugin has committed to the northbound database since it started.
    pub(crate) async fn committed(&self, plugin: usize) -> f64 {
        let line = "fiberlb_northbound_transactions_total{outcome=\"committed\"}";
        self.plugins[plugin].metric(line).await.unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for plugin in &self.plugins {
            let name = &plugin.process().program().name;
            let path = self.lab.world().path(&format!("/run/log/{name}.log"));
            let log = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(25).collect();
            eprintln!("the end of {name}'s log, newest first:\n{}", lines.join("\n"));
        }
    }
}
