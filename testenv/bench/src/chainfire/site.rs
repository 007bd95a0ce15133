//! Installation under measurement: a northbound database, an etcd, three plugins on both, and clients that create trees.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fiberlb_lab::plugin::Plugin;
use fiberlb_northbound::Northbound;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use ovsdb::client::Client;
use tonic::transport::Channel;

use super::etcd::Etcd;
use crate::database::{Database, until, until_rows};
use crate::report;
use crate::trees::{ROUNDS, create, tree};

/// Plugins on the store.
const PLUGINS: usize = 3;
/// Load balancers on a page when all are listed.
const PAGE: u32 = 500;

/// All of it.
pub(super) struct Site {
    pub(super) etcd: Etcd,
    database: Database,
    pub(super) northbound: Client<Northbound>,
    pub(super) plugins: Vec<Plugin>,
    next: Arc<AtomicU32>,
    networks: Arc<Vec<String>>,
}

/// Resources used up to a moment.
struct Used {
    plugins: Duration,
    etcd: Duration,
    revisions: f64,
}

impl Site {
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::start(dir).await?;
        let networks = Arc::new(database.make_networks()?);
        let etcd = Etcd::start(dir).await?;
        let (northbound, binary) = (database.observe()?, Plugin::binary()?);
        let mut site =
            Self { etcd, database, northbound, plugins: Vec::new(), next: Arc::default(), networks };
        for index in 0..PLUGINS {
            let dir = dir.join(format!("plugin{index}"));
            std::fs::create_dir_all(&dir)?;
            let store = site.etcd.store();
            let options = ["--store", &store, "--agents-listen", "off", "--log", "warn"];
            let plugin = Plugin::start(&binary, &dir, &site.database.endpoint(), &options).await?;
            site.plugins.push(plugin);
        }
        for plugin in &site.plugins {
            until_connected(plugin).await?;
        }
        site.leader().await?;
        Ok(site)
    }

    /// Load balancers that were made.
    pub(super) fn made(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    pub(super) fn plugin(&self, index: usize) -> anyhow::Result<&Plugin> {
        self.plugins.get(index % PLUGINS).context("there is no plugin")
    }

    pub(super) fn plugin_mut(&mut self, index: usize) -> anyhow::Result<&mut Plugin> {
        self.plugins.get_mut(index % PLUGINS).context("there is no plugin")
    }

    /// A client of each plugin.
    pub(super) fn clients(&self) -> anyhow::Result<Vec<LoadBalancerServiceClient<Channel>>> {
        self.plugins.iter().map(|plugin| Ok(LoadBalancerServiceClient::new(plugin.channel()?))).collect()
    }

    /// A network.
    pub(super) fn network(&self) -> anyhow::Result<&str> {
        self.networks.first().map(String::as_str).context("no network")
    }

    /// The leader; waits until there is one.
    pub(super) async fn leader(&self) -> anyhow::Result<usize> {
        let found = AtomicU32::new(0);
        until("a plugin to lead", || async {
            for (index, plugin) in (0..).zip(&self.plugins) {
                if plugin.metric("fiberlb_leads").await? > 0.0 {
                    found.store(index, Ordering::Relaxed);
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await?;
        Ok(usize::try_from(found.into_inner())?)
    }

    /// The median rate of some rounds.
    pub(super) async fn rounds(&self, clients: usize, trees: u32) -> anyhow::Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(self.trees(clients, trees).await?);
        }
        report::median(rates)
    }

    /// Creates trees with so many clients, spread over the plugins, each of which waits for each answer. Trees per second,
    /// from the first call until all of them are in the northbound database.
    pub(super) async fn trees(&self, clients: usize, trees: u32) -> anyhow::Result<f64> {
        let last = self.made() + trees;
        let (started, before) = (Instant::now(), self.used()?);
        let mut tasks = Vec::new();
        for index in 0..clients {
            let client = LoadBalancerServiceClient::new(self.plugin(index)?.channel()?);
            tasks.push(tokio::spawn(create(
                client,
                Arc::clone(&self.next),
                last,
                Arc::clone(&self.networks),
            )));
        }
        for task in tasks {
            task.await??;
        }
        self.next.store(last, Ordering::Relaxed);
        until_rows(&self.northbound, last).await?;
        let rate = f64::from(trees) / started.elapsed().as_secs_f64();
        let used = self.used()?;
        let each = |before: Duration, after: Duration| (after - before).as_micros() / u128::from(trees);
        println!(
            "  {trees} trees with {clients} clients, {last} present: {rate:.0} 1/s, {} us of the plugins' CPU and {} us of \
             etcd's each, {:.2} revisions each",
            each(before.plugins, used.plugins),
            each(before.etcd, used.etcd),
            (used.revisions - before.revisions) / f64::from(trees)
        );
        Ok(rate)
    }

    fn used(&self) -> anyhow::Result<Used> {
        let plugins = self.plugins.iter().map(Plugin::cpu).sum::<anyhow::Result<_>>()?;
        Ok(Used { plugins, etcd: self.etcd.cpu()?, revisions: self.etcd.revision()? })
    }

    /// Another load balancer than all before.
    pub(super) fn new_tree(&self) -> anyhow::Result<v1::LoadBalancerTree> {
        tree(self.next.fetch_add(1, Ordering::Relaxed), &self.networks)
    }

    /// Ids of the load balancers.
    pub(super) async fn ids(&self) -> anyhow::Result<Vec<String>> {
        let mut client = LoadBalancerServiceClient::new(self.plugin(0)?.channel()?);
        let (mut ids, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListLoadBalancersRequest { page_size: PAGE, page_token, ..Default::default() };
            let page = client.list_load_balancers(request).await?.into_inner();
            ids.extend(page.load_balancers.into_iter().map(|load_balancer| load_balancer.id));
            if page.next_page_token.is_empty() {
                return Ok(ids);
            }
            page_token = page.next_page_token;
        }
    }
}

/// Waits until a plugin knows the northbound database.
pub(super) async fn until_connected(plugin: &Plugin) -> anyhow::Result<()> {
    until("a plugin to reach the northbound database", || async {
        Ok(plugin.metric("fiberlb_northbound_connected").await? > 0.0)
    })
    .await
}
