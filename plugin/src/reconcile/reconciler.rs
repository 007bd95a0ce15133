//! The loop: what is due, one transaction for all of it, what came of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_ovn::nb::{Change, Northbound};
use fiberlb_ovn::ovsdb::client::{Client, Event};
use fiberlb_ovn::plan::{self, Capabilities, Installation, Network, Owner, OwnerKind, Step, Topology};
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::apply::{Outcome, apply};
use super::desired::{obstacle, reservation_row, wish};
use super::queue::{Backoff, Key, Queue};
use super::{Failure, Observation};
use crate::api::Writer;
use crate::metrics::Metrics;
use crate::model::{Model, Notice};
use crate::resources::{Tree, now_ms};

/// Settings of the reconciler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long the first change waits for others to share its transaction with, in milliseconds, default 5. northd pays
    /// for each transaction, not for each row.
    pub gather_ms: u64,
    /// Most load balancers in one transaction, default 200.
    pub batch: usize,
    /// Wait after a first failure, in milliseconds, default 500; doubled with each further one.
    pub backoff_least_ms: u64,
    /// Longest wait after a failure, in milliseconds, default 30000.
    pub backoff_most_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gather_ms: 5, batch: 200, backoff_least_ms: 500, backoff_most_ms: 30_000 }
    }
}

/// Brings the northbound database in step with the model.
pub struct Reconciler {
    installation: Installation,
    model: Arc<Model>,
    northbound: Client<Northbound>,
    writer: Arc<Writer>,
    metrics: Arc<Metrics>,
    settings: Settings,
    queue: Queue,
    /// Load balancers whose last attempt failed, with their networks: what changes there may be what they wait for.
    failing: HashMap<Uuid, Uuid>,
}

/// One load balancer in a batch.
struct Run {
    id: Uuid,
    tree: Option<Arc<Tree>>,
    refused: BTreeMap<Uuid, String>,
}

/// A batch that is ready to be sent.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    runs: Vec<Run>,
    obstructed: Vec<(Uuid, String)>,
}

impl Reconciler {
    /// A reconciler of what `model` shows into `northbound`. `writer` is where deleted records go for good.
    pub fn new(
        installation: Installation,
        model: Arc<Model>,
        northbound: Client<Northbound>,
        writer: Arc<Writer>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        let backoff = Backoff {
            least: Duration::from_millis(settings.backoff_least_ms),
            most: Duration::from_millis(settings.backoff_most_ms),
        };
        Self {
            installation,
            model,
            northbound,
            writer,
            metrics,
            settings,
            queue: Queue::new(backoff),
            failing: HashMap::new(),
        }
    }

    /// Runs until `stop` is told or dropped. A transaction in flight is waited for.
    pub async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<Event<Change>>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut notices = self.model.subscribe();
        self.look_at_everything();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return,
                event = events.recv() => match event {
                    Some(event) => self.hear(event),
                    None => return,
                },
                notice = notices.recv() => self.notice(&notice),
                () = due(self.queue.next()), if self.is_live() => self.batch().await,
            }
            self.metrics.queue_length.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        }
    }

    fn is_live(&self) -> bool {
        self.northbound.is_live()
    }

    /// What the model says.
    fn notice(&mut self, notice: &Result<Notice, broadcast::error::RecvError>) {
        match notice {
            Ok(Notice::Specification(id)) => self.soon(*id),
            Ok(Notice::Observation(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_everything(),
        }
    }

    /// What the northbound database says.
    fn hear(&mut self, event: Event<Change>) {
        match event {
            // What the database held while nobody looked is unknown until it is compared.
            Event::Reloaded(_) => self.look_at_everything(),
            Event::Changed(changes) => {
                for change in changes {
                    self.changed(&change);
                }
            }
            Event::Disconnected => {}
        }
    }

    fn changed(&mut self, change: &Change) {
        match change {
            Change::Owned { owner } => {
                let Ok(owner) = owner.parse::<Owner>() else { return };
                if owner.installation != self.installation {
                    return;
                }
                match owner.kind {
                    OwnerKind::LoadBalancer => self.soon(owner.id),
                    OwnerKind::Network => self.network_soon(owner.id),
                }
            }
            Change::Switch { uuid } => self.network_soon(*uuid),
            Change::Ports { switch } => self.failing_soon(*switch),
            Change::Router { uuid } => {
                let switches: Vec<Uuid> = plan::switches_behind(*uuid, &self.northbound.read()).collect();
                for switch in switches {
                    self.network_soon(switch);
                }
            }
        }
    }

    /// What a network shares, and those of its load balancers that something stood in the way of.
    fn network_soon(&mut self, switch: Uuid) {
        if !self.model.has_vips(switch)
            && self.northbound.read().owned(&self.installation.network(switch).to_string()).next().is_none()
        {
            return;
        }
        self.queue.add(Key::Network(switch), Instant::now() + self.gather());
        self.failing_soon(switch);
    }

    /// The load balancers on a network that something stands in the way of.
    fn failing_soon(&mut self, switch: Uuid) {
        let failing = self.failing.iter().filter(|(_, network)| **network == switch);
        for id in failing.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.soon(id);
        }
    }

    fn soon(&mut self, id: Uuid) {
        self.queue.add(Key::LoadBalancer(id), Instant::now() + self.gather());
    }

    fn gather(&self) -> Duration {
        Duration::from_millis(self.settings.gather_ms)
    }

    /// All that is stored, and all that the database holds of ours: what is not stored any more is swept by a run that
    /// finds nothing to desire. The model is whole from the start, so nothing is swept by mistake.
    fn look_at_everything(&mut self) {
        let now = Instant::now();
        for id in self.model.load_balancers() {
            self.queue.add(Key::LoadBalancer(id), now);
        }
        let owners: Vec<Owner> =
            self.northbound.read().owners().filter_map(|owner| owner.parse().ok()).collect();
        for owner in owners.into_iter().filter(|owner| owner.installation == self.installation) {
            let key = match owner.kind {
                OwnerKind::LoadBalancer => Key::LoadBalancer(owner.id),
                OwnerKind::Network => Key::Network(owner.id),
            };
            self.queue.add(key, now);
        }
    }

    /// One transaction for all that is due. Where it is refused, halves of it, until the guilty ones stand alone.
    async fn batch(&mut self) {
        let mut parts = vec![self.queue.take(Instant::now(), self.settings.batch)];
        while let Some(keys) = parts.pop() {
            let mut batch = self.plan(&keys);
            let steps = std::mem::take(&mut batch.steps);
            let started = Instant::now();
            let outcome = apply(&self.northbound, steps).await;
            self.metrics.transaction(outcome.label(), batch.runs.len(), started.elapsed());
            match outcome {
                Outcome::InStep | Outcome::Committed => self.done(batch).await,
                Outcome::Missed => self.again(keys),
                Outcome::NotConnected => {
                    self.again(keys);
                    self.again(parts.into_iter().flatten());
                    return;
                }
                Outcome::Unknown(reason) => {
                    tracing::warn!(
                        reason,
                        keys = keys.len(),
                        "it is not known whether a transaction was committed; looking at the database, then planning again"
                    );
                    self.again(keys);
                }
                Outcome::Refused(reason) if keys.len() == 1 => self.failed(&keys, &reason),
                Outcome::Refused(reason) => {
                    tracing::warn!(
                        reason,
                        keys = keys.len(),
                        "the northbound database refused a transaction; sending its halves"
                    );
                    let (first, second) = keys.split_at(keys.len() / 2);
                    parts.push(second.to_vec());
                    parts.push(first.to_vec());
                }
            }
        }
    }

    fn again(&mut self, keys: impl IntoIterator<Item = Key>) {
        let soon = Instant::now() + self.gather();
        for key in keys {
            self.queue.add(key, soon);
        }
    }

    /// What is missing for these keys, and for the networks that their load balancers are on.
    fn plan(&self, keys: &[Key]) -> Batch {
        let nb = self.northbound.read();
        let capabilities =
            self.northbound.schema().map_or(Capabilities::ALL, |schema| Capabilities::of(&schema));
        let mut batch = Batch::default();
        let mut networks = BTreeSet::new();
        for key in keys {
            let id = match key {
                Key::Network(switch) => {
                    networks.insert(*switch);
                    continue;
                }
                Key::LoadBalancer(id) => *id,
            };
            let tree = self.model.tree(id);
            let shares = |tree: &Arc<Tree>| self.changes_what_is_shared(tree, &nb);
            networks.extend(
                tree.as_ref().filter(|tree| shares(tree)).map(|tree| tree.load_balancer.spec.network),
            );
            let stop = tree.as_ref().and_then(|tree| obstacle(tree, self.installation, &nb, &capabilities));
            if let Some(reason) = stop {
                batch.obstructed.push((id, reason));
                continue;
            }
            let wish =
                tree.as_ref().map(|tree| wish(tree, self.installation, &capabilities)).unwrap_or_default();
            batch.steps.extend(plan::diff(self.installation.load_balancer(id), &wish.rows, &nb));
            batch.runs.push(Run { id, tree, refused: wish.refused });
        }
        for switch in networks {
            batch.steps.extend(self.shared(switch, &nb, &capabilities));
        }
        batch
    }

    /// Whether a load balancer comes to its network or leaves it: the others share what is there already.
    fn changes_what_is_shared(&self, tree: &Tree, nb: &Northbound) -> bool {
        let reservation = reservation_row(self.installation, tree.id());
        let group = Network::group(self.installation, tree.load_balancer.spec.network);
        tree.load_balancer.deleting
            || nb.logical_switch_port.get(&reservation).is_none()
            || nb.load_balancer_group.get(&group).is_none()
    }

    /// What is missing of the rows that the load balancers on one switch share.
    fn shared(&self, switch: Uuid, nb: &Northbound, capabilities: &Capabilities) -> Vec<Step> {
        let topology = Topology::of(switch, nb).unwrap_or_default();
        let exists = nb.logical_switch.get(&switch).is_some();
        let mut vips: BTreeSet<IpAddr> = BTreeSet::new();
        for (vip, id) in self.model.vips_on(switch) {
            let serves = self.model.tree(id).is_some_and(|tree| {
                !tree.load_balancer.deleting && obstacle(&tree, self.installation, nb, capabilities).is_none()
            });
            if exists && serves {
                vips.insert(vip);
            }
        }
        let network = Network {
            installation: self.installation,
            switch,
            responder: plan::responder_wanted(self.installation, switch, &topology, nb),
            vips,
        };
        plan::diff(self.installation.network(switch), &plan::network(&network, &topology), nb)
    }

    /// Everything in `batch` is in the database.
    async fn done(&mut self, batch: Batch) {
        for (id, reason) in batch.obstructed {
            self.failed(&[Key::LoadBalancer(id)], &reason);
        }
        for run in batch.runs {
            self.queue.succeeded(Key::LoadBalancer(run.id));
            self.failing.remove(&run.id);
            let Some(tree) = run.tree else { continue };
            if tree.has_deleted() {
                self.bury(&tree).await;
            }
            self.model
                .observe(run.id, Observation { applied: Some(tree), refused: run.refused, failure: None });
        }
    }

    /// OVN has let go of what `seen` marks as deleted: it goes from the store, and its address and port are free.
    async fn bury(&mut self, seen: &Tree) {
        let buried = self.writer.write(seen.id(), |current| {
            Ok((current.and_then(|current| current.without_deleted_of(seen)), ()))
        });
        if let Err(error) = buried.await {
            let wait = self.queue.failed(Key::LoadBalancer(seen.id()), Instant::now());
            tracing::warn!(
                load_balancer = %seen.id(), error = error.message(), ?wait,
                "OVN has let go of what was deleted, but the store could not be told; trying again"
            );
        }
    }

    fn failed(&mut self, keys: &[Key], reason: &str) {
        for key in keys {
            let wait = self.queue.failed(*key, Instant::now());
            tracing::warn!(?key, reason, ?wait, "could not be carried out; trying again");
            let Key::LoadBalancer(id) = key else { continue };
            let network = self.model.tree(*id).map(|tree| tree.load_balancer.spec.network);
            self.failing.extend(network.map(|network| (*id, network)));
            let before = self.model.observation(*id);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let failure =
                Failure { reason: reason.to_owned(), next_attempt_at: now_ms().saturating_add(wait_ms) };
            self.model.observe(*id, Observation { failure: Some(failure), ..Observation::clone(&before) });
        }
    }
}

async fn due(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
