//! Time from a plugin's start to its first answer.

use std::time::Instant;

use fiberlb_lab::plugin::Plugin;

use super::site::{Site, until_connected};
use crate::database::until;
use crate::report::Report;

/// One that starts beside others, after it was killed; and one that starts alone, and so leads.
pub(super) async fn measure(site: &mut Site, report: &mut Report) -> anyhow::Result<()> {
    let leader = site.leader().await?;
    let follower = site.plugin_mut(leader + 1)?;
    follower.kill()?;
    let started = Instant::now();
    follower.start_again().await?;
    report.below("chainfire_start", started.elapsed().as_secs_f64(), "s", 5.0);
    until_connected(follower).await?;
    println!("memory of a plugin that follows: {:.0} MiB", follower.memory_mib()?);
    alone(site, leader, report).await
}

/// Stops all of them in order, the leader last, so that its place is free at once.
async fn alone(site: &mut Site, leader: usize, report: &mut Report) -> anyhow::Result<()> {
    for index in [leader + 1, leader + 2, leader] {
        site.plugin_mut(index)?.terminate()?;
    }
    let before = site.etcd.revision()?;
    let plugin = site.plugin_mut(leader)?;
    let started = Instant::now();
    plugin.start_again().await?;
    println!("a plugin that starts alone answers reads after {:.2} s", started.elapsed().as_secs_f64());
    until_in_step(plugin).await?;
    report.below("chainfire_start_in_step", started.elapsed().as_secs_f64(), "s", 5.0);
    let written = plugin.northbound_transactions().await?;
    report.below("chainfire_start_writes", written, "transactions", 1.0);
    println!("memory of a leader: {:.0} MiB", plugin.memory_mib()?);
    println!("revisions of the store that this made: {:.0}", site.etcd.revision()? - before);
    for index in [leader + 1, leader + 2] {
        let plugin = site.plugin_mut(index)?;
        plugin.start_again().await?;
        until_connected(plugin).await?;
    }
    Ok(())
}

/// Waits until a plugin leads and has compared everything with the northbound database.
async fn until_in_step(plugin: &Plugin) -> anyhow::Result<()> {
    let compared = "fiberlb_northbound_transactions_total{outcome=\"in_step\"}";
    until("the plugin to be in step", || async {
        let leads = plugin.metric("fiberlb_leads").await? > 0.0;
        Ok(leads
            && plugin.metric(compared).await? > 0.0
            && plugin.metric("fiberlb_reconcile_queue").await? == 0.0)
    })
    .await
}
