//! Registry of the connected nodes, and the path of their reports into the rest of the plugin.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use uuid::Uuid;

use super::changes::Configuration;
use super::input::{
    AccessLogReport, Acknowledgement, Hello, NodeTrouble, ReportedDoubt, ReportedEjection, TrafficReport,
    Verdict,
};
use crate::datapath::NodeFeature;

/// Most nodes at the same time.
const MOST_NODES: usize = 4096;

/// Receives the reports of the nodes.
///
/// For one node the calls come one after another: `joined`, then any of the others, then `left`, all with the same epoch;
/// a later stream of the node has a higher epoch, and joins only when the earlier one has left. The calls are made on the
/// runtime's threads: they must neither block nor wait.
pub trait Observer: Send + Sync + 'static {
    /// Called when a node has said hello. Returns the source of its configuration: None while it is not known
    /// yet; the first Some is the snapshot, and the node removes what the snapshot lacks. Each newer value is
    /// followed; some may be skipped. Dropping the sender ends the stream, and the node reconnects.
    ///
    /// # Errors
    /// Reason for refusing the node; then there is no `left`.
    fn joined(
        &self,
        epoch: u64,
        hello: &Hello,
    ) -> Result<watch::Receiver<Option<Arc<Configuration>>>, Refusal>;
    /// Called for each message of the node, before its content is reported.
    fn heard(&self, node: &str, epoch: u64);
    /// The node has acknowledged all updates up to a revision, with some results. `settled`: it has applied
    /// the newest configuration that its receiver had when the last update was sent.
    fn acknowledged(&self, node: &str, epoch: u64, settled: bool, results: Vec<Acknowledgement>);
    /// Verdicts of its health checker. `complete`: full snapshot; earlier verdicts are void.
    fn verdicts(&self, node: &str, epoch: u64, complete: bool, verdicts: Vec<Verdict>);
    /// Checks whose probes say nothing, or say something again. `complete`: all that say nothing.
    fn inconclusive(&self, node: &str, epoch: u64, complete: bool, checks: Vec<ReportedDoubt>);
    /// Counters of its listeners and backends since its process started.
    fn counters(&self, node: &str, epoch: u64, listeners: Vec<TrafficReport>, backends: Vec<TrafficReport>);
    /// Passive health of backends, of each that it has reported counters of.
    fn ejections(&self, node: &str, epoch: u64, ejections: Vec<ReportedEjection>);
    /// Its troubles at this moment; earlier ones are over.
    fn troubles(&self, node: &str, epoch: u64, troubles: Vec<NodeTrouble>);
    /// Listeners whose connections are read at each moment: nodes send these.
    fn read_listeners(&self) -> watch::Receiver<Arc<BTreeSet<Uuid>>>;
    /// Connections of listeners that are read.
    fn access_log(&self, node: &str, epoch: u64, report: AccessLogReport);
    /// Its stream has ended. `is_renewed`: a later one of the same process follows at once.
    fn left(&self, node: &str, epoch: u64, reason: &str, is_renewed: bool);
}

/// Reason for refusing a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another process with its id is connected and alive.
    #[error("another node with this id is connected and alive")]
    Alive,
    /// There are too many.
    #[error("there are {MOST_NODES} nodes; that is the limit")]
    Full,
    /// The plugin cannot serve it at this moment.
    #[error("{0}")]
    NotReady(String),
    /// The node must not join.
    #[error("{0}")]
    Denied(String),
}

/// The connected nodes.
pub(crate) struct Registry {
    silence_limit: Duration,
    started: Instant,
    epoch: AtomicU64,
    live: Mutex<HashMap<String, Live>>,
}

struct Live {
    epoch: u64,
    boot_id: String,
    heard: Arc<Heard>,
    /// True ends the stream; closed once it has ended.
    replace: watch::Sender<bool>,
}

/// Time of the last message: milliseconds since the registry's start.
struct Heard(AtomicU64);

/// Result of a node's attempt to join.
enum Claim {
    Free(Presence),
    /// Free once the other one is gone.
    Taken(watch::Sender<bool>),
}

/// A connected node. Dropping it reports that the node has left, on every path.
pub(crate) struct Presence {
    registry: Arc<Registry>,
    observer: Arc<dyn Observer>,
    node: String,
    epoch: u64,
    heard: Arc<Heard>,
    replaced: watch::Receiver<bool>,
    joined: bool,
    /// True if it sends the access log of listeners that are read.
    logs: bool,
    /// Reason for its leaving.
    pub(crate) reason: String,
    /// True if a later stream of the same process waits for its place.
    pub(crate) is_renewed: bool,
}

impl Registry {
    /// Epochs begin with the time, so that none is repeated, even after a restart.
    pub(crate) fn new(silence_limit: Duration) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = AtomicU64::new(u64::try_from(since_1970.as_micros()).unwrap_or_default());
        Self { silence_limit, started: Instant::now(), epoch, live: Mutex::default() }
    }

    /// Admits a node to an observer. An earlier stream of it ends first, unless it is another living process.
    pub(crate) async fn join(
        self: &Arc<Self>,
        observer: &Arc<dyn Observer>,
        hello: &Hello,
    ) -> Result<(Presence, watch::Receiver<Option<Arc<Configuration>>>), Refusal> {
        let mut presence = loop {
            match self.claim(observer, hello)? {
                Claim::Free(presence) => break presence,
                Claim::Taken(replace) => {
                    replace.send_replace(true);
                    replace.closed().await;
                }
            }
        };
        let configuration = observer.joined(presence.epoch, hello)?;
        presence.joined = true;
        Ok((presence, configuration))
    }

    fn claim(self: &Arc<Self>, observer: &Arc<dyn Observer>, hello: &Hello) -> Result<Claim, Refusal> {
        let mut live = self.lock();
        if let Some(other) = live.get(&hello.node_id) {
            let silent = self.started.elapsed().saturating_sub(other.heard.at());
            let same_process = other.boot_id == hello.boot_id;
            if !same_process && silent < self.silence_limit && !*other.replace.borrow() {
                return Err(Refusal::Alive);
            }
            return Ok(Claim::Taken(other.replace.clone()));
        }
        if live.len() >= MOST_NODES {
            return Err(Refusal::Full);
        }
        let (presence, entry) = self.presence(observer, hello);
        live.insert(hello.node_id.clone(), entry);
        Ok(Claim::Free(presence))
    }

    fn presence(self: &Arc<Self>, observer: &Arc<dyn Observer>, hello: &Hello) -> (Presence, Live) {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        let (replace, replaced) = watch::channel(false);
        let heard = Arc::new(Heard(AtomicU64::new(0)));
        heard.now(self.started);
        let entry = Live { epoch, boot_id: hello.boot_id.clone(), heard: Arc::clone(&heard), replace };
        let presence = Presence {
            registry: Arc::clone(self),
            observer: Arc::clone(observer),
            node: hello.node_id.clone(),
            epoch,
            heard,
            replaced,
            joined: false,
            logs: hello.capabilities.has(&NodeFeature::ACCESS_LOG),
            reason: "its stream was dropped".to_owned(),
            is_renewed: false,
        };
        (presence, entry)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn now(&self, started: Instant) {
        self.0.store(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn at(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl Presence {
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Resolves once a later stream of the node waits for this one to end.
    pub(crate) fn replaced(&self) -> impl Future<Output = ()> + use<> {
        let mut replaced = self.replaced.clone();
        async move {
            // An error means that the sender is gone: nobody can replace it.
            if replaced.wait_for(|replaced| *replaced).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) fn heard(&self) {
        self.heard.now(self.registry.started);
        self.observer.heard(&self.node, self.epoch);
    }

    pub(crate) fn acknowledged(&self, settled: bool, results: Vec<Acknowledgement>) {
        self.observer.acknowledged(&self.node, self.epoch, settled, results);
    }

    pub(crate) fn verdicts(&self, complete: bool, verdicts: Vec<Verdict>) {
        self.observer.verdicts(&self.node, self.epoch, complete, verdicts);
    }

    pub(crate) fn inconclusive(&self, complete: bool, checks: Vec<ReportedDoubt>) {
        self.observer.inconclusive(&self.node, self.epoch, complete, checks);
    }

    pub(crate) fn counters(&self, listeners: Vec<TrafficReport>, backends: Vec<TrafficReport>) {
        self.observer.counters(&self.node, self.epoch, listeners, backends);
    }

    /// Listeners whose connections the node is to send; `None`: it cannot.
    pub(crate) fn read_listeners(&self) -> Option<watch::Receiver<Arc<BTreeSet<Uuid>>>> {
        self.logs.then(|| self.observer.read_listeners())
    }

    pub(crate) fn access_log(&self, report: AccessLogReport) {
        self.observer.access_log(&self.node, self.epoch, report);
    }

    pub(crate) fn ejections(&self, ejections: Vec<ReportedEjection>) {
        self.observer.ejections(&self.node, self.epoch, ejections);
    }

    pub(crate) fn troubles(&self, troubles: Vec<NodeTrouble>) {
        self.observer.troubles(&self.node, self.epoch, troubles);
    }
}

impl Drop for Presence {
    /// Notifies the observer before the place is free: that keeps the streams of a node in order.
    fn drop(&mut self) {
        if self.joined {
            self.observer.left(&self.node, self.epoch, &self.reason, self.is_renewed);
        }
        let mut live = self.registry.lock();
        if live.get(&self.node).is_some_and(|entry| entry.epoch == self.epoch) {
            live.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests;
