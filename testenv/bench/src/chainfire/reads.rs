//! Latency of reads, with all load balancers present.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::transport::Channel;

use super::site::Site;
use crate::report::{Report, Samples};

/// Reads of which the percentile is taken.
const READS: usize = 6000;
/// Trees that are created during those beside, and by how many clients.
const TREES: u32 = 500;
const WRITERS: usize = 4;
/// Load balancers on a page.
const PAGE: u32 = 20;

/// One read after the other: a load balancer, a tree with its statuses, a page of a list, from each plugin in turn.
pub(super) async fn measure(site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let mut reader = Reader { clients: site.clients()?, ids: site.ids().await?, number: 0 };
    let mut quiet = Samples::default();
    for _ in 0..READS {
        quiet.push(reader.read().await?);
    }
    println!("chainfire_read_p50: {:.2} ms", quiet.percentile(50)?);
    report.below("chainfire_read_p99", quiet.percentile(99)?, "ms", 5.0);

    println!("the same while {WRITERS} clients create trees, beside:");
    let mut busy = Samples::default();
    let writing = site.trees(WRITERS, TREES);
    tokio::pin!(writing);
    loop {
        tokio::select! {
            ended = &mut writing => {
                ended?;
                break;
            }
            read = reader.read() => busy.push(read?),
        }
    }
    let (count, p50, p99) = (busy.count(), busy.percentile(50)?, busy.percentile(99)?);
    println!("chainfire_read_p99 under writes: {p99:.2} ms (p50 {p50:.2} ms, {count} reads)");
    Ok(())
}

struct Reader {
    clients: Vec<LoadBalancerServiceClient<Channel>>,
    ids: Vec<String>,
    number: usize,
}

impl Reader {
    /// The time of the next read.
    async fn read(&mut self) -> anyhow::Result<Duration> {
        self.number += 1;
        let (plugin, kind) = (self.number % self.clients.len(), self.number / self.clients.len() % 3);
        let client = self.clients.get_mut(plugin).context("no plugin")?;
        let id = self.ids.get(fastrand::usize(..self.ids.len())).context("no load balancer")?.clone();
        let started = Instant::now();
        match kind {
            0 => drop(client.get_load_balancer(v1::GetLoadBalancerRequest { id }).await?),
            1 => drop(client.get_status_tree(v1::GetStatusTreeRequest { load_balancer_id: id }).await?),
            _ => {
                let request = v1::ListLoadBalancersRequest { page_size: PAGE, ..Default::default() };
                drop(client.list_load_balancers(request).await?);
            }
        }
        Ok(started.elapsed())
    }
}
