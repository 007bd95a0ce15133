//! Health flips: from what a node reports to the row in the northbound database.
//!
//! The node here is a client of this program's own that speaks the agents' protocol; what is measured is the plugin's part,
//! and ovsdb-server's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use fiberlb_proto::agent::v1 as agent;
use fiberlb_proto::agent::v1::agent_service_client::AgentServiceClient;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::database::until;
use crate::report::Report;
use crate::trees::{Bench, tree};

/// Load balancers with a check, of those that are present.
const CHECKED: u32 = 200;
/// Single flips, of which the 99th percentile is taken.
const FLIPS: usize = 400;
/// Flips that come together, and the time in which they come.
const BURST: usize = 100;
const BURST_TIME: Duration = Duration::from_millis(50);
/// Bursts; the worst counts.
const BURSTS: usize = 5;

/// Measures both figures with what `bench` has present.
pub(crate) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    println!("{CHECKED} load balancers with a health check, of {}", bench.made() + CHECKED);
    let node = Node::connect(bench).await?;
    let checked = create_checked(bench).await?;
    node.until_told_of(&checked).await?;
    let all: Vec<(Uuid, bool)> =
        checked.iter().flat_map(|checked| checked.backends.keys().map(|id| (*id, true))).collect();
    node.say(true, &all).await?;
    for checked in &checked {
        for backend in checked.backends.keys() {
            until_is(bench, checked, *backend, true).await?;
        }
    }

    let mut took = Vec::new();
    for number in 0..FLIPS {
        let checked = checked.get(number % checked.len()).context("nothing is checked")?;
        let up = (number / usize::try_from(CHECKED)?) % 2 == 1;
        let backend = checked.first()?;
        let started = Instant::now();
        node.say(false, &[(backend, up)]).await?;
        until_is(bench, checked, backend, up).await?;
        took.push(started.elapsed());
        // So that each flip stands alone, as where one backend fails.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    took.sort();
    let (p50, p99) = (took.get(FLIPS / 2), took.get(FLIPS * 99 / 100));
    println!("flip_to_nb_p50: {:.1} ms", p50.context("no flip")?.as_secs_f64() * 1e3);
    report.below("flip_to_nb_p99", p99.context("no flip")?.as_secs_f64() * 1e3, "ms", 50.0);

    let mut worst = 0.0_f64;
    for round in 0..BURSTS {
        worst = worst.max(burst(bench, &node, &checked, round % 2 == 1).await?);
    }
    report.at_most("flips_transactions", worst, "transactions", 3.0);
    Ok(())
}

/// Many flips in a short time; answers how many transactions they took.
async fn burst(bench: &Bench, node: &Node, checked: &[Checked], up: bool) -> anyhow::Result<f64> {
    let before = bench.plugin.northbound_transactions().await?;
    let part = BURST_TIME / u32::try_from(BURST)?;
    let started = Instant::now();
    for (number, checked) in (0..).zip(checked.iter().take(BURST)) {
        let last = checked.last()?;
        node.say(false, &[(last, up)]).await?;
        tokio::time::sleep_until((started + part * number).into()).await;
    }
    for checked in checked.iter().take(BURST) {
        until_is(bench, checked, checked.last()?, up).await?;
    }
    Ok(bench.plugin.northbound_transactions().await? - before)
}

/// A load balancer with a check.
struct Checked {
    row: Uuid,
    pool: Uuid,
    /// Their addresses as they stand in the row.
    backends: BTreeMap<Uuid, String>,
}

impl Checked {
    fn first(&self) -> anyhow::Result<Uuid> {
        self.backends.keys().next().copied().context("no backend")
    }

    fn last(&self) -> anyhow::Result<Uuid> {
        self.backends.keys().next_back().copied().context("no backend")
    }
}

async fn create_checked(bench: &Bench) -> anyhow::Result<Vec<Checked>> {
    let mut client = LoadBalancerServiceClient::new(bench.plugin.channel()?);
    let mut all = Vec::new();
    for number in 0..CHECKED {
        let mut tree = tree(number, &bench.networks)?;
        let root = tree.load_balancer.as_mut().context("no load balancer")?;
        root.name = format!("checked-{number}");
        tree.pools.first_mut().context("no pool")?.health_check = Some(v1::HealthCheck {
            r#type: v1::HealthCheckType::Tcp.into(),
            delay: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        });
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let tree = client.apply_load_balancer(request).await?.into_inner().tree.context("no tree")?;
        all.push(describe(bench, tree).await?);
    }
    Ok(all)
}

async fn describe(bench: &Bench, tree: v1::LoadBalancerTree) -> anyhow::Result<Checked> {
    let root = tree.load_balancer.context("no load balancer")?.id;
    let pool = tree.pools.into_iter().next().context("no pool")?;
    let address = |backend: &v1::Backend| format!("{}:{}", backend.address, backend.port);
    let backends = pool.backends.iter().map(|backend| Ok((backend.id.parse()?, address(backend))));
    let backends = backends.collect::<anyhow::Result<BTreeMap<Uuid, String>>>()?;
    let owner = format!("/loadbalancer/{root}");
    let find = || {
        let northbound = bench.northbound.read();
        let owned = |row: &fiberlb_northbound::LoadBalancer| {
            row.protocol.is_some() && row.external_ids.values().any(|value| value.ends_with(&owner))
        };
        northbound.load_balancer.iter().find(|(_, row)| owned(row)).map(|(uuid, _)| *uuid)
    };
    until("the row of a load balancer", || async { Ok(find().is_some()) }).await?;
    let pool = pool.pool.context("no pool")?.id.parse()?;
    Ok(Checked { row: find().context("the row is gone")?, pool, backends })
}

/// Waits until a backend is in its row, or is not.
async fn until_is(bench: &Bench, checked: &Checked, backend: Uuid, wanted: bool) -> anyhow::Result<()> {
    let address = checked.backends.get(&backend).context("another's backend")?;
    let started = Instant::now();
    loop {
        let is_there = {
            let northbound = bench.northbound.read();
            let row = northbound.load_balancer.get(&checked.row).context("the row is gone")?;
            row.vips.values().any(|backends| backends.split(',').any(|backend| backend == address))
        };
        if is_there == wanted {
            return Ok(());
        }
        ensure!(
            started.elapsed() < Duration::from_secs(60),
            "{address} is in its row: {is_there}, after 60 s"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A node as the plugin sees it.
struct Node {
    messages: mpsc::Sender<agent::NodeMessage>,
    epoch: u64,
    pools: watch::Receiver<std::collections::BTreeSet<String>>,
}

impl Node {
    async fn connect(bench: &Bench) -> anyhow::Result<Self> {
        let socket = bench.plugin.agents_endpoint().replace("unix:", "unix://");
        let channel = Endpoint::from_shared(socket)?.connect().await?;
        let (messages, receiver) = mpsc::channel(1024);
        let hello = agent::Hello {
            oldest_version: 1,
            newest_version: 1,
            node_id: "bench".to_owned(),
            boot_id: Uuid::new_v4().to_string(),
            ..Default::default()
        };
        let hello = agent::node_message::Message::Hello(hello);
        messages.send(agent::NodeMessage { epoch: 0, message: Some(hello) }).await?;
        let mut client = AgentServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let mut answers = client.session(ReceiverStream::new(receiver)).await?.into_inner();
        let welcome = answers.message().await?.context("no welcome")?;
        let epoch = welcome.epoch;
        let (told, pools) = watch::channel(std::collections::BTreeSet::new());
        let acks = messages.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = answers.message().await {
                let Some(agent::plugin_message::Message::Update(update)) = message.message else { continue };
                told.send_modify(|pools| pools.extend(update.pools.iter().map(|pool| pool.id.clone())));
                let ack = agent::Ack { revision: update.revision, results: Vec::new() };
                let ack = agent::node_message::Message::Ack(ack);
                if acks.send(agent::NodeMessage { epoch, message: Some(ack) }).await.is_err() {
                    return;
                }
            }
        });
        let heartbeats = messages.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(250));
            loop {
                ticks.tick().await;
                let beat = agent::node_message::Message::Heartbeat(agent::Heartbeat {});
                if heartbeats.send(agent::NodeMessage { epoch, message: Some(beat) }).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { messages, epoch, pools })
    }

    /// Waits until the plugin has told of all their pools.
    async fn until_told_of(&self, checked: &[Checked]) -> anyhow::Result<()> {
        let mut pools = self.pools.clone();
        let told =
            pools.wait_for(|pools| checked.iter().all(|checked| pools.contains(&checked.pool.to_string())));
        match tokio::time::timeout(Duration::from_secs(60), told).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => bail!("the plugin has ended the node's stream"),
            Err(_) => bail!("the plugin has not told the node of all pools after 60 s"),
        }
    }

    async fn say(&self, all: bool, verdicts: &[(Uuid, bool)]) -> anyhow::Result<()> {
        let verdict = |(backend, up): &(Uuid, bool)| agent::Verdict {
            backend_id: backend.to_string(),
            up: *up,
            reason: if *up { String::new() } else { "connection refused".to_owned() },
            since_ms: 0,
        };
        let verdicts = agent::Verdicts {
            first: all,
            verdicts: verdicts.iter().map(verdict).collect(),
            ..Default::default()
        };
        let message = Some(agent::node_message::Message::Verdicts(verdicts));
        self.messages.send(agent::NodeMessage { epoch: self.epoch, message }).await?;
        Ok(())
    }
}
