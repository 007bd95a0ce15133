//! The installation that chaos is let loose on: a small cloud with all of FiberLB on it, each part where it can be killed,
//! frozen and cut off by itself.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use fiberlb_lab::authority::Authority;
use fiberlb_lab::etcd::Cluster;
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::replica::{Replica, ReplicaSpec};
use fiberlb_lab::workload::Server;
use fiberlb_lab::{Host, Lab, Member, Vm, VmSpec};
use fiberlb_proto::v1;
use fiberlb_proto::v1::node_service_client::NodeServiceClient;
use futures_util::future::try_join_all;
use uuid::Uuid;

use crate::load_balancer::{BACKEND_PORT, TrafficTarget};
use crate::objects::{ObjectParents, Services};
use crate::schedule::Population;

/// The hypervisors, each with a proxy node.
const CHASSIS: [&str; 3] = ["ch1", "ch2", "ch3"];
/// Members of the store's cluster.
const MEMBERS: usize = 3;
/// Longest wait for all to be well: several times what the slowest part needs.
const PATIENCE: Duration = Duration::from_secs(90);

/// Everything that runs. Dropping it takes everything away.
#[derive(Debug)]
pub struct Site {
    /// All of it. First, since fields are dropped in order: with it everything ends at once, and nobody's end is taken for a
    /// failure.
    pub lab: Lab,
    /// Proxy nodes, each with its chassis' link to the management network.
    pub nodes: Vec<(ProxyNode, Host)>,
    /// Plugins.
    pub replicas: Vec<Replica>,
    /// Their store.
    pub store: Cluster,
    /// Host of the API's clients.
    pub client_host: Host,
    /// Clients of the load balancer.
    pub clients: Vec<Vm>,
    /// Backends.
    pub backends: Vec<Vm>,
    /// A network without machines.
    churn: Uuid,
    _servers: Vec<Server>,
}

impl Site {
    /// Starts all of it.
    ///
    /// # Errors
    /// Something does not come up.
    pub async fn start(name: &str, plugins: usize) -> Result<Self> {
        let lab = Lab::start_clustered(name).await?;
        lab.add_all_chassis(&CHASSIS).await?;
        lab.add_switch("sw0", &[("subnet", "10.0.0.0/24")]).await?;
        let churn = lab.add_switch("churn", &[("subnet", "10.1.0.0/16")]).await?;
        let (clients, backends) = machines(&lab).await?;
        let servers = backends.iter().map(serve).collect::<Result<Vec<_>>>()?;
        let store = Cluster::start(&lab, MEMBERS).await?;
        let client_host = lab.add_host("client_host").await?;
        let mut hosts = Vec::new();
        for index in 0..plugins {
            hosts.push(lab.add_host(&format!("plugin{index}")).await?);
        }
        let addresses: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        let authority = Authority::new(lab.world(), &addresses)?;
        let replicas = replicas(&hosts, &store, &authority).await?;
        let nodes = nodes(&lab, &hosts, &authority).await?;
        let site =
            Self { nodes, replicas, store, client_host, clients, backends, churn, _servers: servers, lab };
        site.until_well().await?;
        Ok(site)
    }

    /// Number of units of each kind on a site with so many plugins.
    #[must_use]
    pub fn population(plugins: usize) -> Population {
        let (etcd, northbound, proxies) = (MEMBERS, Member::ALL.len(), CHASSIS.len());
        Population { etcd, plugins, northbound, proxies }
    }

    /// The plugins' services, as clients at the client_host reach them.
    #[must_use]
    pub fn services(&self) -> Vec<Services> {
        self.replicas.iter().map(|replica| Services::new(&replica.channel_from(&self.client_host))).collect()
    }

    /// Makes the load balancer that clients connect through, and the parents for objects that come and go.
    ///
    /// # Errors
    /// A plugin refuses.
    pub async fn open(&self) -> Result<(TrafficTarget, ObjectParents)> {
        let services = self.services();
        let first = services.first().context("there is no plugin")?;
        let target = TrafficTarget::open(first, &self.backends).await?;
        let id = Uuid::now_v7().to_string();
        let parents = ObjectParents { network: self.churn, pool: String::new() };
        let tree = Some(crate::objects::tree(&parents, &id, "the pool of all clients"));
        let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
        let made = first.load_balancers().apply_load_balancer(request).await?.into_inner();
        let mut pools = made.tree.unwrap_or_default().pools.into_iter();
        let pool = pools.next().and_then(|pool| pool.pool).context("there is no pool")?.id;
        self.until_well().await?;
        Ok((target, ObjectParents { pool, ..parents }))
    }

    /// Waits until all plugins answer, all nodes are alive, and all that is stored is in force.
    ///
    /// # Errors
    /// It is not so within 90 s; says what is missing.
    pub async fn until_well(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let Err(why) = self.is_well().await else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                bail!("not all is well after {PATIENCE:?}: {why:#}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_well(&self) -> Result<()> {
        let mut alive = 0;
        for (index, replica) in self.replicas.iter().enumerate() {
            if replica.metric("fiberlb_northbound_connected").await? < 1.0 {
                bail!("plugin{index} is not connected to the northbound database");
            }
            let channel = replica.channel_from(&self.client_host);
            let pending =
                pending(&Services::new(&channel)).await.with_context(|| format!("plugin{index}"))?;
            if let Some(pending) = pending {
                bail!("plugin{index} shows {pending}");
            }
            let listed = NodeServiceClient::new(channel).list_nodes(v1::ListNodesRequest {}).await;
            let nodes = listed.with_context(|| format!("plugin{index}"))?.into_inner().nodes;
            let heard = nodes.iter().filter(|node| node.status() == v1::NodeStatus::Alive).count();
            // The leader has sessions with all of them; followers need not know them.
            alive = alive.max(heard);
        }
        if alive != self.nodes.len() {
            bail!("no plugin shows more than {alive} nodes alive");
        }
        Ok(())
    }
}

/// The first load balancer that is not in force as it is stored, with its status.
async fn pending(services: &Services) -> Result<Option<String>> {
    let mut page_token = String::new();
    loop {
        let request = v1::ListLoadBalancersRequest { page_token, ..Default::default() };
        let page = services.load_balancers().list_load_balancers(request).await?.into_inner();
        for root in page.load_balancers {
            let state = root.state.unwrap_or_default();
            let status = state.provisioning_status();
            if status != v1::ProvisioningStatus::Active {
                return Ok(Some(format!("{}: {} ({})", root.id, status.as_str_name(), state.reason)));
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(None);
        }
    }
}

/// Two clients and three backends, on all chassis.
async fn machines(lab: &Lab) -> Result<(Vec<Vm>, Vec<Vm>)> {
    let spec = |name: String, chassis: &str, last: usize| {
        VmSpec::new(&name, chassis, "sw0").address(&format!("10.0.0.{last}/24"))
    };
    let numbered =
        |(index, chassis): (usize, &&str)| spec(format!("backend{}", index + 1), chassis, 11 + index);
    let mut specs: Vec<VmSpec> = CHASSIS.iter().enumerate().map(numbered).collect();
    specs.extend([spec("client1".to_owned(), "ch1", 21), spec("client2".to_owned(), "ch2", 22)]);
    let mut backends = lab.add_vms(specs).await?;
    let clients = backends.split_off(CHASSIS.len());
    Ok((clients, backends))
}

fn serve(vm: &Vm) -> Result<Server> {
    Ok(Server::tcp(vm, SocketAddr::new(vm.ipv4()?, BACKEND_PORT), vm.name())?)
}

async fn replicas(hosts: &[Host], store: &Cluster, authority: &Authority) -> Result<Vec<Replica>> {
    // Paths of the lab, not of this machine: plugins run in it.
    let northbound = Member::ALL.map(|member| format!("unix:/run/central/{}.sock", member.name())).to_vec();
    let spec =
        ReplicaSpec { store: store.store(), northbound, agents: true, more: authority.plugin_arguments() };
    let start = |(index, host): (usize, &Host)| {
        let (spec, host) = (spec.clone(), host.clone());
        async move { Replica::start(host, &format!("plugin{index}"), &spec).await }
    };
    let replicas = try_join_all(hosts.iter().enumerate().map(start)).await?;
    try_join_all(replicas.iter().map(Replica::ready)).await?;
    Ok(replicas)
}

async fn nodes(lab: &Lab, plugins: &[Host], authority: &Authority) -> Result<Vec<(ProxyNode, Host)>> {
    let mut nodes = Vec::new();
    for (index, chassis) in CHASSIS.iter().enumerate() {
        let (id, host) = (format!("node{index}"), lab.manage_chassis(chassis).await?);
        let mut endpoints: Vec<String> = plugins.iter().map(Replica::agents_endpoint).collect();
        // Not all nodes at the same plugin.
        let count = endpoints.len().max(1);
        endpoints.rotate_left(index % count);
        let files = authority.node_arguments(&id)?;
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        nodes.push((ProxyNode::start_as(lab, chassis, &id, &endpoints.join(","), &files).await?, host));
    }
    Ok(nodes)
}
