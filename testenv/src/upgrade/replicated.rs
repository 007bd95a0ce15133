//! Three plugins on one cluster of etcd, upgraded one after the other and taken back, with node agents of both releases.

use anyhow::{Result, ensure};

use crate::upgrade::builds::{Build, Builds};
use crate::upgrade::checks;
use crate::upgrade::report::Report;
use crate::upgrade::site::Cast;
use crate::upgrade::stage::Stage;

/// Proves it.
///
/// # Errors
/// A claim does not hold.
pub async fn run(report: &mut Report, builds: &Builds) -> Result<()> {
    let cast = Cast { plugins: Build::Old, agents: Build::BOTH, replicated: true };
    let opened = Stage::open("upgrade-replicated", builds, cast).await;
    let mut stage = report.opened("three old plugins on etcd, and agents of both releases serve", opened)?;
    let proven = Box::pin(claims(&mut stage, report)).await;
    stage.close(proven.is_err())?;
    proven
}

async fn claims(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let old_leader = stage.site.leader().await?;
    let new = (old_leader + 1) % 3;
    let claim = "a follower is upgraded: all is shown as before on each, and nothing is written to OVN";
    stage.proves(report, claim, async |stage| change_follower(stage, new, Build::New).await).await?;
    checks::all(stage, report, "old leader, a new follower").await?;

    let claim = "the new one takes over when the old leader is killed, and old followers return";
    stage.proves(report, claim, async |stage| take_over(stage, new).await).await?;
    checks::all(stage, report, "new leader, old followers").await?;

    let claim = "an old one takes over when the new leader is killed";
    stage.proves(report, claim, async |stage| give_back(stage, new).await).await?;

    let claim = "all are upgraded, the leader last";
    stage.proves(report, claim, async |stage| change_all(stage, Build::New).await).await?;
    checks::all(stage, report, "all plugins new").await?;

    let claim = "going back: all are taken back to the old release, the leader last";
    stage.proves(report, claim, async |stage| change_all(stage, Build::Old).await).await?;
    checks::all(stage, report, "all plugins old again").await
}

/// Exchanges a plugin that does not lead; the leader stays.
async fn change_follower(stage: &mut Stage, plugin: usize, build: Build) -> Result<String> {
    let (leader, before) = (stage.site.leader().await?, stage.snapshot(plugin).await?);
    ensure!(leader != plugin, "plugin{plugin} leads");
    stage.site.change_plugin(plugin, build).await?;
    let same = stage.is_unchanged(&before, &[plugin]).await?;
    ensure!(stage.site.leader().await? == leader, "the leader changed");
    Ok(same)
}

/// Stops all plugins but one, the leader by a kill, until that one leads; then starts the others as they were.
async fn take_over(stage: &mut Stage, successor: usize) -> Result<String> {
    let (leader, before) = (stage.site.leader().await?, stage.snapshot(successor).await?);
    let others: Vec<usize> = (0..stage.site.count()).filter(|plugin| *plugin != successor).collect();
    for plugin in others.iter().filter(|plugin| **plugin != leader) {
        stage.site.stop_plugin(*plugin, true)?;
    }
    stage.site.stop_plugin(leader, false)?;
    leads_alone(stage, successor).await?;
    for plugin in &others {
        stage.site.start_plugin(*plugin, Build::Old).await?;
    }
    let same = stage.is_unchanged(&before, &others).await?;
    ensure!(stage.site.leader().await? == successor, "the leader changed");
    Ok(same)
}

/// Waits until a plugin leads while the others are down.
async fn leads_alone(stage: &Stage, plugin: usize) -> Result<()> {
    stage
        .site
        .until("the successor to lead", async || {
            let leader = stage.site.leader().await?;
            ensure!(leader == plugin, "plugin{leader} leads");
            Ok(())
        })
        .await
}

/// Kills the new leader; an old follower leads, and the new one returns as a follower.
async fn give_back(stage: &mut Stage, new: usize) -> Result<String> {
    let before = stage.snapshot(new).await?;
    stage.site.stop_plugin(new, false)?;
    let leader = stage.site.leader().await?;
    stage.site.start_plugin(new, Build::New).await?;
    let same = stage.is_unchanged(&before, &[new]).await?;
    ensure!(leader != new && stage.site.leader().await? == leader, "no old one leads");
    Ok(same)
}

/// Exchanges all plugins, those that do not lead first.
async fn change_all(stage: &mut Stage, build: Build) -> Result<String> {
    let leader = stage.site.leader().await?;
    let mut same = String::new();
    for plugin in [leader + 1, leader + 2, leader].map(|plugin| plugin % 3) {
        let before = stage.snapshot(plugin).await?;
        stage.site.change_plugin(plugin, build).await?;
        same = stage.is_unchanged(&before, &[plugin]).await?;
    }
    Ok(same)
}
