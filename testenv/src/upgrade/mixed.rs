//! Node agents of one release with a plugin of the other.

use anyhow::{Result, ensure};
use fiberlb_proto::v1;

use crate::upgrade::builds::{Build, Builds};
use crate::upgrade::checks;
use crate::upgrade::report::Report;
use crate::upgrade::site::Cast;
use crate::upgrade::stage::{Stage, serves};

/// Proves that agents of the other release than the plugin's do all that they are there for, and that one is exchanged
/// without a failure once it is drained.
///
/// # Errors
/// A claim does not hold.
pub async fn run(report: &mut Report, builds: &Builds, plugin: Build) -> Result<()> {
    let agents = plugin.other();
    let cast = Cast { plugins: plugin, agents: [agents; 2], replicated: false };
    let opened = Stage::open(&format!("upgrade-{agents}-agents"), builds, cast).await;
    let mut stage = report.opened(
        &format!("{agents} agents, {plugin} plugin: load balancers of all kinds are served"),
        opened,
    )?;
    let proven = Box::pin(claims(&mut stage, report, plugin)).await;
    stage.close(proven.is_err())?;
    proven
}

async fn claims(stage: &mut Stage, report: &mut Report, plugin: Build) -> Result<()> {
    let agents = plugin.other();
    checks::all(stage, report, &format!("{agents} agents, {plugin} plugin")).await?;
    stage.traffic.end_proxied_talks();
    let claim = format!("{agents} agents, {plugin} plugin: a node is drained, and no request fails");
    stage.proves(report, &claim, async |stage| drain(stage, agents).await).await?;
    let claim = format!(
        "{agents} agents, {plugin} plugin: the drained node gets the {plugin} agent, and serves again"
    );
    stage.proves(report, &claim, async |stage| exchange(stage, plugin).await).await?;
    let claim =
        format!("{agents} agents, {plugin} plugin: `ovn verify` of both releases finds no difference");
    stage.proves(report, &claim, async |stage| stage.verified().await.map(|()| String::new())).await
}

async fn drain(stage: &mut Stage, command: Build) -> Result<String> {
    let began = std::time::Instant::now();
    stage.site.command(command, 0, "node drain node0 --wait=80s").await?;
    let nodes = stage.site.nodes(0).await?;
    let drained = nodes.iter().any(|node| node.id == "node0" && node.draining && node.networks == 0);
    ensure!(drained, "the command ended, and node0 is not drained: {nodes:?}");
    Ok(format!("in {:.1?}", began.elapsed()))
}

async fn exchange(stage: &mut Stage, build: Build) -> Result<String> {
    stage.site.change_agent(0, build).await?;
    stage.site.settled().await?;
    stage.site.command(build, 0, "node uncordon node0").await?;
    serves(&stage.site, 0, &stage.shop).await?;
    let tree = crate::upgrade::stage::status_tree(&stage.site, 0, &stage.shop).await?;
    let proxied = tree.listeners.iter().find(|it| it.datapath_in_force() == v1::Datapath::Proxy);
    let served = proxied.is_some_and(|it| it.proxy_node_ids.contains(&"node0".to_owned()));
    ensure!(served, "node0 does not serve: {proxied:?}");
    stage.site.lab.wait_for_sync().await?;
    stage.traffic.reaches(&["b1", "b2"]).await?;
    Ok(String::new())
}
