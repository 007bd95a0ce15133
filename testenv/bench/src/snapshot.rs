//! A node agent that connects with much placed on it: the real one, on a chassis of a lab.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fiberlb_lab::Lab;
use fiberlb_lab::plugin::Plugin;
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_proto::v1;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;

use crate::report::Report;
use crate::trees::tree;

/// Networks that the listeners are on.
const NETWORKS: usize = 10;
/// Listeners, each with a pool of five backends and a health check.
const LISTENERS: u32 = 1000;

/// Measures how soon a node serves all that is placed on it, and what memory it then has.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    if let Err(why) = fiberlb_lab::requirements() {
        println!("SKIPPED agent_snapshot: {why}");
        return Ok(());
    }
    println!("{LISTENERS} listeners that proxies carry, {} backends", 5 * LISTENERS);
    let lab = Lab::start("bench-snapshot").await?;
    lab.add_chassis("ch1").await?;
    let mut networks = Vec::new();
    for number in 0..NETWORKS {
        let name = format!("net{number}");
        networks.push(lab.add_switch(&name, &[("subnet", "10.0.0.0/16")]).await?.to_string());
    }
    let dir = tempfile::tempdir()?;
    let plugin =
        Plugin::start(&Plugin::binary()?, dir.path(), &lab.nb_endpoint(), &["--log", "warn"]).await?;
    create(&plugin, &networks).await?;

    let started = Instant::now();
    let node = ProxyNode::start(&lab, "ch1", &plugin.agents_endpoint()).await?;
    until_served(&plugin).await?;
    report.below("agent_snapshot", started.elapsed().as_secs_f64(), "s", 3.0);
    let bytes = u32::try_from(node.memory()? / 1024).map(f64::from)?;
    report.below("agent_memory", bytes / 1024.0, "MiB", 100.0);
    Ok(())
}

async fn create(plugin: &Plugin, networks: &[String]) -> anyhow::Result<()> {
    let mut client = LoadBalancerServiceClient::new(plugin.channel()?);
    for number in 0..LISTENERS {
        let mut tree = tree(number, networks)?;
        tree.listeners.first_mut().context("no listener")?.datapath = v1::Datapath::Proxy.into();
        tree.pools.first_mut().context("no pool")?.health_check =
            Some(v1::HealthCheck { r#type: v1::HealthCheckType::Tcp.into(), ..Default::default() });
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        client.apply_load_balancer(request).await?;
    }
    Ok(())
}

/// Waits until a node has said of every listener that it serves it.
async fn until_served(plugin: &Plugin) -> anyhow::Result<()> {
    let mut client = ListenerServiceClient::new(plugin.channel()?);
    let started = Instant::now();
    loop {
        let active = v1::ListListenersRequest {
            provisioning_status: v1::ProvisioningStatus::Active.into(),
            page_size: LISTENERS,
            ..Default::default()
        };
        let served = client.list_listeners(active).await?.into_inner().listeners.len();
        if served == usize::try_from(LISTENERS)? {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "{served} listeners are served after 60 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
