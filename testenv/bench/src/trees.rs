//! Whole trees, created by tenants: rates, restart, memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fiberlb_lab::plugin::Plugin;
use fiberlb_northbound::Northbound;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use ovsdb::client::Client;
use tonic::transport::Channel;

use crate::database::{Database, until, until_rows};
use crate::report::{self, Report};

/// Rounds of each figure; the median counts.
pub(crate) const ROUNDS: usize = 3;

/// The plugin under measurement with what surrounds it.
pub(crate) struct Bench {
    pub(crate) database: Database,
    pub(crate) plugin: Plugin,
    pub(crate) northbound: Client<Northbound>,
    next: Arc<AtomicU32>,
    pub(crate) networks: Arc<Vec<String>>,
}

impl Bench {
    pub(crate) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::start(dir).await?;
        let networks = Arc::new(database.make_networks()?);
        let plugin = Plugin::start(&Plugin::binary()?, dir, &database.endpoint(), &["--log", "warn"]).await?;
        until("the plugin to reach the database", || async {
            Ok(plugin.metric("fiberlb_northbound_connected").await? > 0.0)
        })
        .await?;
        let northbound = database.observe()?;
        Ok(Self { database, plugin, northbound, next: Arc::default(), networks })
    }

    pub(crate) fn made(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    /// The median rate of some rounds.
    pub(crate) async fn rounds(&self, clients: u32, trees: u32) -> anyhow::Result<f64> {
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(self.trees(clients, trees).await?);
        }
        report::median(rates)
    }

    /// Creates trees with so many clients, each of which waits for each answer. Trees per second, from the first call until
    /// all of them are in the northbound database.
    pub(crate) async fn trees(&self, clients: u32, trees: u32) -> anyhow::Result<f64> {
        let last = self.made() + trees;
        let (started, cpu) = (Instant::now(), self.plugin.cpu()?);
        let mut tasks = Vec::new();
        for _ in 0..clients {
            let client = LoadBalancerServiceClient::new(self.plugin.channel()?);
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
        let cpu_us = (self.plugin.cpu()? - cpu).as_micros() / u128::from(trees);
        println!(
            "  {trees} trees with {clients} clients, {last} present: {rate:.0} 1/s, {cpu_us} us of the plugin's CPU each"
        );
        Ok(rate)
    }

    /// Restarts the plugin: how soon it serves, how soon it knows that everything is in force, and what it wrote.
    pub(crate) async fn restart(&mut self, report: &mut Report) -> anyhow::Result<()> {
        self.plugin.kill()?;
        let started = Instant::now();
        self.plugin.start_again().await?;
        report.below("restart_serving", started.elapsed().as_secs_f64(), "s", 3.0);
        let mut client = LoadBalancerServiceClient::new(self.plugin.channel()?);
        loop {
            ensure!(started.elapsed() < Duration::from_secs(60), "the plugin is not in step after 60 s");
            let pending = v1::ProvisioningStatus::PendingCreate.into();
            let request = v1::ListLoadBalancersRequest {
                provisioning_status: pending,
                page_size: 1,
                ..Default::default()
            };
            let page = client.list_load_balancers(request).await?.into_inner();
            if page.load_balancers.is_empty() && page.next_page_token.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        report.below("restart_in_step", started.elapsed().as_secs_f64(), "s", 5.0);
        report.below("restart_writes", self.plugin.northbound_transactions().await?, "transactions", 1.0);
        report.below("plugin_memory", self.plugin.memory_mib()?, "MiB", 250.0);
        Ok(())
    }
}

pub(crate) async fn create(
    mut client: LoadBalancerServiceClient<Channel>,
    next: Arc<AtomicU32>,
    last: u32,
    networks: Arc<Vec<String>>,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= last {
            return Ok(());
        }
        let tree = Some(tree(number, &networks)?);
        client.apply_load_balancer(v1::ApplyLoadBalancerRequest { tree, ..Default::default() }).await?;
    }
}

/// One listener, one pool, five backends; the VIP is chosen by FiberLB.
pub(crate) fn tree(number: u32, networks: &[String]) -> anyhow::Result<v1::LoadBalancerTree> {
    let network = usize::try_from(number)? % networks.len();
    let network = networks.get(network).context("no network")?;
    let backend = |index: u32| v1::Backend {
        address: format!("10.0.0.{}", 10 + index),
        port: 8080,
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "web".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let listener = v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 80,
        default_pool_id: "web".to_owned(),
        ..Default::default()
    };
    Ok(v1::LoadBalancerTree {
        load_balancer: Some(v1::LoadBalancer {
            name: format!("lb-{number}"),
            network: network.clone(),
            ..Default::default()
        }),
        listeners: vec![listener],
        pools: vec![v1::PoolTree {
            pool: Some(pool),
            backends: (0..5).map(backend).collect(),
            health_check: None,
        }],
        ..Default::default()
    })
}
