//! The control loop: brings machine, data plane and health checker in step with the configuration, and answers the plugin.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fiberlb_northbound::plan::Installation;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::configuration::{self, Configuration, Factories};
use crate::dataplane::{self, Dataplane, ListenerCounters};
use crate::disk::{Memory, Writer};
use crate::health::HealthChecker;
use crate::link::{Ack, News, Status};
use crate::network::{State, Wanted};
use crate::results::{self, Told};
use crate::verdicts::Verdicts;

/// How often counters are read.
const TICK: Duration = Duration::from_secs(1);
/// How often listeners that the data plane refused are tried again.
const RETRY: Duration = Duration::from_secs(3);
/// Flips are written to disk at most so often.
const SAVE: Duration = Duration::from_millis(200);

/// Counters of all listeners, as of the last second.
pub type SharedCounters = Arc<Mutex<HashMap<Uuid, ListenerCounters>>>;

/// What the loop is joined with.
pub struct Wiring {
    /// Whether there is a stream to the plugin.
    pub link: watch::Receiver<Status>,
    /// What it says.
    pub news: mpsc::Receiver<News>,
    /// What it is answered.
    pub acks: mpsc::UnboundedSender<Ack>,
    /// What the machine should be.
    pub wanted: watch::Sender<Wanted>,
    /// What it is.
    pub state: watch::Receiver<State>,
    /// What is known of backends.
    pub verdicts: Verdicts,
    /// Probes them.
    pub health: Arc<HealthChecker>,
    /// Remembers.
    pub writer: Writer,
    /// Where counters are shown.
    pub counters: SharedCounters,
    /// How long connections of listeners that go may go on.
    pub drain_timeout: Duration,
}

/// The control loop.
pub struct Agent {
    wiring: Wiring,
    dataplane: Dataplane,
    installation: Option<Uuid>,
    configuration: Configuration,
    /// Rises with each configuration.
    sequence: u64,
    /// The plugin's whole snapshot has been heard in this life.
    is_complete: bool,
    /// Epoch and revision of the last update.
    position: Option<(u64, u64)>,
    told: Told,
    acknowledged: Option<(u64, u64)>,
    /// Sockets that the data plane has.
    factories: Factories,
    /// Listeners that it refused, and those without a network.
    refused: HashMap<Uuid, String>,
    /// Listeners that are served as they were asked for.
    in_force: HashSet<Uuid>,
    /// The data plane refused one of them.
    has_refusals: bool,
}

impl Agent {
    /// Begins with what the disk remembers.
    #[must_use]
    pub fn new(wiring: Wiring, dataplane: Dataplane, memory: Option<Memory>) -> Self {
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
            told: Told::default(),
            acknowledged: None,
            factories: Factories::new(),
            refused: HashMap::new(),
            in_force: HashSet::new(),
            has_refusals: false,
        }
    }

    /// Runs until `stop` says true, then lets connections end. Namespaces, ports and VIPs stay: a restart finds them.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.wiring.verdicts.follow(&self.configuration);
        self.follow().await;
        let mut flips = self.wiring.verdicts.news();
        let [mut ticks, mut saves, mut retries] = [TICK, SAVE, RETRY].map(|period| {
            let mut timer = interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        });
        let mut is_unsaved = false;
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(news) = self.wiring.news.recv() => self.hear(news).await,
                Ok(()) = self.wiring.state.changed() => self.carry_out().await,
                Ok(()) = self.wiring.link.changed() => {
                    let is_led = self.is_led();
                    self.wiring.wanted.send_modify(|wanted| wanted.is_led = is_led);
                }
                Ok(()) = flips.changed() => is_unsaved = true,
                _ = saves.tick(), if is_unsaved => {
                    is_unsaved = false;
                    self.save();
                }
                _ = retries.tick(), if self.has_refusals => self.retry().await,
                _ = ticks.tick() => self.show_counters(),
            }
        }
        self.save();
        let Self { wiring, dataplane, .. } = self;
        let Wiring { wanted, drain_timeout, .. } = wiring;
        // Ends the announcements: while connections end here, VIPs may go to other nodes.
        drop(wanted);
        dataplane.shutdown(drain_timeout).await;
    }

    fn is_led(&mut self) -> bool {
        matches!(&*self.wiring.link.borrow_and_update(), Status::Connected { .. })
    }

    /// Takes what the plugin says, and all that has come since.
    async fn hear(&mut self, news: News) {
        let mut is_changed = self.take(news);
        while let Ok(news) = self.wiring.news.try_recv() {
            is_changed |= self.take(news);
        }
        if is_changed {
            self.wiring.verdicts.follow(&self.configuration);
            self.save();
            self.follow().await;
        }
    }

    fn take(&mut self, news: News) -> bool {
        match news {
            News::Welcome { epoch, installation } => {
                self.position = None;
                self.told = Told::default();
                tracing::info!(epoch, %installation, "awaiting the configuration");
                false
            }
            News::Snapshot { epoch, revision, installation, parts } => {
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
                    "the whole configuration has come"
                );
                true
            }
            News::Changed { epoch, revision, change } => {
                self.configuration = self.configuration.changed(change);
                self.position = Some((epoch, revision));
                true
            }
        }
    }

    /// Brings everything in step with the configuration, as far as the machine is ready; the rest follows when it is.
    async fn follow(&mut self) {
        self.sequence += 1;
        let is_led = self.is_led();
        self.wiring.wanted.send_replace(Wanted {
            sequence: self.sequence,
            installation: self.installation.map(Installation),
            networks: self.configuration.networks.clone(),
            is_complete: self.is_complete,
            is_led,
        });
        let factories = self.wiring.state.borrow().factories();
        self.apply(factories).await;
    }

    /// The machine is another: sockets may have come, gone, or be others.
    async fn carry_out(&mut self) {
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
            tracing::error!(%error, "backends are not checked any more");
        }
    }

    async fn serve(&mut self) {
        let verdicts = &self.wiring.verdicts;
        let in_rotation = |backend| verdicts.in_rotation(backend);
        let factories = self.factories.clone();
        let mut served =
            configuration::dataplane(&self.configuration, factories, self.wiring.drain_timeout, in_rotation);
        self.refused = without_network(&mut served);
        // Who has an address keeps it: of two that want it, the first of the configuration gets it.
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

    /// A port that somebody else had may be free now.
    async fn retry(&mut self) {
        self.serve().await;
        self.acknowledge();
    }

    /// Tells the plugin how its updates were carried out, once the machine has followed.
    fn acknowledge(&mut self) {
        let state = self.wiring.state.borrow();
        let Some(position) = self.position.filter(|_| state.sequence >= self.sequence) else { return };
        let outcomes = results::outcomes(&self.configuration, &state, &self.refused);
        let results = self.told.news(outcomes);
        if results.is_empty() && self.acknowledged == Some(position) {
            return;
        }
        self.acknowledged = Some(position);
        let (epoch, revision) = position;
        // The link ends after us.
        let _ = self.wiring.acks.send(Ack { epoch, revision, results });
    }

    fn show_counters(&self) {
        let counters = self.dataplane.counters();
        *self.wiring.counters.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    fn save(&self) {
        let Some(installation) = self.installation else { return };
        let (down, unproven) = self.wiring.verdicts.to_remember();
        let configuration = self.configuration.clone();
        self.wiring.writer.save(Memory { installation, configuration, down, unproven });
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop us is gone: stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Takes out the listeners whose network is not there, and says so.
fn without_network(served: &mut dataplane::Configuration) -> HashMap<Uuid, String> {
    let networks = &served.networks;
    let is_there = |listener: &dataplane::Listener| networks.contains_key(&listener.network);
    let (there, missing) = std::mem::take(&mut served.listeners).into_iter().partition(is_there);
    served.listeners = there;
    let error = |listener: dataplane::Listener| {
        let error = format!("its network {} is not on this node, or cannot be made", listener.network);
        (listener.id, error)
    };
    Vec::into_iter(missing).map(error).collect()
}
