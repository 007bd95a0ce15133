//! The chapters of the demo: steps, expectations and observations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fiberlb_lab::plugin::Plugin;
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::{Release, Vm};
use tempfile::TempDir;

use crate::cloud::{BACKEND_PORT, Cloud, NETWORK};
use crate::tenant::Tenant;
use crate::terminal::Terminal;
use crate::traffic::{Conversation, Measurement, Stream};

/// The tenant's load balancer.
const NAME: &str = "web";
/// Its port.
const PORT: u16 = 80;
/// Answers awaited before, without and after the plugin.
const STRETCH: u64 = 300;

/// Everything that runs. Dropping it takes everything away.
#[derive(Debug)]
pub(crate) struct Walkthrough {
    pub(crate) tenant: Tenant,
    pub(crate) nodes: Vec<ProxyNode>,
    pub(crate) plugin: Plugin,
    pub(crate) cloud: Cloud,
    /// Rows in OVN before there was a load balancer.
    untouched: BTreeSet<String>,
    /// The VIP with its port, once there is one.
    vip: Option<SocketAddr>,
    // Last, since fields are dropped in order: the plugin's store is in it.
    pub(crate) folder: TempDir,
}

impl Walkthrough {
    /// The first chapter: the cloud and the plugin.
    ///
    /// # Errors
    /// Something cannot be started.
    pub(crate) async fn begin(terminal: &Terminal) -> Result<Walkthrough> {
        terminal.chapter("A small cloud");
        terminal.note("OVN joins hypervisors (\"chassis\") to networks of tenants (\"logical switches\"): what is written");
        terminal.note(
            "into its northbound database, each chassis carries out. It runs for real here, in namespaces:",
        );
        terminal.note(&Release::chosen()?.to_string());
        let cloud = Cloud::start(terminal).await?;
        describe(terminal, &cloud);
        let untouched = cloud.rows().await?;
        let folder = TempDir::with_prefix("fiberlb-demo-")?;
        let (binary, northbound) = (Plugin::binary()?, cloud.northbound());
        let plugin = Plugin::start(&binary, folder.path(), &northbound, &[]);
        let plugin = terminal
            .during("starting fiberlb-plugin, the control plane, with an empty store", plugin)
            .await?;
        let tenant = Tenant::new(plugin.url(), folder.path())?;
        Ok(Walkthrough { tenant, nodes: Vec::new(), plugin, cloud, untouched, vip: None, folder })
    }

    /// The chapters about the tenant's load balancer.
    ///
    /// # Errors
    /// It cannot go on. What merely is not as it should be, the terminal counts.
    pub(crate) async fn show_load_balancer(&mut self, terminal: &Terminal) -> Result<()> {
        let vip = self.create(terminal).await?;
        self.change_weight(terminal, vip).await?;
        self.drain(terminal, vip).await?;
        self.add(terminal, vip).await?;
        self.restart(terminal, vip).await
    }

    async fn create(&mut self, terminal: &Terminal) -> Result<SocketAddr> {
        terminal.chapter("The tenant asks for a load balancer");
        tokio::fs::write(self.folder.path().join("web.yaml"), self.document()?).await?;
        terminal.typed("cat web.yaml");
        terminal.quote("", &self.document()?);
        self.tenant.types(terminal, "fiberlb apply -f web.yaml --wait").await?;
        let address = self.tenant.load_balancer_field(NAME, "vip_address").await?;
        let vip = SocketAddr::new(address.parse().context("the VIP")?, PORT);
        self.vip = Some(vip);
        terminal.note(&format!("FiberLB chose the address {address} (the \"VIP\") from the network's subnet, and wrote this to OVN:"));
        self.show_rows(terminal).await?;
        let measured =
            self.measure(terminal, vip, &[("backend1", 1), ("backend2", 1), ("backend3", 1)]).await?;
        let seen = measured.seen_clients();
        let claim = "the backends see the clients' own addresses";
        terminal.check(seen == self.cloud.client_addresses()?, claim, &format!("{seen:?}"));
        Ok(vip)
    }

    async fn change_weight(&self, terminal: &Terminal, vip: SocketAddr) -> Result<()> {
        terminal.chapter("A stronger backend gets more: backend1 weighs 3");
        self.tenant.types(terminal, "fiberlb backend update web/servers/backend1 --weight 3 --wait").await?;
        terminal.note("OVN knows no weights: FiberLB repeats the backend in its list.");
        self.show_rows(terminal).await?;
        self.measure(terminal, vip, &[("backend1", 3), ("backend2", 1), ("backend3", 1)]).await.map(drop)
    }

    async fn drain(&self, terminal: &Terminal, vip: SocketAddr) -> Result<()> {
        terminal.chapter("A backend is drained: no new requests, but nobody is cut off");
        let client = self.cloud.clients.first().context("there is no client")?;
        let mut open = terminal
            .during(
                "client1 opens a connection to backend2 and keeps it",
                Conversation::with("backend2", client, vip),
            )
            .await?;
        self.tenant.types(terminal, "fiberlb backend update web/servers/backend2 --weight 0 --wait").await?;
        self.measure(terminal, vip, &[("backend1", 3), ("backend2", 0), ("backend3", 1)]).await?;
        let said = open.says("still there?").await;
        let observed = said.map_or_else(
            |error| (false, error.to_string()),
            |()| (true, "backend2 answered on it".to_owned()),
        );
        terminal.check(observed.0, "the connection that was open still works", &observed.1);
        Ok(())
    }

    async fn add(&self, terminal: &Terminal, vip: SocketAddr) -> Result<()> {
        terminal.chapter("A backend is added");
        let spare = self.cloud.backends.last().context("there is no spare backend")?;
        let (name, address) = (spare.name(), spare.ipv4()?);
        let line = format!(
            "fiberlb backend create --pool web/servers --name {name} --address {address} --port {BACKEND_PORT} --wait"
        );
        self.tenant.types(terminal, &line).await?;
        self.measure(terminal, vip, &[("backend1", 3), ("backend2", 0), ("backend3", 1), (name, 1)])
            .await
            .map(drop)
    }

    async fn restart(&mut self, terminal: &Terminal, vip: SocketAddr) -> Result<()> {
        terminal.chapter("The control plane is killed under traffic");
        terminal
            .note("The chassis balance by themselves: no process of FiberLB is in the path of a request.");
        let before = self.cloud.rows().await?;
        let stream = Stream::start(&self.cloud.clients, vip)?;
        terminal.during("both clients send requests without end", stream.answers(STRETCH)).await?;
        terminal.typed(&format!("kill -9 {}", self.plugin.pid()));
        self.plugin.kill()?;
        let without = terminal.alive(stream.answers(STRETCH)).await?;
        terminal.check(
            without >= STRETCH,
            "traffic goes on without any control plane",
            &format!("{without} requests answered"),
        );
        let started = Instant::now();
        terminal
            .during("starting fiberlb-plugin again, on the store that it left", self.plugin.start_again())
            .await?;
        let serving = started.elapsed();
        terminal.during("it compares its store with OVN", in_step(&self.plugin)).await?;
        let observed = format!("serving after {serving:.0?}, in step after {:.0?}", started.elapsed());
        terminal.check(started.elapsed() < Duration::from_secs(5), "it is back soon", &observed);
        terminal.alive(stream.answers(STRETCH)).await?;
        let (all_answered, summary) = stream.stop().await;
        terminal.check(all_answered, "no request was lost", &summary);
        self.check_nothing_written(terminal, &before).await?;
        let tree = self.tenant.types(terminal, "fiberlb tree web").await?;
        let is_whole = tree.contains("ACTIVE") && !tree.contains("PENDING") && !tree.contains("ERROR");
        terminal.check(
            is_whole,
            "the load balancer is all there, and in force",
            "statuses of the tree above",
        );
        Ok(())
    }

    async fn check_nothing_written(&self, terminal: &Terminal, before: &BTreeSet<String>) -> Result<()> {
        let transactions = self.plugin.northbound_transactions().await?;
        let observed = format!("{transactions} transactions since it started");
        terminal.check(transactions == 0.0, "it wrote nothing to OVN", &observed);
        let after = self.cloud.rows().await?;
        let observed = format!("{} rows compared", after.len());
        terminal.check(after == *before, "OVN's database holds the same as before", &observed);
        Ok(())
    }

    /// Begins the last chapter: deletes the load balancer.
    ///
    /// # Errors
    /// It cannot go on.
    pub(crate) async fn delete_load_balancer(&self, terminal: &Terminal) -> Result<()> {
        terminal.chapter("Everything is taken away");
        self.tenant.types(terminal, "fiberlb loadbalancer delete web --cascade --wait").await?;
        Ok(())
    }

    /// Ends the last chapter: compares OVN's database with that of the beginning.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn compare_rows(&self, terminal: &Terminal) -> Result<()> {
        let rows = self.cloud.rows().await?;
        let left = rows.difference(&self.untouched).count();
        let missing = self.untouched.difference(&rows).count();
        let observed = format!("{left} rows more or changed, {missing} fewer");
        terminal.check(left + missing == 0, "OVN's database is as it was in the beginning", &observed);
        terminal.line("stopping the nodes, the plugin and the lab");
        Ok(())
    }

    /// Ends everything.
    ///
    /// # Errors
    /// A daemon of OVN was not well.
    pub(crate) fn end(self) -> Result<()> {
        drop(self.nodes);
        drop(self.plugin);
        self.cloud.end()
    }

    /// End of the plugin's log.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("plugin.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Says what can be done with all that still runs.
    ///
    /// # Errors
    /// None but those of the system.
    pub(crate) fn playground(&self, terminal: &Terminal) -> Result<()> {
        terminal.chapter("Yours to play with, until Ctrl-C");
        let folder = self.tenant.binary().parent().context("the client has no folder")?;
        let lab = self.cloud.name();
        terminal.note("Type these in another terminal:");
        let try_it = |what: &str, command: &str| terminal.quote(&format!("# {what}"), command);
        let path =
            format!("export PATH={}:$PATH FIBERLB_ENDPOINT={}", folder.display(), self.tenant.endpoint());
        try_it("first: where the commands are, and where the plugin is", &path);
        try_it("the load balancer, and what changes in it", "fiberlb tree\nfiberlb watch web");
        try_it(
            "the proxy nodes, and what they say of a backend",
            "fiberlb node list\nfiberlb health show shop/servers/backend2",
        );
        try_it(
            "backend2 again, with weight 5",
            "fiberlb backend update web/servers/backend2 --weight 5 --wait",
        );
        if let Some(vip) = self.vip {
            let ask = format!("'head -1 < /dev/tcp/{}/{}'", vip.ip(), vip.port());
            try_it("a request from client1", &format!("fiberlb-lab exec {lab} client1 -- bash -c {ask}"));
        }
        let nbctl = format!("fiberlb-lab nbctl {lab} --");
        try_it("what OVN holds (ovn-nbctl with any arguments)", &format!("{nbctl} lb-list\n{nbctl} show"));
        try_it("a shell where OVN's daemons run", &self.cloud.shell());
        terminal.note(&format!("The plugin's log: {}", self.folder.path().join("plugin.log").display()));
        Ok(())
    }

    /// Waits until both chassis do what OVN's database says, sends requests, and checks the shares.
    pub(crate) async fn measure(
        &self,
        terminal: &Terminal,
        vip: SocketAddr,
        weights: &[(&str, u32)],
    ) -> Result<Measurement> {
        let written = Instant::now();
        terminal.during("waiting until both chassis have it", self.cloud.in_force()).await?;
        let what =
            format!("they have it after {:.0?}; both clients send requests to {vip}", written.elapsed());
        let measured = terminal.during(&what, Measurement::take(&self.cloud.clients, vip)).await?;
        let weights: BTreeMap<&str, u32> = weights.iter().copied().collect();
        let shown: Vec<Vm> =
            self.cloud.backends.iter().filter(|vm| weights.contains_key(vm.name())).cloned().collect();
        terminal.quote("", &measured.chart(&shown));
        let claim = format!("all {} requests are answered", measured.total());
        terminal.check(measured.all_answered(), &claim, &measured.summary());
        let wanted: Vec<String> = weights.values().map(u32::to_string).collect();
        let claim = format!("the shares follow the weights {}", wanted.join(" : "));
        terminal.check(measured.follows(&weights), &claim, &measured.parts(&weights));
        Ok(measured)
    }

    /// Shows what OVN's database has of load balancers.
    pub(crate) async fn show_rows(&self, terminal: &Terminal) -> Result<()> {
        terminal.typed("ovn-nbctl --columns=protocol,vips list Load_Balancer");
        terminal.quote("", &self.cloud.load_balancer_rows().await?);
        Ok(())
    }

    /// The load balancer as a document, with the first three backends.
    fn document(&self) -> Result<String> {
        let mut text = format!(
            "load_balancer: {{ name: {NAME}, network: {NETWORK} }}\n\
             listeners:\n  - {{ name: http, protocol: TCP, port: {PORT}, default_pool_id: servers }}\n\
             pools:\n  - pool: {{ name: servers, protocol: TCP }}\n    backends:\n"
        );
        for vm in self.cloud.backends.iter().take(3) {
            let (name, address) = (vm.name(), vm.ipv4()?);
            text.push_str(&format!("      - {{ name: {name}, address: {address}, port: {BACKEND_PORT} }}\n"));
        }
        Ok(text)
    }
}

/// Waits until the plugin has compared all that it has with OVN.
pub(crate) async fn in_step(plugin: &Plugin) -> Result<()> {
    let compared = async {
        loop {
            let mut batches = 0.0;
            for outcome in ["in_step", "committed"] {
                batches += plugin
                    .metric(&format!("fiberlb_northbound_transactions_total{{outcome=\"{outcome}\"}}"))
                    .await?;
            }
            if batches > 0.0 && plugin.metric("fiberlb_reconcile_queue").await? == 0.0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, compared)
        .await
        .with_context(|| format!("it is not in step after {limit:?}"))?
}

fn describe(terminal: &Terminal, cloud: &Cloud) {
    let on = |vms: &[Vm], chassis: &str| {
        let names = vms.iter().filter(|vm| vm.chassis() == chassis).map(|vm| vm.name().to_owned());
        names.collect::<Vec<_>>().join(", ")
    };
    for chassis in ["ch1", "ch2"] {
        let machines = format!("{}; {}", on(&cloud.clients, chassis), on(&cloud.backends, chassis));
        terminal.note(&format!("{chassis}: {machines}"));
    }
}
