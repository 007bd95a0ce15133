//! The composition root: makes the parts, joins them, and stops them in order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use fiberlb_proto::agent::v1;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::agent::{Agent, AgentWiring, SharedCounters};
use crate::config::Config;
use crate::dataplane::{Dataplane, DataplaneOptions, ListenerCounters, Protocol};
use crate::disk::{Directory, Loaded, Memory, Writer};
use crate::health::{CheckerConfig, HealthChecker, Verdict};
use crate::link::{Link, LinkSettings, LinkWiring, NodeIdentity};
use crate::metrics::{Metrics, Sources};
use crate::metrics_server;
use crate::network::{DesiredNetworks, NetworkSettings, Networks, NetworksState};
use crate::verdicts::Verdicts;

/// Longest wait, at the start, for the machine to be as the disk has it, before the first Hello, which has
/// the VIPs that the node holds.
const FIRST_PASS: Duration = Duration::from_secs(10);
/// Capacity of the queue of the plugin's events.
const EVENTS: usize = 64;

/// An agent that runs.
pub struct App {
    /// Address of the metrics.
    pub metrics_address: SocketAddr,
    stop: watch::Sender<bool>,
    metrics: JoinHandle<anyhow::Result<()>>,
    link: JoinHandle<()>,
    agent: JoinHandle<()>,
}

/// Starts the agent on the current tokio runtime, which is for control alone: the data plane and the health
/// checker have threads of their own. Serves from the disk at once.
///
/// # Errors
/// Resource that cannot be opened or listened on, with a hint.
pub async fn start(config: &Config) -> anyhow::Result<App> {
    raise_open_files();
    let directory = Directory::open(&config.state.dir)?;
    let memory = load(&directory);
    let writer = Writer::start(directory).context("cannot start a thread")?;
    let dataplane = Dataplane::start(DataplaneOptions::for_this_process(config.workers()))?;
    let remembered = memory.as_ref().map(|memory| memory.down.clone()).unwrap_or_default();
    let verdicts = Verdicts::new(dataplane.rotation(), remembered);
    let health = checker(verdicts.clone())?;

    let (desired, desired_watched) = watch::channel(DesiredNetworks::default());
    let networks = Networks::start(&network_settings(config)?, desired_watched);
    let counters = SharedCounters::default();
    let (events, events_received) = mpsc::channel(EVENTS);
    let (acks, acks_received) = mpsc::unbounded_channel();
    let (held, held_watched) = watch::channel(Vec::new());
    let (link, link_status) = Link::new(
        LinkSettings { endpoints: config.plugin_endpoints()?, tls: config.tls()? },
        identity(config, &networks)?,
        LinkWiring {
            held: held_watched,
            verdicts: verdicts.clone(),
            counters: wire_counters(Arc::clone(&counters)),
            events,
            acks: acks_received,
        },
    );
    let metrics = Metrics::new(Sources {
        link: link_status.clone(),
        networks: networks.state(),
        disk: writer.written(),
        health: Arc::clone(&health),
        counters: Arc::clone(&counters),
    });
    let wiring = AgentWiring {
        link: link_status,
        events: events_received,
        acks,
        desired,
        state: networks.state(),
        verdicts,
        health,
        writer,
        counters,
        drain_timeout: config.drain_timeout(),
    };
    let socket = listen(config.metrics.listen).await?;
    let metrics_address = socket.local_addr()?;

    let (stop, stopped) = watch::channel(false);
    let agent = tokio::spawn(Agent::new(wiring, dataplane, memory).run(stopped.clone()));
    let link = tokio::spawn(connect(link, networks.state(), held, stopped.clone()));
    let metrics = tokio::spawn(metrics_server::serve(socket, Arc::new(metrics), stopped));
    tracing::info!(%metrics_address, node = config.node_id()?, "serving");
    Ok(App { metrics_address, stop, metrics, link, agent })
}

impl App {
    /// Runs until `until` is done or a part ends, then stops all in order: the stream to the plugin is
    /// closed, and connections are drained. Namespaces, ports and VIPs stay.
    ///
    /// # Errors
    /// The part that failed.
    pub async fn run(self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { stop, metrics, mut link, mut agent, .. } = self;
        let mut ended = tokio::select! {
            () = until => Ok(()),
            result = &mut agent => Err(failure(result, "the control loop")),
            result = &mut link => Err(failure(result, "the link to the plugin")),
        };
        tracing::info!("stopping");
        stop.send_replace(true);
        for part in [agent, link] {
            if !part.is_finished() {
                ended = ended.and(part.await.map_err(Into::into));
            }
        }
        ended = ended.and(metrics.await?);
        tracing::info!("stopped");
        ended
    }
}

fn failure(result: Result<(), tokio::task::JoinError>, what: &str) -> anyhow::Error {
    match result {
        Ok(()) => anyhow::anyhow!("{what} has ended by itself"),
        Err(error) => anyhow::Error::from(error).context(format!("{what} has ended")),
    }
}

/// Loads the state of the last run. Unusable state counts as absent: the plugin will send all of it again.
fn load(directory: &Directory) -> Option<Memory> {
    match directory.load() {
        Ok(Loaded::Memory(memory)) => {
            let networks = memory.configuration.networks.len();
            let listeners = memory.configuration.listeners.len();
            tracing::info!(
                networks,
                listeners,
                "serving the stored configuration until the plugin sends another"
            );
            Some(*memory)
        }
        Ok(Loaded::Nothing) => None,
        Ok(Loaded::Damaged { aside, why }) => {
            tracing::error!(%why, aside = %aside.display(), "unusable stored configuration moved aside: nothing is served \
                until the plugin sends one");
            None
        }
        Err(error) => {
            tracing::error!(%error, "cannot read the stored configuration: nothing is served until the plugin sends one");
            None
        }
    }
}

fn checker(verdicts: Verdicts) -> anyhow::Result<Arc<HealthChecker>> {
    let report = move |verdict: Verdict| {
        // False is a late verdict, on a backend that is gone.
        let _ = verdicts.report(&verdict);
    };
    let health = HealthChecker::start(CheckerConfig::default(), report).context("cannot start a thread")?;
    Ok(Arc::new(health))
}

fn network_settings(config: &Config) -> anyhow::Result<NetworkSettings> {
    Ok(NetworkSettings {
        netns_directory: config.network.netns_dir.clone(),
        ovs: config.ovs()?,
        bridge: config.network.bridge.clone(),
    })
}

fn identity(config: &Config, networks: &Networks) -> anyhow::Result<NodeIdentity> {
    Ok(NodeIdentity {
        id: config.node_id()?,
        boot_id: Uuid::new_v4().to_string(),
        zone: config.node.zone.clone(),
        chassis: networks.chassis(),
        capabilities: Protocol::ALL.map(|protocol| protocol.capability().to_owned()).into(),
    })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (metrics.listen): is it in use, or not this machine's?")
    })
}

/// Runs the link, once the machine is as the disk has it: the first Hello has the VIPs that this node holds.
async fn connect(
    link: Link,
    mut state: watch::Receiver<NetworksState>,
    held: watch::Sender<Vec<Uuid>>,
    mut stop: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        _ = tokio::time::timeout(FIRST_PASS, state.wait_for(|state| state.sequence > 0)) => {}
    }
    held.send_replace(state.borrow().held());
    let follow = async move {
        while state.changed().await.is_ok() {
            held.send_replace(state.borrow_and_update().held());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => {}
        () = link.run(stop) => {}
    }
}

/// Reader of the counters as they are sent to the plugin.
fn wire_counters(counters: Arc<Mutex<std::collections::HashMap<Uuid, ListenerCounters>>>) -> ReadCounters {
    let to_wire = |(id, it): (&Uuid, &ListenerCounters)| v1::ListenerCounters {
        listener_id: id.to_string(),
        connections_total: it.accepted,
        connections_active: it.active.into(),
        connections_failed_total: it.refused_by_limit + it.no_backend,
        bytes_in_total: it.bytes_in,
        bytes_out_total: it.bytes_out,
    };
    Box::new(move || counters.lock().unwrap_or_else(PoisonError::into_inner).iter().map(to_wire).collect())
}

type ReadCounters = Box<dyn Fn() -> Vec<v1::ListenerCounters> + Send + Sync>;

/// Raises the limit of open files to the hard one: a connection takes two descriptors.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}
