//! Lag of other plugins' watches behind a write.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use fiberlb_proto::v1::watch_event::{Resource, Type};
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::Channel;

use super::site::Site;
use crate::report::{Report, Samples};

/// Writes, each of which is watched for on two other plugins.
const WRITES: usize = 500;
/// Pause between writes, so that each stands alone.
const PAUSE: Duration = Duration::from_millis(10);
/// A watch that shows nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A load balancer with this description was shown at this moment.
struct Shown {
    description: String,
    at: Instant,
}

/// From the acknowledgement of a write by one plugin until the watches of the others, which watch everything, show it. A
/// watch that was faster than the acknowledgement does not lag.
pub(super) async fn measure(site: &Site, report: &mut Report) -> anyhow::Result<()> {
    let ids = site.ids().await?;
    let mut watches = Vec::new();
    for plugin in &site.plugins {
        watches.push(watch(plugin.channel()?).await?);
    }
    let (mut lags, mut whole) = (Samples::default(), Samples::default());
    for (number, mut client) in (0..WRITES).zip(site.clients()?.into_iter().cycle()) {
        let id = ids.get(fastrand::usize(..ids.len())).context("no load balancer")?;
        let began = Instant::now();
        let description = format!("write {number}");
        write(&mut client, id, &description).await?;
        let acknowledged = Instant::now();
        let writer = number % site.plugins.len();
        let others = watches.iter_mut().enumerate().filter(|(index, _)| *index != writer);
        for (_, watch) in others {
            let at = until_shown(watch, &description).await?;
            lags.push(at.saturating_duration_since(acknowledged));
            whole.push(at - began);
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!(
        "watch_lag_p50: {:.2} ms; from the begin of the call: p50 {:.2} ms, p99 {:.2} ms",
        lags.percentile(50)?,
        whole.percentile(50)?,
        whole.percentile(99)?
    );
    report.below("watch_lag_p99", lags.percentile(99)?, "ms", 50.0);
    Ok(())
}

/// Changes a load balancer.
async fn write(
    client: &mut LoadBalancerServiceClient<Channel>,
    id: &str,
    description: &str,
) -> anyhow::Result<()> {
    let load_balancer =
        v1::LoadBalancer { id: id.to_owned(), description: description.to_owned(), ..Default::default() };
    let request = v1::UpdateLoadBalancerRequest {
        load_balancer: Some(load_balancer),
        update_mask: Some(prost_types::FieldMask { paths: vec!["description".to_owned()] }),
        ..Default::default()
    };
    client.update_load_balancer(request).await?;
    Ok(())
}

/// Opens a watch of everything; answers when it has told what there is.
async fn watch(channel: Channel) -> anyhow::Result<mpsc::UnboundedReceiver<Shown>> {
    let mut client = WatchServiceClient::new(channel);
    let mut events = client.watch(v1::WatchRequest::default()).await?.into_inner();
    loop {
        let event = events.message().await?.context("the watch ended")?;
        if event.r#type() == Type::Synced {
            break;
        }
    }
    let (sender, shown) = mpsc::unbounded_channel();
    tokio::spawn(note(events, sender));
    Ok(shown)
}

async fn note(mut events: Streaming<v1::WatchEvent>, sender: mpsc::UnboundedSender<Shown>) {
    while let Ok(Some(event)) = events.message().await {
        let at = Instant::now();
        let Some(Resource::LoadBalancer(load_balancer)) = event.resource else { continue };
        if sender.send(Shown { description: load_balancer.description, at }).is_err() {
            return;
        }
    }
}

async fn until_shown(
    watch: &mut mpsc::UnboundedReceiver<Shown>,
    description: &str,
) -> anyhow::Result<Instant> {
    loop {
        let Ok(shown) = tokio::time::timeout(PATIENCE, watch.recv()).await else {
            bail!("a watch did not show a write within {PATIENCE:?}");
        };
        let shown = shown.context("a watch ended")?;
        if shown.description == description {
            return Ok(shown.at);
        }
    }
}
