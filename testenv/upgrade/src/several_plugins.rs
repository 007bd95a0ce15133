//! Three plugins on one cluster of etcd, upgraded one after the other and taken back, with node agents of both releases.

use anyhow::{Result, ensure};

use crate::builds::{Build, Builds};
use crate::checks;
use crate::claims::UpgradeTest;
use crate::report::Report;
use crate::site::Releases;

/// Proves it.
///
/// # Errors
/// A claim does not hold.
pub(crate) async fn run(report: &mut Report, builds: &Builds) -> Result<()> {
    let releases = Releases { plugins: Build::Old, agents: Build::BOTH, replicated: true };
    let opened = UpgradeTest::open("upgrade-replicated", builds, releases).await;
    let mut test = report.opened("three old plugins on etcd, and agents of both releases serve", opened)?;
    let proven = Box::pin(claims(&mut test, report)).await;
    test.close(proven.is_err())?;
    proven
}

async fn claims(test: &mut UpgradeTest, report: &mut Report) -> Result<()> {
    let old_leader = test.site.leader().await?;
    let new = (old_leader + 1) % 3;
    let claim = "a follower is upgraded: all is shown as before on each, and nothing is written to OVN";
    test.proves(report, claim, async |test| change_follower(test, new, Build::New).await).await?;
    checks::all(test, report, "old leader, a new follower").await?;

    let claim = "the new one takes over when the old leader is killed, and old followers return";
    test.proves(report, claim, async |test| take_over(test, new).await).await?;
    checks::all(test, report, "new leader, old followers").await?;

    let claim = "an old one takes over when the new leader is killed";
    test.proves(report, claim, async |test| give_back(test, new).await).await?;

    let claim = "all are upgraded, the leader last";
    test.proves(report, claim, async |test| change_all(test, Build::New).await).await?;
    checks::all(test, report, "all plugins new").await?;

    let claim = "going back: all are taken back to the old release, the leader last";
    test.proves(report, claim, async |test| change_all(test, Build::Old).await).await?;
    checks::all(test, report, "all plugins old again").await
}

/// Exchanges a plugin that does not lead; the leader stays.
async fn change_follower(test: &mut UpgradeTest, plugin: usize, build: Build) -> Result<String> {
    let (leader, before) = (test.site.leader().await?, test.snapshot(plugin).await?);
    ensure!(leader != plugin, "plugin{plugin} leads");
    test.site.change_plugin(plugin, build).await?;
    let same = test.is_unchanged(&before, &[plugin]).await?;
    ensure!(test.site.leader().await? == leader, "the leader changed");
    Ok(same)
}

/// Stops all plugins but one, the leader by a kill, until that one leads; then starts the others as they were.
async fn take_over(test: &mut UpgradeTest, successor: usize) -> Result<String> {
    let (leader, before) = (test.site.leader().await?, test.snapshot(successor).await?);
    let others: Vec<usize> = (0..test.site.count()).filter(|plugin| *plugin != successor).collect();
    for plugin in others.iter().filter(|plugin| **plugin != leader) {
        test.site.stop_plugin(*plugin, true)?;
    }
    test.site.stop_plugin(leader, false)?;
    leads_alone(test, successor).await?;
    for plugin in &others {
        test.site.start_plugin(*plugin, Build::Old).await?;
    }
    let same = test.is_unchanged(&before, &others).await?;
    ensure!(test.site.leader().await? == successor, "the leader changed");
    Ok(same)
}

/// Waits until a plugin leads while the others are down.
async fn leads_alone(test: &UpgradeTest, plugin: usize) -> Result<()> {
    test.site
        .until("the successor to lead", async || {
            let leader = test.site.leader().await?;
            ensure!(leader == plugin, "plugin{leader} leads");
            Ok(())
        })
        .await
}

/// Kills the new leader; an old follower leads, and the new one returns as a follower.
async fn give_back(test: &mut UpgradeTest, new: usize) -> Result<String> {
    let before = test.snapshot(new).await?;
    test.site.stop_plugin(new, false)?;
    let leader = test.site.leader().await?;
    test.site.start_plugin(new, Build::New).await?;
    let same = test.is_unchanged(&before, &[new]).await?;
    ensure!(leader != new && test.site.leader().await? == leader, "no old one leads");
    Ok(same)
}

/// Exchanges all plugins, those that do not lead first.
async fn change_all(test: &mut UpgradeTest, build: Build) -> Result<String> {
    let leader = test.site.leader().await?;
    let mut same = String::new();
    for plugin in [leader + 1, leader + 2, leader].map(|plugin| plugin % 3) {
        let before = test.snapshot(plugin).await?;
        test.site.change_plugin(plugin, build).await?;
        same = test.is_unchanged(&before, &[plugin]).await?;
    }
    Ok(same)
}
