//! The world of one test: two chassis with a node agent each, a tenant network with both address families, and a plugin.

use std::net::{IpAddr, SocketAddr};

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::workload::{Report, Requests, Server};
use fiberlb_lab::{Lab, Vm, VmSpec};
use tempfile::TempDir;
use uuid::Uuid;

use crate::api::Operator;
use crate::common::{Tenant, add_network, until};

/// Port of the backends.
pub(crate) const BACKEND_PORT: u16 = 8080;

/// Processes of a test. The agents end before the plugin, the plugin before the lab.
pub(crate) struct Site {
    pub(crate) nodes: Vec<ProxyNode>,
    pub(crate) tenant: Tenant,
    pub(crate) network: Uuid,
    pub(crate) lab: Lab,
    /// Folder of the plugin's settings.
    settings: TempDir,
}

impl Site {
    /// Starts all of it, with agents that are known to the plugin.
    pub(crate) async fn start(name: &str) -> Site {
        let mut site = Site::without_nodes(name).await;
        site.add_nodes().await;
        site
    }

    /// The same with a plugin that has these settings, in TOML.
    pub(crate) async fn with_settings(name: &str, settings: &str) -> Site {
        let mut site = Site::without_nodes_with(name, settings).await;
        site.add_nodes().await;
        site
    }

    /// The same without agents.
    pub(crate) async fn without_nodes(name: &str) -> Site {
        Site::without_nodes_with(name, "").await
    }

    async fn without_nodes_with(name: &str, settings: &str) -> Site {
        let lab = Lab::start(name).await.unwrap();
        lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
        let network = add_tenant_network(&lab, "sw0").await;
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("plugin.toml");
        std::fs::write(&file, settings).unwrap();
        let tenant = match settings {
            "" => Tenant::start(&lab).await,
            _ => Tenant::start_with(&lab, &["--config", &file.to_string_lossy()]).await,
        };
        Site { nodes: Vec::new(), tenant, network, lab, settings: folder }
    }

    /// Starts an agent on each chassis, and waits until the plugin knows them.
    pub(crate) async fn add_nodes(&mut self) {
        let plugin = self.tenant.plugin.agents_endpoint();
        for chassis in ["ch1", "ch2"] {
            self.nodes.push(ProxyNode::start(&self.lab, chassis, &plugin).await.unwrap());
        }
        self.nodes_alive().await;
    }

    /// Waits until the plugin has sessions with all agents.
    pub(crate) async fn nodes_alive(&self) {
        until("all nodes alive", async || {
            let nodes = self.operator().nodes().await?;
            let alive = |node: &ProxyNode| {
                nodes
                    .iter()
                    .any(|it| it.id == node.id() && it.status() == fiberlb_proto::v1::NodeStatus::Alive)
            };
            self.nodes.iter().all(alive).then_some(())
        })
        .await;
    }

    /// The API beside that of load balancers.
    pub(crate) fn operator(&self) -> Operator {
        Operator::new(&self.tenant)
    }

    /// The agent of a node.
    pub(crate) fn node(&self, id: &str) -> &ProxyNode {
        self.nodes.iter().find(|node| node.id() == id).unwrap()
    }

    /// VMs in `sw0` by name, number (of their addresses `10.0.0.N` and `fd00::N`) and chassis.
    pub(crate) async fn vms<const N: usize>(&self, wanted: [(&str, u8, &str); N]) -> [Vm; N] {
        let specs = wanted.map(|(name, number, chassis)| vm(name, number, chassis, "sw0"));
        self.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap()
    }

    /// The row of the load balancer that is called so: the entries of the VIP's list.
    pub(crate) async fn listed(&self, vip: &str) -> Vec<String> {
        let rows = crate::rows::listener_rows(&self.lab).await;
        let list = rows.values().find_map(|row| row["vips"].get(vip)?.as_str().map(str::to_owned));
        list.unwrap_or_default().split(',').filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }

    /// Waits until the list of a VIP is as wanted.
    pub(crate) async fn until_listed(&self, vip: &str, what: &str, wanted: impl Fn(&[String]) -> bool) {
        until(&format!("{what} in {vip}"), async || wanted(&self.listed(vip).await).then_some(())).await;
    }

    /// Ends it, and tells whether OVN was well until now.
    pub(crate) fn close(self) {
        let Site { nodes, tenant, lab, settings, .. } = self;
        drop(nodes);
        drop(tenant);
        drop(settings);
        lab.close().unwrap();
    }
}

/// A tenant network that says what its subnets are.
pub(crate) async fn add_tenant_network(lab: &Lab, name: &str) -> Uuid {
    add_network(lab, name, &[("subnet", "10.0.0.0/24"), ("ipv6_prefix", "fd00::/64")]).await
}

/// A VM with both families.
pub(crate) fn vm(name: &str, number: u8, chassis: &str, switch: &str) -> VmSpec {
    VmSpec::new(name, chassis, switch)
        .address(&format!("10.0.0.{number}/24"))
        .address(&format!("fd00::{number}/64"))
}

/// The address of a VM of the same family as another one.
pub(crate) fn like(vm: &Vm, other: IpAddr) -> IpAddr {
    if other.is_ipv4() { vm.ipv4().unwrap() } else { vm.ipv6().unwrap() }
}

/// A server named after its VM, on both families.
pub(crate) fn serve(vm: &Vm) -> [Server; 2] {
    [vm.ipv4().unwrap(), vm.ipv6().unwrap()]
        .map(|ip| Server::tcp(vm, SocketAddr::new(ip, BACKEND_PORT), vm.name()).unwrap())
}

/// A server named after its VM, on IPv4.
pub(crate) fn serve_v4(vm: &Vm) -> Server {
    Server::tcp(vm, SocketAddr::new(vm.ipv4().unwrap(), BACKEND_PORT), vm.name()).unwrap()
}

/// The outcome of `count` requests, one after another.
pub(crate) async fn ask(client: &Vm, target: SocketAddr, count: u64) -> Report {
    Requests::tcp(client, target).run(count).await.unwrap()
}
