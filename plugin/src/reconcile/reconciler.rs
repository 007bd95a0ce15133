//! The loop: what is due, one transaction for all of it, what came of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_ovn::nb::{Change, LoadBalancerGroup, Northbound};
use fiberlb_ovn::ovsdb::client::{Client, Event};
use fiberlb_ovn::plan::{
    self, Capabilities, Desired, Installation, Network, Owner, OwnerKind, Step, StepOperation, Topology,
};
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::apply::{Outcome, apply};
use super::desired::{obstacle, wish};
use super::network::{founds_or_ends_network, is_answered_for};
use super::queue::{Backoff, Key, Queue};
use super::{Carried, Failure, Observation};
use crate::api::Writer;
use crate::fleet::{self, Fleet};
use crate::metrics::Metrics;
use crate::model::{Model, Notice};
use crate::resources::{LoadBalancer, Tree, now_ms};

/// Settings of the reconciler.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long the first change waits for others to share its transaction with, in milliseconds, default 5. northd pays
    /// for each transaction, not for each row.
    pub gather_ms: u64,
    /// How long the first health flip waits for others to share its transaction with, in milliseconds, default 25.
    pub flip_gather_ms: u64,
    /// Most load balancers in one transaction, default 200.
    pub batch: usize,
    /// Wait after a first failure, in milliseconds, default 500; doubled with each further one.
    pub backoff_least_ms: u64,
    /// Longest wait after a failure, in milliseconds, default 30000.
    pub backoff_most_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { gather_ms: 5, flip_gather_ms: 25, batch: 200, backoff_least_ms: 500, backoff_most_ms: 30_000 }
    }
}

/// Brings the northbound database in step with the model.
pub struct Reconciler {
    installation: Installation,
    model: Arc<Model>,
    northbound: Client<Northbound>,
    writer: Arc<Writer>,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    settings: Settings,
    queue: Queue,
    /// When what the fleet said last is carried out.
    flips_at: Option<Instant>,
    /// Load balancers whose last attempt failed, with their networks: what changes there may be what they wait for.
    failing: HashMap<Uuid, Uuid>,
}

/// One load balancer in a batch.
struct Run {
    id: Uuid,
    tree: Option<Arc<Tree>>,
    /// What it asks of OVN.
    rows: Desired,
    carried: Carried,
}

/// A batch that is ready to be sent.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    runs: Vec<Run>,
    obstructed: Vec<(Uuid, String)>,
}

impl Reconciler {
    /// A reconciler of what `model` and `fleet` show into `northbound`. `writer` is where deleted records go for good.
    pub fn new(
        installation: Installation,
        model: Arc<Model>,
        northbound: Client<Northbound>,
        writer: Arc<Writer>,
        fleet: Arc<Fleet>,
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
            fleet,
            metrics,
            settings,
            queue: Queue::new(backoff),
            flips_at: None,
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
        let mut fleet_notices = self.fleet.subscribe();
        self.look_at_everything();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return,
                event = events.recv() => match event {
                    Some(event) => self.hear(event, &HashSet::new()),
                    None => return,
                },
                notice = notices.recv() => self.notice(&notice),
                notice = fleet_notices.recv() => self.fleet_notice(&notice),
                () = due(self.queue.next()), if self.is_live() => self.batch(&mut events).await,
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

    /// What the fleet says. Verdicts on many backends come within a short time when a machine dies or returns.
    fn fleet_notice(&mut self, notice: &Result<fleet::Notice, broadcast::error::RecvError>) {
        let at = self.next_flips();
        match notice {
            Ok(fleet::Notice::Tree(id)) => self.queue.add(Key::LoadBalancer(*id), at),
            Ok(fleet::Notice::Network(switch)) => {
                self.queue.add(Key::Network(*switch), at);
                for id in self.fleet.trees_on(*switch) {
                    self.queue.add(Key::LoadBalancer(id), at);
                }
            }
            Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_everything(),
        }
    }

    /// When what the fleet says now is carried out: with all that it has said since the last time.
    fn next_flips(&mut self) -> Instant {
        let now = Instant::now();
        let gathering = self.flips_at.filter(|at| *at > now);
        let at = gathering.unwrap_or(now + Duration::from_millis(self.settings.flip_gather_ms));
        self.flips_at = Some(at);
        at
    }

    /// What the northbound database says. Load balancers that are known to be `in_step` with it need no run.
    fn hear(&mut self, event: Event<Change>, in_step: &HashSet<Uuid>) {
        match event {
            // What the database held while nobody looked is unknown until it is compared.
            Event::Reloaded(_) => self.look_at_everything(),
            Event::Changed(changes) => {
                for change in changes {
                    self.changed(&change, in_step);
                }
            }
            Event::Disconnected => {}
        }
    }

    fn changed(&mut self, change: &Change, in_step: &HashSet<Uuid>) {
        match change {
            Change::Owned { owner } => match self.ours(owner) {
                Some((OwnerKind::LoadBalancer, id)) if in_step.contains(&id) => {}
                Some((OwnerKind::LoadBalancer, id)) => self.soon(id),
                Some((OwnerKind::Network, switch)) => self.network_soon(switch),
                None => {}
            },
            Change::Network { owner, network } => {
                let Some((OwnerKind::Network, switch)) = self.ours(owner) else { return };
                if !self.is_as_it_should(switch, network) {
                    self.network_soon(switch);
                }
            }
            Change::Switch { uuid } => {
                self.fleet.network_changed(*uuid);
                self.network_soon(*uuid);
            }
            Change::Ports { switch } => self.failing_soon(*switch),
            Change::Router { uuid } => {
                let switches: Vec<Uuid> = plan::switches_behind(*uuid, &self.northbound.read()).collect();
                for switch in switches {
                    self.fleet.network_changed(switch);
                    self.network_soon(switch);
                }
            }
        }
    }

    /// What an owner is, if it is one of this installation.
    fn ours(&self, owner: &str) -> Option<(OwnerKind, Uuid)> {
        let owner: Owner = owner.parse().ok()?;
        (owner.installation == self.installation).then_some((owner.kind, owner.id))
    }

    /// Whether a network that came to a responder, or left it, should have.
    fn is_as_it_should(&self, switch: Uuid, network: &str) -> bool {
        let Some(vip) = plan::vip_of(network) else { return false };
        let holder = self.model.vip_holder(switch, vip);
        holder.is_some_and(|tree| is_answered_for(&tree))
            == plan::is_answered(self.installation, switch, vip, &self.northbound.read())
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
    async fn batch(&mut self, events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
        // What came while the first one waited goes with it.
        let due = Instant::now() + self.gather();
        let mut parts = vec![self.queue.take(due, self.settings.batch)];
        while let Some(keys) = parts.pop() {
            let mut batch = self.plan(&keys);
            let steps = std::mem::take(&mut batch.steps);
            let started = Instant::now();
            let outcome = apply(&self.northbound, steps).await;
            self.metrics.transaction(outcome.label(), batch.runs.len(), started.elapsed());
            match outcome {
                Outcome::InStep => self.done(batch).await,
                Outcome::Committed => {
                    self.hear_of(&batch, events);
                    self.done(batch).await;
                }
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

    /// Hears what the database tells of a transaction that was committed. A load balancer that has all that it asks for
    /// needs no other run.
    fn hear_of(&mut self, batch: &Batch, events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
        // The replica shows what is told before it is told: heard first and compared then, nothing is missed.
        let heard: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        let in_step = self.in_step(batch);
        for event in heard {
            self.hear(event, &in_step);
        }
    }

    fn in_step(&self, batch: &Batch) -> HashSet<Uuid> {
        let nb = self.northbound.read();
        let has_all =
            |run: &&Run| plan::diff(self.installation.load_balancer(run.id), &run.rows, &nb).is_empty();
        batch.runs.iter().filter(has_all).map(|run| run.id).collect()
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
            let founds = |tree: &&Arc<Tree>| founds_or_ends_network(tree, self.group_of(tree, &nb));
            networks.extend(tree.iter().filter(founds).map(|tree| tree.load_balancer.spec.network));
            let stop = tree.as_ref().and_then(|tree| obstacle(tree, self.installation, &nb, &capabilities));
            if let Some(reason) = stop {
                batch.obstructed.push((id, reason));
                continue;
            }
            let wish = tree.as_ref().map(|tree| {
                wish(tree, self.fleet.view(tree, &capabilities), &nb, self.installation, &capabilities)
            });
            let wish = wish.unwrap_or_default();
            batch.steps.extend(plan::diff(self.installation.load_balancer(id), &wish.rows, &nb));
            batch.steps.extend(tree.iter().flat_map(|tree| self.answer(tree, &nb)));
            batch.runs.push(Run { id, tree, rows: wish.rows, carried: wish.carried });
        }
        for switch in networks {
            batch.steps.extend(self.shared(switch, &nb, &capabilities));
        }
        batch
    }

    fn group_of<'a>(&self, tree: &Tree, nb: &'a Northbound) -> Option<&'a LoadBalancerGroup> {
        nb.load_balancer_group.get(&Network::group(self.installation, tree.load_balancer.spec.network))
    }

    /// What is missing for the network's responder to answer for a load balancer, or to answer no more.
    fn answer(&self, tree: &Tree, nb: &Northbound) -> Vec<Step> {
        let LoadBalancer { network, vips, .. } = &tree.load_balancer.spec;
        let way = if is_answered_for(tree) { StepOperation::Insert } else { StepOperation::Delete };
        plan::answer(self.installation, *network, way, vips, nb)
    }

    /// What is missing of the rows that the load balancers on one switch share.
    fn shared(&self, switch: Uuid, nb: &Northbound, capabilities: &Capabilities) -> Vec<Step> {
        let topology = Topology::of(switch, nb).unwrap_or_default();
        let exists = nb.logical_switch.get(&switch).is_some();
        let mut vips: BTreeSet<IpAddr> = BTreeSet::new();
        for (vip, id) in self.model.vips_on(switch) {
            let serves = self.model.tree(id).is_some_and(|tree| {
                is_answered_for(&tree) && obstacle(&tree, self.installation, nb, capabilities).is_none()
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
            node_ports: if exists { self.fleet.node_ports(switch) } else { Vec::new() },
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
            if let Some(at) = run.carried.view.look_again {
                self.queue.add(Key::LoadBalancer(run.id), at);
            }
            let carried = Arc::new(run.carried);
            self.model.observe(run.id, Observation { applied: Some(tree), carried, failure: None });
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
