//! The largest tree that the limits allow, 100 listeners and 20 pools of 500 backends: how long it takes to be applied new, and again
//! unchanged, and how long others wait meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::report::{self, Report};
use crate::trees;

/// Trees that are applied; the median of each figure counts.
const ROUNDS: u32 = 5;
/// Pause of those who wait between their calls.
const PAUSE: Duration = Duration::from_millis(5);

/// Bounds in seconds.
pub(crate) struct Bounds {
    /// Of a new tree.
    pub(crate) new: f64,
    /// Of one that is there already.
    pub(crate) again: f64,
    /// Of another client's read.
    pub(crate) read: f64,
    /// Of another tree's creation.
    pub(crate) write: f64,
}

/// Measures on a plugin. `prefix` begins the names of the figures.
pub(crate) async fn measure(
    channel: &Channel,
    network: &str,
    report: &mut Report,
    prefix: &str,
    bounds: Bounds,
) -> anyhow::Result<()> {
    let mut took: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let tree = tree(&format!("largest-{prefix}{round}"), network);
        for name in ["new", "again"] {
            let others = Others::start(channel, network).await?;
            let began = Instant::now();
            let request = v1::ApplyLoadBalancerRequest { tree: Some(tree.clone()), ..Default::default() };
            let applied = client(channel).apply_load_balancer(request).await?;
            took.entry(name).or_default().push(began.elapsed().as_secs_f64());
            let [read, write] = others.longest().await?;
            took.entry("read").or_default().push(read.as_secs_f64());
            took.entry("write").or_default().push(write.as_secs_f64());
            let id = applied.into_inner().tree.and_then(|tree| tree.load_balancer).context("no tree")?.id;
            if name == "again" {
                let request = v1::DeleteLoadBalancerRequest { id, cascade: true, ..Default::default() };
                client(channel).delete_load_balancer(request).await?;
            }
        }
    }
    let goals =
        [("new", bounds.new), ("again", bounds.again), ("read", bounds.read), ("write", bounds.write)];
    for (name, goal) in goals {
        let median = report::median(took.remove(name).unwrap_or_default())?;
        report.below(&format!("{prefix}largest_tree_{name}"), median, "s", goal);
    }
    Ok(())
}

/// Two clients that go on meanwhile, one that reads and one that creates and deletes.
struct Others {
    channel: Channel,
    /// The load balancer that is read.
    id: String,
    stop: Arc<AtomicBool>,
    waits: [JoinHandle<anyhow::Result<Duration>>; 2],
}

impl Others {
    async fn start(channel: &Channel, network: &str) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let networks = [network.to_owned()];
        let own = trees::tree(u32::MAX, &networks)?;
        let request = v1::ApplyLoadBalancerRequest { tree: Some(own), ..Default::default() };
        let made = client(channel).apply_load_balancer(request).await?.into_inner();
        let id = made.tree.and_then(|tree| tree.load_balancer).context("no tree")?.id;
        let (reader, writer) = (client(channel), client(channel));
        let seen = id.clone();
        let read = tokio::spawn(longest(Arc::clone(&stop), move || {
            let (mut client, id) = (reader.clone(), seen.clone());
            async move { Ok(client.get_load_balancer(v1::GetLoadBalancerRequest { id }).await.map(drop)?) }
        }));
        let write = tokio::spawn(longest(Arc::clone(&stop), move || {
            let (mut client, networks) = (writer.clone(), networks.clone());
            async move {
                let tree = Some(trees::tree(u32::MAX - 1, &networks)?);
                let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
                let made = client.apply_load_balancer(request).await?.into_inner();
                let id = made.tree.and_then(|tree| tree.load_balancer).context("no tree")?.id;
                let request = v1::DeleteLoadBalancerRequest { id, cascade: true, ..Default::default() };
                Ok(client.delete_load_balancer(request).await.map(drop)?)
            }
        }));
        Ok(Self { channel: channel.clone(), id, stop, waits: [read, write] })
    }

    async fn longest(self) -> anyhow::Result<[Duration; 2]> {
        self.stop.store(true, Ordering::Relaxed);
        let [read, write] = self.waits;
        let longest = [read.await??, write.await??];
        // Its row would be taken for one of the trees that others count.
        let request = v1::DeleteLoadBalancerRequest { id: self.id, cascade: true, ..Default::default() };
        client(&self.channel).delete_load_balancer(request).await?;
        Ok(longest)
    }
}

/// Makes calls one after the other until it is stopped; the longest time that one took.
async fn longest<F: Future<Output = anyhow::Result<()>>>(
    stop: Arc<AtomicBool>,
    call: impl Fn() -> F,
) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        call().await?;
        longest = longest.max(began.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    Ok(longest)
}

fn client(channel: &Channel) -> LoadBalancerServiceClient<Channel> {
    LoadBalancerServiceClient::new(channel.clone())
}

fn tree(name: &str, network: &str) -> v1::LoadBalancerTree {
    let protocol = v1::PoolProtocol::Tcp.into();
    let backend = |pool: u32, index: u32| v1::Backend {
        address: format!("10.{}.{}.{}", 100 + pool, 1 + index / 250, 1 + index % 250),
        port: 8080,
        ..Default::default()
    };
    let pool = |index: u32| v1::PoolTree {
        pool: Some(v1::Pool { name: format!("p{index}"), protocol, ..Default::default() }),
        backends: (0..500).map(|number| backend(index, number)).collect(),
        health_check: None,
    };
    let listener = |index: u32| v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 1 + index,
        default_pool_id: format!("p{}", index % 20),
        ..Default::default()
    };
    let (name, network) = (name.to_owned(), network.to_owned());
    v1::LoadBalancerTree {
        load_balancer: Some(v1::LoadBalancer { name, network, ..Default::default() }),
        listeners: (0..100).map(listener).collect(),
        pools: (0..20).map(pool).collect(),
        ..Default::default()
    }
}
