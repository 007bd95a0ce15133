//! Figures of the replicated store: three plugins on a real etcd of three members, all on this machine's loopback, where
//! nothing but the programs themselves takes time. A lab's namespaces and bridges would be measured with them.

mod etcd;
mod failover;
mod reads;
mod site;
mod startup;
mod watch_lag;

use crate::SCALE;
use crate::largest::{self, Bounds};
use crate::report::Report;
use site::Site;

/// Trees in each timed round with one client.
const ROUND_OF_ONE: u32 = 300;
/// Trees in each timed round with more.
const ROUND: u32 = 1000;

/// Measures all of them.
pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    println!("three plugins on an etcd of three members");
    let mut site = Site::start(dir.path()).await?;
    let one = site.rounds(1, ROUND_OF_ONE).await?;
    report.shown("chainfire_trees_per_second_1", one, "1/s");
    let sixteen = site.rounds(16, ROUND).await?;
    report.at_least("chainfire_trees_per_second_16", sixteen, "1/s", 300.0);
    let many = site.rounds(64, ROUND).await?;
    report.shown("chainfire_trees_per_second_64", many, "1/s");

    println!("filling up to {SCALE} load balancers");
    site.trees(16, SCALE.saturating_sub(site.made())).await?;
    reads::measure(&site, report).await?;
    let leader = site.plugin(site.leader().await?)?.channel()?;
    let bounds = Bounds { new: 5.0, again: 2.5, read: 0.1, write: 5.0 };
    largest::measure(&leader, site.network()?, report, "chainfire_", bounds).await?;
    watch_lag::measure(&site, report).await?;
    startup::measure(&mut site, report).await?;
    failover::measure(&mut site, report).await
}
