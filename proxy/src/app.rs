//! The composition root: makes the parts, joins them, and stops them in order.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use fiberlb_daemon::admin::Admin;
use fiberlb_daemon::descriptors;
use fiberlb_daemon::listen::{ConnectionSettings, Listener, Listeners, Socket};
use fiberlb_daemon::service;
use fiberlb_proto::agent::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::access_log::{AccessLog, AccessLogSettings};
use crate::agent::{Agent, AgentWiring, SharedReport};
use crate::config::Config;
use crate::dataplane::{
    BackendCounters, Dataplane, DataplaneOptions, Durations, Ejection, ListenerCounters, Pulse, capabilities,
};
use crate::disk::{Directory, Loaded, Memory, Writer};
use crate::health::{BackendCheck, CheckerConfig, HealthChecker, Report};
use crate::link::{Link, LinkSettings, LinkWiring, NodeIdentity};
use crate::metrics::{Metrics, Sources};
use crate::network::{DesiredNetworks, NetworkSettings, Networks, NetworksState};
use crate::readiness::AgentReadiness;
use crate::shortage::Shortages;
use crate::troubles::Trouble;
use crate::verdicts::Verdicts;

mod check;

pub use check::faults;

/// Longest wait, at the start, for the machine to be as the disk has it, before the first Hello, which has
/// the VIPs that the node holds.
const FIRST_PASS: Duration = Duration::from_secs(10);
/// Latest time that the plugin takes, in milliseconds since 1970: the end of the year 9999.
const LATEST_MS: u64 = 253_402_300_799_999;
/// Capacity of the queue of the plugin's events.
const EVENTS: usize = 64;
/// Descriptors that the data plane leaves to the rest of the process, and the share of them that no scrape may take: Open
/// vSwitch, plugin, namespaces, probes.
const OWN_DESCRIPTORS: u64 = 1024;
const RESERVED_DESCRIPTORS: u64 = 768;

/// An agent that runs.
pub struct App {
    /// Address of the metrics.
    pub metrics_address: SocketAddr,
    stop: watch::Sender<bool>,
    metrics: JoinHandle<()>,
    link: JoinHandle<()>,
    agent: JoinHandle<()>,
    watchdog: JoinHandle<()>,
    pulse: Pulse,
    access_log: Arc<AccessLog>,
}

/// Starts the agent on the current tokio runtime, which is for control alone: the data plane and the health
/// checker have threads of their own. Serves from the disk at once.
///
/// # Errors
/// Resource that cannot be opened or listened on, with a hint.
pub async fn start(config: &Config) -> anyhow::Result<App> {
    let metrics_settings = fit_connections(config.metrics.connections.clone());
    let directory = Directory::open(&config.state.dir)?;
    let memory = load(&directory);
    let writer = Writer::start(directory).context("cannot start a thread")?;
    let options = options(config);
    let access_log = Arc::new(access_log(config)?);
    let dataplane = Dataplane::start_with_log(options, Arc::clone(&access_log) as _)?;
    let remembered = memory.as_ref().map(|memory| memory.down.clone()).unwrap_or_default();
    let verdicts = Verdicts::new(dataplane.rotation(), remembered);
    let health = checker(verdicts.clone(), dataplane.shortages())?;

    let (desired, desired_watched) = watch::channel(DesiredNetworks::default());
    let listeners = Listeners::default();
    let socket = listen(config.metrics.listen)?;
    let metrics_address = socket.address().unwrap_or(config.metrics.listen);
    let listener = Listener::new("metrics", socket, metrics_settings, listeners.clone());

    let networks = Networks::start(&network_settings(config)?, desired_watched);
    let readiness = AgentReadiness::new(desired.subscribe(), networks.state(), listeners.clone());
    let report = SharedReport::default();
    let (events, events_received) = mpsc::channel(EVENTS);
    let (acks, acks_received) = mpsc::unbounded_channel();
    let (held, held_watched) = watch::channel(Vec::new());
    let (link, link_status) = Link::new(
        LinkSettings { endpoints: config.plugin_endpoints()?, tls: config.tls()? },
        identity(config, &networks)?,
        LinkWiring {
            held: held_watched,
            verdicts: verdicts.clone(),
            counters: wire_report(Arc::clone(&report)),
            shares: wire_shares(Arc::clone(&report)),
            tail: access_log.tail(),
            events,
            acks: acks_received,
        },
    );
    let sources = Sources {
        link: link_status.clone(),
        networks: networks.state(),
        disk: writer.written(),
        health: Arc::clone(&health),
        report: Arc::clone(&report),
        shortages: dataplane.shortages(),
        cuts: dataplane.cuts(),
        access_log: Arc::clone(&access_log),
        max_connections: options.max_connections,
        backends: checked_backends(Arc::clone(&health), config.metrics.backends),
    };
    let certificates = [
        ("plugin.tls_ca", config.plugin.tls_ca.clone()),
        ("plugin.tls_certificate", config.plugin.tls_certificate.clone()),
        ("access_log.otlp_tls_ca", config.access_log.otlp_tls_ca.clone()),
        ("access_log.otlp_tls_certificate", config.access_log.otlp_tls_certificate.clone()),
    ];
    let metrics = Metrics::new(sources, &listeners, certificates);
    let admin = Admin::new(move || metrics.encode(), Arc::new(readiness));
    let wiring = AgentWiring {
        link: link_status,
        events: events_received,
        acks,
        desired,
        state: networks.state(),
        verdicts,
        health,
        writer,
        report,
        drain_timeout: config.drain_timeout(),
    };

    // From this runtime, through each of the data plane's.
    let pulse = dataplane.pulse();
    let beating = pulse.clone();
    let watchdog = tokio::spawn(service::feed_watchdog(async move || beating.beat().await));
    let (stop, stopped) = watch::channel(false);
    let agent = tokio::spawn(Agent::new(wiring, dataplane, memory).run(stopped.clone()));
    let link = tokio::spawn(connect(link, networks.state(), held, stopped.clone()));
    let metrics = tokio::spawn(listener.serve(admin, stopped));
    let node = config.node_id()?;
    tracing::info!(%metrics_address, node, "serving");
    service::ready(&format!("node {node}; metrics on {metrics_address}")).await;
    Ok(App { metrics_address, stop, metrics, link, agent, watchdog, pulse, access_log })
}

impl App {
    /// Runs until `until` is done or a part ends, then stops all in order: the stream to the plugin is
    /// closed, and connections are drained. Namespaces, ports and VIPs stay.
    ///
    /// # Errors
    /// The part that failed.
    pub async fn run(self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { stop, metrics, mut link, mut agent, watchdog, pulse, access_log, .. } = self;
        let mut ended = tokio::select! {
            () = until => Ok(()),
            result = &mut agent => Err(failure(result, "the control loop")),
            result = &mut link => Err(failure(result, "the link to the plugin")),
            () = pulse.lost() => Err(anyhow::anyhow!("a worker of the data plane has ended by itself")),
        };
        tracing::info!("stopping");
        service::stopping(watchdog).await;
        stop.send_replace(true);
        for part in [agent, link] {
            if !part.is_finished() {
                ended = ended.and(part.await.map_err(Into::into));
            }
        }
        // Connections that were cut are in it.
        ended = ended.and(tokio::task::spawn_blocking(move || access_log.flush()).await.map_err(Into::into));
        ended = ended.and(metrics.await.map_err(Into::into));
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

/// The access log, by the settings.
fn access_log(config: &Config) -> anyhow::Result<AccessLog> {
    let settings = config.access_log.clone();
    let directory = settings.directory.as_ref().map(|it| it.display().to_string());
    let log = AccessLog::start(AccessLogSettings {
        node: config.node_id()?,
        sample: settings.sample,
        directory: settings.directory,
        lines_per_second: settings.lines_per_second,
        max_file_bytes: settings.max_file_mib.saturating_mul(1 << 20),
        syslog: settings.syslog,
        otlp: config.otlp()?,
    });
    log.with_context(|| format!("cannot begin the access log (access_log.directory {directory:?})"))
}

/// As many connections as the settings ask for, if the process has the descriptors.
fn options(config: &Config) -> DataplaneOptions {
    let possible = DataplaneOptions::for_this_process(config.workers());
    let asked = config.dataplane.max_connections.unwrap_or(possible.max_connections);
    if asked > possible.max_connections {
        tracing::warn!(
            asked,
            possible = possible.max_connections,
            "lowered dataplane.max_connections: the process may open few files; raise LimitNOFILE"
        );
    }
    DataplaneOptions { max_connections: asked.min(possible.max_connections), ..possible }
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

fn checker(verdicts: Verdicts, shortages: Arc<Shortages>) -> anyhow::Result<Arc<HealthChecker>> {
    let report = move |report: Report| match report {
        // False is a late verdict, on a backend that is gone.
        Report::Verdict(verdict) => drop(verdicts.report(&verdict)),
        Report::Inconclusive(check) => verdicts.report_inconclusive(&check),
    };
    let config = CheckerConfig { shortages, ..CheckerConfig::default() };
    let health = HealthChecker::start(config, report).context("cannot start a thread")?;
    Ok(Arc::new(health))
}

/// Source of the checked backends, at most `most`. Empty where the checker has ended: its panic is in the log.
fn checked_backends(
    health: Arc<HealthChecker>,
    most: usize,
) -> Box<dyn Fn() -> Vec<BackendCheck> + Send + Sync> {
    match most {
        0 => Box::new(Vec::new),
        _ => Box::new(move || health.backends(most).unwrap_or_default()),
    }
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
        capabilities: capabilities().map(str::to_owned).collect(),
    })
}

fn listen(address: SocketAddr) -> anyhow::Result<Socket> {
    Socket::tcp(address).with_context(|| {
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

/// Reader of the report as it is sent to the plugin.
fn wire_report(report: SharedReport) -> ReadCounters {
    let of_backend = |id: &Uuid, it: &BackendCounters, ejection: Option<&Ejection>| v1::BackendCounters {
        backend_id: id.to_string(),
        connections_total: it.accepted,
        connections_active: it.active.into(),
        connections_failed_total: it.failed(),
        bytes_in_total: it.bytes_in,
        bytes_out_total: it.bytes_out,
        ejected_until_ms: ejection.map_or(0, |ejection| ejection.until_ms.min(LATEST_MS)),
        ejection_reason: ejection.map(|ejection| ejection.reason.clone()).unwrap_or_default(),
        reasons: reasons(it.by_reason()),
        durations: durations(&it.durations),
        drain: it.drain.map(|drain| left(drain.pool, drain.connections, drain.deadline)),
    };
    let trouble = |it: &Trouble| v1::Trouble {
        listener_id: it.listener.map(|id| id.to_string()).unwrap_or_default(),
        text: it.text.clone(),
    };
    Box::new(move || {
        let report = report.lock().unwrap_or_else(PoisonError::into_inner);
        let backends = report.backends.iter();
        v1::Counters {
            listeners: report.listeners.iter().map(listener_counters).collect(),
            backends: backends.map(|(id, it)| of_backend(id, it, report.ejections.get(id))).collect(),
            troubles: Some(v1::Troubles { troubles: report.troubles.iter().map(trouble).collect() }),
        }
    })
}

/// Reader of the listeners with a share of a limit, as they are sent to the plugin.
fn wire_shares(report: SharedReport) -> ReadShares {
    Box::new(move || {
        let report = report.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = report.listeners.iter().filter(|(_, it)| it.limit.is_some());
        shared.map(listener_counters).collect()
    })
}

fn listener_counters((id, counters): (&Uuid, &ListenerCounters)) -> v1::ListenerCounters {
    v1::ListenerCounters {
        listener_id: id.to_string(),
        connections_total: counters.accepted,
        connections_active: counters.active.into(),
        connections_failed_total: counters.failed(),
        bytes_in_total: counters.bytes_in,
        bytes_out_total: counters.bytes_out,
        reasons: reasons(counters.by_reason().into_iter().map(|(reason, total)| (reason.as_str(), total))),
        durations: durations(&counters.durations),
        drain: counters.drain.map(|drain| left(drain.load_balancer, counters.active, Some(drain.deadline))),
        connection_share: counters.limit,
        connections_above_share_total: counters.refused_by_limit,
    }
}

/// Connections by reason, as far as there were any.
fn reasons(all: impl Iterator<Item = (&'static str, u64)>) -> Vec<v1::ReasonCount> {
    let count =
        |(reason, connections_total)| v1::ReasonCount { reason: str::to_owned(reason), connections_total };
    all.filter(|(_, total)| *total > 0).map(count).collect()
}

/// Message about the connections that a drain has left.
fn left(parent: Uuid, connections: u32, deadline: Option<Instant>) -> v1::Drain {
    let wall_clock = |deadline: Instant| {
        let left = deadline.saturating_duration_since(Instant::now());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(left);
        u64::try_from(since.as_millis()).unwrap_or(LATEST_MS).min(LATEST_MS)
    };
    v1::Drain {
        parent_id: parent.to_string(),
        connections: connections.into(),
        deadline_ms: deadline.map_or(0, wall_clock),
    }
}

/// Durations, if a connection has ended.
fn durations(all: &Durations) -> Option<v1::DurationCounts> {
    let counts = || v1::DurationCounts { counts: all.counts().into(), sum_us: all.micros() };
    (all.count() > 0).then(counts)
}

type ReadCounters = Box<dyn Fn() -> v1::Counters + Send + Sync>;
type ReadShares = Box<dyn Fn() -> Vec<v1::ListenerCounters> + Send + Sync>;

/// Takes all descriptors that the process may have, since a proxied connection needs two of them, and keeps scrapes from what
/// the rest of the process needs.
fn fit_connections(mut settings: ConnectionSettings) -> ConnectionSettings {
    let limit = descriptors::raise_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        descriptors::limit()
    });
    ConnectionSettings::fit(limit.min(OWN_DESCRIPTORS), RESERVED_DESCRIPTORS, &mut [&mut settings]);
    settings
}
