//! Time from the leader's death to the first write of its successor.

use std::time::Instant;

use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;

use super::site::{Site, until_connected};
use crate::database::{until, until_rows};
use crate::report::Report;

/// Leaders that are killed; the slowest take-over counts.
const ROUNDS: usize = 5;

/// From kill -9 of the leader until a tree that a client then creates on another one is in the northbound
/// database.
pub(super) async fn measure(site: &mut Site, report: &mut Report) -> anyhow::Result<()> {
    let mut worst = 0.0_f64;
    for _ in 0..ROUNDS {
        let leader = site.leader().await?;
        let took = kill(site, leader).await?;
        println!("  a take-over in {took:.2} s");
        worst = worst.max(took);
        let killed = site.plugin_mut(leader)?;
        killed.start_again().await?;
        until_connected(killed).await?;
    }
    report.below("take_over", worst, "s", 5.0);
    Ok(())
}

async fn kill(site: &mut Site, leader: usize) -> anyhow::Result<f64> {
    let mut client = LoadBalancerServiceClient::new(site.plugin(leader + 1)?.channel()?);
    client.list_load_balancers(v1::ListLoadBalancersRequest { page_size: 1, ..Default::default() }).await?;
    let survivors = [leader + 1, leader + 2];
    let mut before = 0.0;
    for survivor in survivors {
        before += site.plugin(survivor)?.northbound_transactions().await?;
    }
    let started = Instant::now();
    site.plugin_mut(leader)?.kill()?;
    let request = v1::ApplyLoadBalancerRequest { tree: Some(site.new_tree()?), ..Default::default() };
    client.apply_load_balancer(request).await?;
    let acknowledged = started.elapsed().as_secs_f64();
    until_rows(&site.northbound, site.made()).await?;
    let took = started.elapsed().as_secs_f64();
    println!("  acknowledged after {:.1} ms", acknowledged * 1e3);
    quiet(site, survivors, before).await?;
    Ok(took)
}

/// Waits until the comparison with the northbound database is over, and tells what it wrote beside the new tree.
async fn quiet(site: &Site, survivors: [usize; 2], before: f64) -> anyhow::Result<()> {
    let mut after = 0.0;
    for survivor in survivors {
        let plugin = site.plugin(survivor)?;
        until("the reconciler to be idle", || async {
            Ok(plugin.metric("fiberlb_reconcile_queue").await? == 0.0)
        })
        .await?;
        after += plugin.northbound_transactions().await?;
    }
    println!("  transactions to the northbound database in it: {:.0}", after - before);
    Ok(())
}
