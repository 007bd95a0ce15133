//! The story, chapter by chapter: what is done, what must come of it, and what came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fiberlb_testenv::plugin::Plugin;
use fiberlb_testenv::proxy::ProxyNode;
use fiberlb_testenv::{Release, Vm};
use tempfile::TempDir;

use crate::cloud::{BACKEND_PORT, Cloud, NETWORK};
use crate::screen::Screen;
use crate::tenant::Tenant;
use crate::traffic::{Conversation, Measurement, Stream};

/// The tenant's load balancer.
const NAME: &str = "web";
/// Its port.
const PORT: u16 = 80;
/// Answers awaited before, without and after the plugin.
const STRETCH: u64 = 300;

/// Everything that runs. Dropping it takes everything away.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) tenant: Tenant,
    pub(crate) nodes: Vec<ProxyNode>,
    pub(crate) plugin: Plugin,
    pub(crate) cloud: Cloud,
    /// What OVN held before there was a load balancer.
    untouched: BTreeSet<String>,
    /// The VIP with its port, once there is one.
    vip: Option<SocketAddr>,
    // Last, since fields are dropped in order: the plugin's store is in it.
    pub(crate) folder: TempDir,
}

impl Story {
    /// The first chapter: the cloud and the plugin.
    ///
    /// # Errors
    /// Something cannot be started.
    pub(crate) async fn begin(screen: &Screen) -> Result<Story> {
        screen.chapter("A small cloud");
        screen.note("OVN joins hypervisors (\"chassis\") to networks of tenants (\"logical switches\"): what is written");
        screen.note(
            "into its northbound database, each chassis carries out. It runs for real here, in namespaces:",
        );
        screen.note(&Release::chosen()?.to_string());
        let cloud = Cloud::start(screen).await?;
        describe(screen, &cloud);
        let untouched = cloud.rows().await?;
        let folder = TempDir::with_prefix("fiberlb-demo-")?;
        let (binary, northbound) = (Plugin::binary()?, cloud.northbound());
        let plugin = Plugin::start(&binary, folder.path(), &northbound, &[]);
        let plugin =
            screen.during("starting fiberlb-plugin, the control plane, with an empty store", plugin).await?;
        let tenant = Tenant::new(plugin.url(), folder.path())?;
        Ok(Story { tenant, nodes: Vec::new(), plugin, cloud, untouched, vip: None, folder })
    }

    /// All other chapters.
    ///
    /// # Errors
    /// It cannot go on. What merely is not as it should be, the screen counts.
    pub(crate) async fn tell(&mut self, screen: &Screen) -> Result<()> {
        let vip = self.create(screen).await?;
        self.change_weight(screen, vip).await?;
        self.drain(screen, vip).await?;
        self.add(screen, vip).await?;
        self.restart(screen, vip).await?;
        self.tell_of_proxies(screen).await
    }

    async fn create(&mut self, screen: &Screen) -> Result<SocketAddr> {
        screen.chapter("The tenant asks for a load balancer");
        tokio::fs::write(self.folder.path().join("web.yaml"), self.document()?).await?;
        screen.typed("cat web.yaml");
        screen.quote("", &self.document()?);
        self.tenant.types(screen, "fiberlb apply -f web.yaml --wait").await?;
        let address = self.tenant.load_balancer_field(NAME, "vip_address").await?;
        let vip = SocketAddr::new(address.parse().context("the VIP")?, PORT);
        self.vip = Some(vip);
        screen.note(&format!("FiberLB chose the address {address} (the \"VIP\") from the network's subnet, and wrote this to OVN:"));
        self.show_rows(screen).await?;
        let measured =
            self.measure(screen, vip, &[("backend1", 1), ("backend2", 1), ("backend3", 1)]).await?;
        let seen = measured.seen_clients();
        let claim = "the backends see the clients' own addresses";
        screen.check(seen == self.cloud.client_addresses()?, claim, &format!("{seen:?}"));
        Ok(vip)
    }

    async fn change_weight(&self, screen: &Screen, vip: SocketAddr) -> Result<()> {
        screen.chapter("A stronger backend gets more: backend1 weighs 3");
        self.tenant.types(screen, "fiberlb backend update web/servers/backend1 --weight 3 --wait").await?;
        screen.note("OVN knows no weights: FiberLB repeats the backend in its list.");
        self.show_rows(screen).await?;
        self.measure(screen, vip, &[("backend1", 3), ("backend2", 1), ("backend3", 1)]).await.map(drop)
    }

    async fn drain(&self, screen: &Screen, vip: SocketAddr) -> Result<()> {
        screen.chapter("A backend is drained: no new requests, but nobody is cut off");
        let client = self.cloud.clients.first().context("there is no client")?;
        let mut open = screen
            .during(
                "client1 opens a connection to backend2 and keeps it",
                Conversation::with("backend2", client, vip),
            )
            .await?;
        self.tenant.types(screen, "fiberlb backend update web/servers/backend2 --weight 0 --wait").await?;
        self.measure(screen, vip, &[("backend1", 3), ("backend2", 0), ("backend3", 1)]).await?;
        let said = open.says("still there?").await;
        let observed = said.map_or_else(
            |error| (false, error.to_string()),
            |()| (true, "backend2 answered on it".to_owned()),
        );
        screen.check(observed.0, "the connection that was open still works", &observed.1);
        Ok(())
    }

    async fn add(&self, screen: &Screen, vip: SocketAddr) -> Result<()> {
        screen.chapter("A backend is added");
        let spare = self.cloud.backends.last().context("there is no spare backend")?;
        let (name, address) = (spare.name(), spare.ipv4()?);
        let line = format!(
            "fiberlb backend create --pool web/servers --name {name} --address {address} --port {BACKEND_PORT} --wait"
        );
        self.tenant.types(screen, &line).await?;
        self.measure(screen, vip, &[("backend1", 3), ("backend2", 0), ("backend3", 1), (name, 1)])
            .await
            .map(drop)
    }

    async fn restart(&mut self, screen: &Screen, vip: SocketAddr) -> Result<()> {
        screen.chapter("The control plane is killed under traffic");
        screen.note("The chassis balance by themselves: no process of FiberLB is in the path of a request.");
        let before = self.cloud.rows().await?;
        let stream = Stream::start(&self.cloud.clients, vip)?;
        screen.during("both clients send requests without end", stream.answers(STRETCH)).await?;
        screen.typed(&format!("kill -9 {}", self.plugin.pid()));
        self.plugin.kill()?;
        let without = screen.alive(stream.answers(STRETCH)).await?;
        screen.check(
            without >= STRETCH,
            "traffic goes on without any control plane",
            &format!("{without} requests answered"),
        );
        let started = Instant::now();
        screen
            .during("starting fiberlb-plugin again, on the store that it left", self.plugin.start_again())
            .await?;
        let serving = started.elapsed();
        screen.during("it compares its store with OVN", in_step(&self.plugin)).await?;
        let observed = format!("serving after {serving:.0?}, in step after {:.0?}", started.elapsed());
        screen.check(started.elapsed() < Duration::from_secs(5), "it is back soon", &observed);
        screen.alive(stream.answers(STRETCH)).await?;
        let (all_answered, summary) = stream.stop().await;
        screen.check(all_answered, "no request was lost", &summary);
        self.check_nothing_written(screen, &before).await?;
        let tree = self.tenant.types(screen, "fiberlb tree web").await?;
        let is_whole = tree.contains("ACTIVE") && !tree.contains("PENDING") && !tree.contains("ERROR");
        screen.check(is_whole, "the load balancer is all there, and in force", "statuses of the tree above");
        Ok(())
    }

    async fn check_nothing_written(&self, screen: &Screen, before: &BTreeSet<String>) -> Result<()> {
        let transactions = self.plugin.northbound_transactions().await?;
        let observed = format!("{transactions} transactions since it started");
        screen.check(transactions == 0.0, "it wrote nothing to OVN", &observed);
        let after = self.cloud.rows().await?;
        let observed = format!("{} rows compared", after.len());
        screen.check(after == *before, "OVN's database holds the same as before", &observed);
        Ok(())
    }

    /// The last chapter: the load balancer goes, and OVN is as it was.
    ///
    /// # Errors
    /// It cannot go on.
    pub(crate) async fn clean_up(&self, screen: &Screen) -> Result<()> {
        screen.chapter("Everything is taken away");
        self.tenant.types(screen, "fiberlb loadbalancer delete web --cascade --wait").await?;
        self.clean_up_shop(screen).await?;
        let rows = self.cloud.rows().await?;
        let left = rows.difference(&self.untouched).count();
        let missing = self.untouched.difference(&rows).count();
        let observed = format!("{left} rows more or changed, {missing} fewer");
        screen.check(left + missing == 0, "OVN's database is as it was in the beginning", &observed);
        screen.line("stopping the nodes, the plugin and the lab");
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

    /// What the plugin logged last.
    pub(crate) fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("plugin.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Says what can be done with all that still runs.
    ///
    /// # Errors
    /// None but those of the system.
    pub(crate) fn playground(&self, screen: &Screen) -> Result<()> {
        screen.chapter("Yours to play with, until Ctrl-C");
        let folder = self.tenant.binary().parent().context("the client has no folder")?;
        let lab = self.cloud.name();
        screen.note("Type these in another terminal:");
        let try_it = |what: &str, command: &str| screen.quote(&format!("# {what}"), command);
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
        screen.note(&format!("The plugin's log: {}", self.folder.path().join("plugin.log").display()));
        Ok(())
    }

    /// Waits until both chassis do what OVN's database says, sends requests, and checks the shares.
    pub(crate) async fn measure(
        &self,
        screen: &Screen,
        vip: SocketAddr,
        weights: &[(&str, u32)],
    ) -> Result<Measurement> {
        let written = Instant::now();
        screen.during("waiting until both chassis have it", self.cloud.in_force()).await?;
        let what =
            format!("they have it after {:.0?}; both clients send requests to {vip}", written.elapsed());
        let measured = screen.during(&what, Measurement::take(&self.cloud.clients, vip)).await?;
        let weights: BTreeMap<&str, u32> = weights.iter().copied().collect();
        let shown: Vec<Vm> =
            self.cloud.backends.iter().filter(|vm| weights.contains_key(vm.name())).cloned().collect();
        screen.quote("", &measured.chart(&shown));
        let claim = format!("all {} requests are answered", measured.total());
        screen.check(measured.all_answered(), &claim, &measured.summary());
        let wanted: Vec<String> = weights.values().map(u32::to_string).collect();
        let claim = format!("the shares follow the weights {}", wanted.join(" : "));
        screen.check(measured.follows(&weights), &claim, &measured.parts(&weights));
        Ok(measured)
    }

    /// Shows what OVN's database has of load balancers.
    pub(crate) async fn show_rows(&self, screen: &Screen) -> Result<()> {
        screen.typed("ovn-nbctl --columns=protocol,vips list Load_Balancer");
        screen.quote("", &self.cloud.load_balancer_rows().await?);
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

fn describe(screen: &Screen, cloud: &Cloud) {
    let on = |vms: &[Vm], chassis: &str| {
        let names = vms.iter().filter(|vm| vm.chassis() == chassis).map(|vm| vm.name().to_owned());
        names.collect::<Vec<_>>().join(", ")
    };
    for chassis in ["ch1", "ch2"] {
        let machines = format!("{}; {}", on(&cloud.clients, chassis), on(&cloud.backends, chassis));
        screen.note(&format!("{chassis}: {machines}"));
    }
}
