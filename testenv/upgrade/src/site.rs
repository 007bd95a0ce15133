//! An installation of which each part may run either release.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fiberlb_lab::authority::Authority;
use fiberlb_lab::etcd::Cluster;
use fiberlb_lab::process::Process;
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::replica::{Replica, ReplicaSpec};
use fiberlb_lab::run::{COMMAND_LIMIT, run};
use fiberlb_lab::workload::Server;
use fiberlb_lab::{Host, Lab, Vm, VmSpec};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use fiberlb_proto::v1::node_service_client::NodeServiceClient;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use crate::builds::{Build, Builds};
use crate::trees::{BACKEND_PORT, BACKENDS};

/// Longest wait for anything: several times what the slowest part needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The hypervisors, each with a node agent.
const CHASSIS: [&str; 2] = ["ch1", "ch2"];
/// File of an embedded store, in the lab.
const FILE: &str = "/run/host/store.redb";
/// Tables whose rows are compared.
const TABLES: [&str; 9] = [
    "Logical_Switch",
    "Logical_Switch_Port",
    "Logical_Router",
    "Logical_Router_Port",
    "Logical_Router_Static_Route",
    "Load_Balancer",
    "Load_Balancer_Group",
    "Address_Set",
    "Port_Group",
];

/// Releases that a site begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Releases {
    /// Release of all plugins.
    pub(crate) plugins: Build,
    /// Releases of the two node agents.
    pub(crate) agents: [Build; 2],
    /// Three plugins on a cluster of etcd, else one on an embedded store.
    pub(crate) replicated: bool,
}

/// Everything that runs. Dropping it takes everything away.
#[derive(Debug)]
pub(crate) struct Site {
    /// All of it. First, since fields are dropped in order: with it everything ends at once.
    pub(crate) lab: Lab,
    /// Node agents, `node0` and `node1`.
    pub(crate) agents: Vec<ProxyNode>,
    /// Plugins.
    pub(crate) plugins: Vec<Replica>,
    /// The cluster that is the store, where that is not a file.
    pub(crate) etcd: Option<Cluster>,
    /// The tenant's network.
    pub(crate) network: Uuid,
    /// A client of the load balancers.
    pub(crate) client: Vm,
    backends: Vec<(Vm, Option<Server>)>,
    client_host: Host,
    store: String,
    builds: Builds,
}

/// The end of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    /// True if it succeeded.
    pub(crate) well: bool,
    /// All that it printed.
    pub(crate) said: String,
}

impl Site {
    /// Starts all of it, and waits until the agents are known.
    ///
    /// # Errors
    /// Something does not come up.
    pub(crate) async fn start(name: &str, builds: &Builds, releases: Releases) -> Result<Self> {
        let lab = Lab::start(name).await?;
        lab.add_all_chassis(&CHASSIS).await?;
        let network = lab.add_switch("sw0", &[("subnet", "10.0.0.0/24")]).await?;
        let (client, backends) = machines(&lab).await?;
        let etcd = if releases.replicated { Some(Cluster::start(&lab, 3).await?) } else { None };
        let store = etcd.as_ref().map_or(FILE.to_owned(), Cluster::store);
        let mut hosts = Vec::new();
        for index in 0..if releases.replicated { 3 } else { 1 } {
            hosts.push(lab.add_host(&format!("plugin{index}")).await?);
        }
        let addresses: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        let authority = Authority::new(lab.world(), &addresses)?;
        let spec = ReplicaSpec {
            store: store.clone(),
            northbound: vec!["unix:/run/central/nb.sock".to_owned()],
            agents: true,
            more: authority.plugin_arguments(),
        };
        let mut plugins = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            let (binary, name) =
                (builds.program(releases.plugins, "fiberlb-plugin"), format!("plugin{index}"));
            plugins.push(Replica::start_binary(binary, host.clone(), &name, &spec).await?);
        }
        let agents = agents(&lab, &hosts, &authority, builds, releases.agents).await?;
        let (client_host, builds) = (lab.add_host("client_host").await?, builds.clone());
        let site = Self { agents, plugins, etcd, network, client, backends, client_host, store, builds, lab };
        site.settled().await?;
        for plugin in &site.plugins {
            site.runs(plugin.process(), releases.plugins)?;
        }
        for (agent, build) in site.agents.iter().zip(releases.agents) {
            site.runs(agent.process(), build)?;
        }
        Ok(site)
    }

    /// Number of plugins.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.plugins.len()
    }

    /// Load balancers of a plugin; a call without an answer fails after 3 s.
    ///
    /// # Errors
    /// There is no such plugin.
    pub(crate) fn api(&self, plugin: usize) -> Result<LoadBalancerServiceClient<Channel>> {
        Ok(LoadBalancerServiceClient::new(self.plugin(plugin)?.channel_from(&self.client_host)))
    }

    /// A connection to a plugin for streams that go on for long.
    ///
    /// # Errors
    /// There is no such plugin.
    pub(crate) fn stream(&self, plugin: usize) -> Result<Channel> {
        let address = SocketAddr::new(self.plugin(plugin)?.host().address(), 9630);
        Ok(self.client_host.channel(&Endpoint::from_static("http://fiberlb-plugin"), address))
    }

    /// Nodes, as a plugin says.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn nodes(&self, plugin: usize) -> Result<Vec<v1::Node>> {
        let mut client = NodeServiceClient::new(self.plugin(plugin)?.channel_from(&self.client_host));
        Ok(client.list_nodes(v1::ListNodesRequest {}).await?.into_inner().nodes)
    }

    /// The one plugin that says that it leads. Waits for that.
    ///
    /// # Errors
    /// It is not so in time.
    pub(crate) async fn leader(&self) -> Result<usize> {
        self.until("one leader", async || {
            let mut leaders = Vec::new();
            for (index, plugin) in self.plugins.iter().enumerate() {
                if plugin.metric("fiberlb_leads").await.is_ok_and(|leads| leads > 0.0) {
                    leaders.push(index);
                }
            }
            match leaders.as_slice() {
                [leader] => Ok(*leader),
                _ => bail!("these plugins say that they lead: {leaders:?}"),
            }
        })
        .await
    }

    /// Release that a plugin runs.
    ///
    /// # Errors
    /// There is no such plugin.
    pub(crate) fn build_of(&self, plugin: usize) -> Result<Build> {
        let binary = &self.plugin(plugin)?.process().program().binary;
        let is_new = *binary == self.builds.program(Build::New, "fiberlb-plugin");
        Ok(if is_new { Build::New } else { Build::Old })
    }

    /// True if a plugin knows the state of nodes: a follower learns it from a leader of its own release only
    /// (docs/operating.md, "Upgrading").
    ///
    /// # Errors
    /// No plugin leads.
    pub(crate) async fn knows_nodes(&self, plugin: usize) -> Result<bool> {
        Ok(self.build_of(plugin)? == self.build_of(self.leader().await?)?)
    }

    /// Waits until one plugin leads and all that know the state of nodes show both agents alive.
    ///
    /// # Errors
    /// It is not so in time.
    pub(crate) async fn settled(&self) -> Result<()> {
        for plugin in &self.plugins {
            plugin.ready().await?;
        }
        for plugin in 0..self.count() {
            if !self.knows_nodes(plugin).await? {
                continue;
            }
            self.until(&format!("both agents alive, as plugin{plugin} says"), async || {
                let nodes = self.nodes(plugin).await?;
                let alive = nodes.iter().filter(|node| node.status() == v1::NodeStatus::Alive).count();
                ensure!(alive == self.agents.len(), "{alive} are alive of {nodes:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Asks until it succeeds.
    ///
    /// # Errors
    /// The last failure.
    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(why) if began.elapsed() > PATIENCE => {
                    return Err(why.context(format!("waited {PATIENCE:?} for {what}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Stops a plugin in order, or kills it.
    ///
    /// # Errors
    /// It is not there, or ends with a failure.
    pub(crate) fn stop_plugin(&mut self, plugin: usize, in_order: bool) -> Result<()> {
        let process = self.plugin_mut(plugin)?.process_mut();
        if in_order { process.terminate() } else { process.kill() }
    }

    /// Starts a plugin that has ended, with a release, and waits until it answers.
    ///
    /// # Errors
    /// It ends at once, or does not answer.
    pub(crate) async fn start_plugin(&mut self, plugin: usize, build: Build) -> Result<()> {
        let binary = self.builds.program(build, "fiberlb-plugin");
        let replica = self.plugin_mut(plugin)?;
        replica.process_mut().replace_binary(binary);
        replica.process_mut().start_again().await?;
        replica.ready().await?;
        self.runs(self.plugin(plugin)?.process(), build)
    }

    /// Checks that a process runs the program of a release: releases of one version cannot be told apart otherwise.
    fn runs(&self, process: &Process, build: Build) -> Result<()> {
        let program = &process.program().binary;
        let wanted = self.builds.program(build, &program.file_name().unwrap_or_default().to_string_lossy());
        let found = fs::read_link(format!("/proc/{}/exe", process.pid()))?;
        ensure!(found == wanted, "{} runs {}", process.program().name, found.display());
        Ok(())
    }

    /// Upgrades a plugin as operators do: stopped in order, and started with another release.
    ///
    /// # Errors
    /// As [`Site::start_plugin`].
    pub(crate) async fn change_plugin(&mut self, plugin: usize, build: Build) -> Result<()> {
        self.stop_plugin(plugin, true)?;
        self.start_plugin(plugin, build).await
    }

    /// The same for a node agent.
    ///
    /// # Errors
    /// It ends with a failure, or at once.
    pub(crate) async fn change_agent(&mut self, agent: usize, build: Build) -> Result<()> {
        let binary = self.builds.program(build, "fiberlb-proxy");
        let node = self.agents.get_mut(agent).context("there is no such agent")?;
        node.terminate()?;
        node.process_mut().replace_binary(binary);
        node.start_again().await?;
        self.runs(self.agents.get(agent).context("there is no such agent")?.process(), build)
    }

    /// Kills the server of a backend, or starts it again.
    ///
    /// # Errors
    /// There is none, or what the kernel says.
    pub(crate) fn serve(&mut self, backend: usize, serves: bool) -> Result<()> {
        let (vm, server) = self.backends.get_mut(backend).context("there is no such backend")?;
        *server = if serves { Some(serve(vm)?) } else { None };
        Ok(())
    }

    /// Runs the command of a release for a plugin.
    ///
    /// # Errors
    /// It ends with a failure; what it said.
    pub(crate) async fn command(&self, build: Build, plugin: usize, words: &str) -> Result<String> {
        let mut command = self.client_host.command(&self.builds.program(build, "fiberlb").to_string_lossy());
        command.args(["--endpoint", &self.plugin(plugin)?.url()]).args(words.split_whitespace());
        run(command, COMMAND_LIMIT).await.with_context(|| format!("the {build} command, `fiberlb {words}`"))
    }

    /// Runs a plugin of a release on the store, which is expected to end by itself within a minute.
    ///
    /// # Errors
    /// It does not.
    pub(crate) async fn plugin_that_ends(&self, build: Build, subcommand: &[&str]) -> Result<Ended> {
        let mut command = self.client_host.command("timeout");
        command.args(["60"]).arg(self.builds.program(build, "fiberlb-plugin")).args(subcommand);
        command.args(["--store", &self.store]);
        if subcommand.is_empty() {
            command.args(["--northbound", "unix:/run/central/nb.sock", "--agents-listen", "off"]);
            command.args(["--listen", "127.0.0.1:9650", "--metrics-listen", "127.0.0.1:9651"]);
        }
        // What it says is for operators, who have no backtraces.
        let output = command.env_remove("RUST_BACKTRACE").kill_on_drop(true).output().await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.code() != Some(124), "the {build} plugin works on it, and should refuse to");
        Ok(Ended { well: output.status.success(), said })
    }

    /// Rows of the northbound database, a line each: the table, and an object of all columns.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(crate) async fn rows(&self) -> Result<BTreeSet<String>> {
        let mut rows = BTreeSet::new();
        for table in TABLES {
            let printed = self.lab.nbctl(&["--format=json", "list", table]).await?;
            let printed: serde_json::Value = serde_json::from_str(&printed)?;
            let list = |key| printed.get(key).and_then(serde_json::Value::as_array).context("no rows");
            for cells in list("data")? {
                let headings = list("headings")?.iter().filter_map(|heading| heading.as_str());
                let cells = cells.as_array().context("a row without cells")?.iter().cloned();
                let row: serde_json::Value = headings.map(str::to_owned).zip(cells).collect();
                rows.insert(format!("{table} {row}"));
            }
        }
        Ok(rows)
    }

    /// Transactions that plugins have committed to the northbound database since each of them started.
    ///
    /// # Errors
    /// One does not say.
    pub(crate) async fn committed(&self) -> Result<Vec<f64>> {
        let mut committed = Vec::new();
        for plugin in &self.plugins {
            let line = "fiberlb_northbound_transactions_total{outcome=\"committed\"}";
            committed.push(plugin.metric(line).await?);
        }
        Ok(committed)
    }

    /// Log of a plugin.
    ///
    /// # Errors
    /// There is no log.
    pub(crate) fn log(&self, plugin: usize) -> Result<String> {
        let name = &self.plugin(plugin)?.process().program().name;
        Ok(fs::read_to_string(self.lab.world().path(&format!("/run/log/{name}.log")))?)
    }

    /// A path in the lab, for commands that run there.
    #[must_use]
    pub(crate) fn path(name: &str) -> String {
        format!("/run/host/{name}")
    }

    fn plugin(&self, plugin: usize) -> Result<&Replica> {
        self.plugins.get(plugin).with_context(|| format!("there is no plugin{plugin}"))
    }

    fn plugin_mut(&mut self, plugin: usize) -> Result<&mut Replica> {
        self.plugins.get_mut(plugin).with_context(|| format!("there is no plugin{plugin}"))
    }
}

/// A client, and the backends with their servers, which are called `b1` and `b2`.
async fn machines(lab: &Lab) -> Result<(Vm, Vec<(Vm, Option<Server>)>)> {
    let spec = |name: &str, chassis: &str, address: &str| {
        VmSpec::new(name, chassis, "sw0").address(&format!("{address}/24"))
    };
    let [first, second] = BACKENDS;
    let specs = vec![spec("b1", "ch1", first), spec("b2", "ch2", second), spec("c1", "ch1", "10.0.0.21")];
    let mut machines = lab.add_vms(specs).await?;
    let client = machines.pop().context("there is no client")?;
    let served = |vm: Vm| -> Result<_> {
        let server = serve(&vm)?;
        Ok((vm, Some(server)))
    };
    Ok((client, machines.into_iter().map(served).collect::<Result<_>>()?))
}

fn serve(vm: &Vm) -> Result<Server> {
    Ok(Server::tcp(vm, SocketAddr::new(vm.ipv4()?, BACKEND_PORT), vm.name())?)
}

/// Agents that know the addresses of all plugins, each another one first.
async fn agents(
    lab: &Lab,
    plugins: &[Host],
    authority: &Authority,
    builds: &Builds,
    releases: [Build; 2],
) -> Result<Vec<ProxyNode>> {
    let mut agents = Vec::new();
    for (index, (chassis, build)) in CHASSIS.into_iter().zip(releases).enumerate() {
        lab.manage_chassis(chassis).await?;
        let id = format!("node{index}");
        let mut endpoints: Vec<String> = plugins.iter().map(Replica::agents_endpoint).collect();
        let count = endpoints.len().max(1);
        endpoints.rotate_left(index % count);
        let files = authority.node_arguments(&id)?;
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let binary = builds.program(build, "fiberlb-proxy");
        let endpoints = endpoints.join(",");
        agents.push(ProxyNode::start_binary(binary, lab, chassis, &id, &endpoints, &files).await?);
    }
    Ok(agents)
}
