//! Node agents of one release with a plugin of the other.

use anyhow::{Result, ensure};
use fiberlb_proto::v1;

use crate::builds::{Build, Builds};
use crate::checks;
use crate::claims::{UpgradeTest, serves};
use crate::report::Report;
use crate::site::Releases;

/// Proves that agents of the other release than the plugin's do all that they are there for, and that one is exchanged
/// without a failure once it is drained.
///
/// # Errors
/// A claim does not hold.
pub(crate) async fn run(report: &mut Report, builds: &Builds, plugin: Build) -> Result<()> {
    let agents = plugin.other();
    let releases = Releases { plugins: plugin, agents: [agents; 2], replicated: false };
    let opened = UpgradeTest::open(&format!("upgrade-{agents}-agents"), builds, releases).await;
    let mut test = report.opened(
        &format!("{agents} agents, {plugin} plugin: load balancers of all kinds are served"),
        opened,
    )?;
    let proven = Box::pin(claims(&mut test, report, plugin)).await;
    test.close(proven.is_err())?;
    proven
}

async fn claims(test: &mut UpgradeTest, report: &mut Report, plugin: Build) -> Result<()> {
    let agents = plugin.other();
    checks::all(test, report, &format!("{agents} agents, {plugin} plugin")).await?;
    test.traffic.end_proxied_sessions();
    let claim = format!("{agents} agents, {plugin} plugin: a node is drained, and no request fails");
    test.proves(report, &claim, async |test| drain(test, agents).await).await?;
    let claim = format!(
        "{agents} agents, {plugin} plugin: the drained node gets the {plugin} agent, and serves again"
    );
    test.proves(report, &claim, async |test| exchange(test, plugin).await).await?;
    let claim =
        format!("{agents} agents, {plugin} plugin: `ovn verify` of both releases finds no difference");
    test.proves(report, &claim, async |test| test.verified().await.map(|()| String::new())).await
}

async fn drain(test: &mut UpgradeTest, command: Build) -> Result<String> {
    let began = std::time::Instant::now();
    test.site.command(command, 0, "node drain node0 --wait=80s").await?;
    let nodes = test.site.nodes(0).await?;
    let drained = nodes.iter().any(|node| node.id == "node0" && node.draining && node.networks == 0);
    ensure!(drained, "the command ended, and node0 is not drained: {nodes:?}");
    Ok(format!("in {:.1?}", began.elapsed()))
}

async fn exchange(test: &mut UpgradeTest, build: Build) -> Result<String> {
    test.site.change_agent(0, build).await?;
    test.site.settled().await?;
    test.site.command(build, 0, "node uncordon node0").await?;
    serves(&test.site, 0, &test.target).await?;
    let tree = crate::claims::status_tree(&test.site, 0, &test.target).await?;
    let proxied = tree.listeners.iter().find(|it| it.datapath_in_force() == v1::Datapath::Proxy);
    let served = proxied.is_some_and(|it| it.proxy_node_ids.contains(&"node0".to_owned()));
    ensure!(served, "node0 does not serve: {proxied:?}");
    test.site.lab.wait_for_sync().await?;
    test.traffic.reaches(&["b1", "b2"]).await?;
    Ok(String::new())
}
