//! The control loop: applies the configuration to the machine, the data plane and the health checker, and
//! acknowledges it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fiberlb_northbound::plan::Installation;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::configuration::{self, Configuration, Factories, Items, Listener};
use crate::dataplane::{
    BackendCounters, CutReason, Dataplane, DataplaneSpec, Ejection, ListenerCounters, ListenerSpec,
};
use crate::disk::{Memory, Writer};
use crate::health::HealthChecker;
use crate::link::{Ack, LinkStatus, PluginEvent};
use crate::network::{DesiredNetworks, NeighbourTables, NetworksState};
use crate::results::{self, ReportedOutcomes};
use crate::troubles::{self, Trouble, TroubleKind, TroubleWatch};
use crate::verdicts::Verdicts;

/// Interval at which counters are read, and troubles looked for.
const TICK: Duration = Duration::from_secs(1);
/// Interval at which listeners that the data plane refused are retried.
const RETRY: Duration = Duration::from_secs(3);
/// Time for resets to pass Open vSwitch before the port that they leave by is removed: none is sent a second time.
const RESETS_GO_OUT: Duration = Duration::from_millis(500);
/// Least interval at which changed verdicts are written to disk.
const SAVE: Duration = Duration::from_millis(200);

/// Counters and troubles of the node, as of the last second.
#[derive(Clone, Debug, Default)]
pub struct NodeReport {
    /// Counters of all listeners.
    pub listeners: HashMap<Uuid, ListenerCounters>,
    /// Counters of the backends that have had connections.
    pub backends: HashMap<Uuid, BackendCounters>,
    /// Backends that passive health checks leave out. They have had connections.
    pub ejections: HashMap<Uuid, Ejection>,
    /// Listeners of the configuration.
    pub served: Items<Listener>,
    /// Troubles.
    pub troubles: Vec<Trouble>,
    /// Connections of listeners that are gone.
    pub draining: u64,
}

/// The latest report.
pub type SharedReport = Arc<Mutex<NodeReport>>;

/// Connections of the loop to the other parts.
pub struct AgentWiring {
    /// Status of the stream to the plugin.
    pub link: watch::Receiver<LinkStatus>,
    /// Events of the plugin.
    pub events: mpsc::Receiver<PluginEvent>,
    /// Acknowledgements to the plugin.
    pub acks: mpsc::UnboundedSender<Ack>,
    /// Desired networks of the machine.
    pub desired: watch::Sender<DesiredNetworks>,
    /// Observed networks of the machine.
    pub state: watch::Receiver<NetworksState>,
    /// Verdicts on backends.
    pub verdicts: Verdicts,
    /// The health checker.
    pub health: Arc<HealthChecker>,
    /// Writes the state to disk.
    pub writer: Writer,
    /// Report for display.
    pub report: SharedReport,
    /// Drain deadline of removed listeners.
    pub drain_timeout: Duration,
}

/// The control loop.
pub struct Agent {
    wiring: AgentWiring,
    dataplane: Dataplane,
    installation: Option<Uuid>,
    configuration: Configuration,
    /// Number of the configuration.
    sequence: u64,
    /// True once the plugin's full snapshot was received since the process started.
    is_complete: bool,
    /// Epoch and revision of the last update.
    position: Option<(u64, u64)>,
    reported: ReportedOutcomes,
    acknowledged: Option<(u64, u64)>,
    /// Socket factories that the data plane has.
    factories: Factories,
    /// Listeners that the data plane refused, and those without a network, with the reason.
    refused: HashMap<Uuid, String>,
    /// Listeners that are served as specified.
    in_force: HashSet<Uuid>,
    /// True if the data plane has refused a listener.
    has_refusals: bool,
    neighbours: NeighbourTables,
    troubles: TroubleWatch,
}

impl Agent {
    /// Starts with the state on disk.
    #[must_use]
    pub fn new(wiring: AgentWiring, dataplane: Dataplane, memory: Option<Memory>) -> Self {
        let (installation, configuration) = match memory {
            Some(memory) => (Some(memory.installation), memory.configuration),
            None => (None, Configuration::default()),
        };
        Self {
            wiring,
            dataplane,
            installation,
            configuration,
            sequence: 0,
            is_complete: false,
            position: None,
            reported: ReportedOutcomes::default(),
            acknowledged: None,
            factories: Factories::new(),
            refused: HashMap::new(),
            in_force: HashSet::new(),
            has_refusals: false,
            neighbours: NeighbourTables::new(Path::new("/proc")),
            troubles: TroubleWatch::default(),
        }
    }

    /// Runs until `stop` is true, then drains connections. Namespaces, ports and VIPs stay: a restart finds
    /// them.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.wiring.verdicts.set_configuration(&self.configuration);
        self.apply_configuration().await;
        let mut flips = self.wiring.verdicts.changes();
        let [mut ticks, mut saves, mut retries] = [TICK, SAVE, RETRY].map(|period| {
            let mut timer = interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        let mut is_unsaved = false;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(event) = self.wiring.events.recv() => self.receive(event).await,
                Ok(()) = self.wiring.state.changed() => self.machine_changed().await,
                Ok(()) = self.wiring.link.changed() => {
                    let is_led = self.is_led();
                    self.wiring.desired.send_modify(|desired| desired.is_led = is_led);
                }
                Ok(()) = flips.changed() => is_unsaved = true,
                _ = saves.tick(), if is_unsaved => {
                    is_unsaved = false;
                    self.save();
                }
                _ = retries.tick(), if self.has_refusals => self.retry().await,
                _ = ticks.tick() => self.report(),
            }
        }
        self.save();
        let Self { wiring, dataplane, .. } = self;
        let AgentWiring { desired, drain_timeout, .. } = wiring;
        // Ends the announcements: while connections are drained here, VIPs may move to other nodes.
        drop(desired);
        dataplane.shutdown(drain_timeout).await;
    }

    fn is_led(&mut self) -> bool {
        matches!(&*self.wiring.link.borrow_and_update(), LinkStatus::Connected { .. })
    }

    /// Applies an event of the plugin, together with those that are queued behind it.
    async fn receive(&mut self, event: PluginEvent) {
        let mut is_changed = self.record(event);
        while let Ok(event) = self.wiring.events.try_recv() {
            is_changed |= self.record(event);
        }
        if is_changed {
            self.wiring.verdicts.set_configuration(&self.configuration);
            self.save();
            self.apply_configuration().await;
        }
    }

    /// Returns true if the configuration may have changed.
    fn record(&mut self, event: PluginEvent) -> bool {
        match event {
            PluginEvent::Welcome { epoch, installation } => {
                self.position = None;
                self.reported = ReportedOutcomes::default();
                tracing::info!(epoch, %installation, "waiting for the configuration snapshot");
                false
            }
            PluginEvent::Snapshot { epoch, revision, installation, parts } => {
                if self.installation != Some(installation) {
                    self.configuration = Configuration::default();
                    self.installation = Some(installation);
                }
                self.configuration = self.configuration.replaced(parts);
                self.is_complete = true;
                self.position = Some((epoch, revision));
                let Configuration { networks, pools, listeners, .. } = &self.configuration;
                let (networks, pools, listeners) = (networks.len(), pools.len(), listeners.len());
                tracing::info!(
                    epoch,
                    revision,
                    networks,
                    pools,
                    listeners,
                    "received full configuration snapshot"
                );
                true
            }
            PluginEvent::Changed { epoch, revision, change } => {
                self.configuration = self.configuration.changed(change);
                self.position = Some((epoch, revision));
                true
            }
        }
    }

    /// Applies the configuration as far as the machine is ready; the rest follows when it is.
    async fn apply_configuration(&mut self) {
        self.sequence += 1;
        self.neighbours.fit(configuration::neighbours(&self.configuration));
        // Before the ports of networks that leave are removed: their connections are reset.
        let factories = self.wiring.state.borrow().factories();
        let cut = self.dataplane.cuts().of(CutReason::NetworkGone);
        self.apply(factories).await;
        if self.dataplane.cuts().of(CutReason::NetworkGone) > cut {
            sleep(RESETS_GO_OUT).await;
        }
        let is_led = self.is_led();
        self.wiring.desired.send_replace(DesiredNetworks {
            sequence: self.sequence,
            installation: self.installation.map(Installation),
            networks: self.configuration.networks.clone(),
            is_complete: self.is_complete,
            is_led,
        });
    }

    /// Applies a change of the machine: socket factories may have been added, removed or replaced.
    async fn machine_changed(&mut self) {
        let factories = self.wiring.state.borrow_and_update().factories();
        let is_same = factories.len() == self.factories.len()
            && factories
                .iter()
                .all(|(id, new)| self.factories.get(id).is_some_and(|old| Arc::ptr_eq(old, new)));
        if !is_same {
            self.apply(factories).await;
        }
        self.acknowledge();
    }

    async fn apply(&mut self, factories: Factories) {
        let targets = configuration::targets(&self.configuration, factories.clone());
        self.factories = factories;
        self.serve().await;
        if let Err(error) = self.wiring.health.apply(targets) {
            tracing::error!(%error, "backends are no longer checked");
        }
    }

    async fn serve(&mut self) {
        let verdicts = &self.wiring.verdicts;
        let in_rotation = |backend| verdicts.in_rotation(backend);
        let is_configured = |(id, _): &(Uuid, _)| self.configuration.networks.contains_key(id);
        let (factories, leaving): (Factories, Factories) =
            self.factories.clone().into_iter().partition(is_configured);
        let mut served =
            configuration::dataplane(&self.configuration, factories, self.wiring.drain_timeout, in_rotation);
        served.leaving = leaving.into_keys().collect();
        self.refused = without_network(&mut served);
        // The owner of an endpoint keeps it: of two claims, the first of the configuration wins.
        served.listeners.sort_by_key(|listener| !self.in_force.contains(&listener.id));
        self.in_force.clear();
        self.has_refusals = false;
        for outcome in self.dataplane.apply(&served).await {
            if let Err(refusal) = outcome.result {
                self.has_refusals = true;
                self.refused.insert(outcome.id, refusal.to_string());
            } else {
                self.in_force.insert(outcome.id);
            }
        }
    }

    /// Retries refused listeners: an endpoint that another process had may be free now.
    async fn retry(&mut self) {
        self.serve().await;
        self.acknowledge();
    }

    /// Acknowledges updates, once the machine has applied them.
    fn acknowledge(&mut self) {
        // What was refused is by the state before: it would be reported for networks that are there by now.
        if self.wiring.state.has_changed().unwrap_or(false) {
            return;
        }
        let state = self.wiring.state.borrow();
        let Some(position) = self.position.filter(|_| state.sequence >= self.sequence) else { return };
        let outcomes = results::outcomes(&self.configuration, &state, &self.refused);
        let results = self.reported.changes(outcomes);
        if results.is_empty() && self.acknowledged == Some(position) {
            return;
        }
        self.acknowledged = Some(position);
        let (epoch, revision) = position;
        // The link ends after this loop.
        let _ = self.wiring.acks.send(Ack { epoch, revision, results });
    }

    fn report(&mut self) {
        let (now, shortages) = (Instant::now(), self.dataplane.shortages());
        self.neighbours.poll(now, &shortages);
        let listeners = self.dataplane.counters();
        let of_node = shortages.totals().map(|(resource, total)| (TroubleKind::Shortage(resource), total));
        let of_listeners = listeners.iter().flat_map(|(id, counters)| troubles::of_listener(*id, counters));
        let mut troubles: Vec<Trouble> = self.neighbours.troubles().map(Trouble::of_node).collect();
        let is_checked = |listener| self.configuration.is_checked(listener);
        troubles.extend(self.troubles.observe(of_node.chain(of_listeners), is_checked, now));
        let rotation = self.dataplane.rotation();
        let report = NodeReport {
            listeners,
            backends: rotation.counters(),
            ejections: rotation.ejections(now),
            served: self.configuration.listeners.clone(),
            troubles,
            draining: self.dataplane.draining(),
        };
        *self.wiring.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    fn save(&self) {
        let Some(installation) = self.installation else { return };
        let (down, unproven) = self.wiring.verdicts.to_store();
        let configuration = self.configuration.clone();
        self.wiring.writer.save(Memory { installation, configuration, down, unproven });
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Removes the listeners without a network, and returns them with the reason.
fn without_network(served: &mut DataplaneSpec) -> HashMap<Uuid, String> {
    let networks = &served.networks;
    let is_there = |listener: &ListenerSpec| networks.contains_key(&listener.network);
    let (there, missing) = std::mem::take(&mut served.listeners).into_iter().partition(is_there);
    served.listeners = there;
    let error = "its network is not on this node, or cannot be made";
    let error = |listener: ListenerSpec| (listener.id, error.to_owned());
    Vec::into_iter(missing).map(error).collect()
}
