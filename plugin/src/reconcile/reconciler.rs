//! The loop: what is due, one transaction for all of it, what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_ovn::nb::Change;
use fiberlb_ovn::ovsdb::client::Event;
use fiberlb_ovn::plan::{self, Owner, OwnerKind};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use super::apply::{Outcome, apply};
use super::fence::{Fence, FencedOff};
use super::network::is_answered_for;
use super::planner::{Batch, Planner, Run};
use super::purge::Purge;
use super::queue::{Backoff, Key, Queue};
use crate::catalog::{Notice, Writer};
use crate::fleet;
use crate::metrics::Metrics;
use crate::resources::now_ms;
use crate::status::{Failure, Observation};

/// Wait before another look at who may write.
const FENCE_PAUSE: Duration = Duration::from_millis(500);

/// Settings of the reconciler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// So many in a row may be the replica's delay.
const MISSES: u32 = 10;
/// Least wait before time alone is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Most repairs that are told one by one.
const MOST_REPAIRS_NAMED: usize = 10;

/// Why a reconciler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Another plugin leads.
    Deposed,
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Deposed,
}

/// Brings the northbound database in step with the model.
pub struct Reconciler {
    planner: Planner,
    /// `None` where no other plugin can be on the store.
    fence: Option<Fence>,
    /// What was said last of why nothing may be written.
    fenced_off: Option<String>,
    purge: Arc<Purge>,
    /// Load balancers whose deleted records could not be removed from the store.
    unpurged: mpsc::UnboundedReceiver<Uuid>,
    metrics: Arc<Metrics>,
    settings: Settings,
    queue: Queue,
    /// Transactions in a row that met other rows than were seen.
    misses: u32,
    /// When what the fleet said last is carried out.
    flips_at: Option<Instant>,
    /// Load balancers whose last attempt failed, with their networks: what changes there may be what they wait for.
    failing: HashMap<Uuid, Uuid>,
}

impl Reconciler {
    /// A reconciler of what `planner` finds missing. `writer` is where deleted records go for good.
    pub fn new(
        planner: Planner,
        fence: Option<Fence>,
        writer: Arc<Writer>,
        metrics: Arc<Metrics>,
        settings: Settings,
    ) -> Self {
        let backoff = Backoff {
            least: Duration::from_millis(settings.backoff_least_ms),
            most: Duration::from_millis(settings.backoff_most_ms),
        };
        let (queue, failing) = (Queue::new(backoff), HashMap::new());
        let (purge, unpurged) = Purge::new(writer);
        Self {
            planner,
            fence,
            fenced_off: None,
            misses: 0,
            purge: Arc::new(purge),
            unpurged,
            metrics,
            settings,
            queue,
            flips_at: None,
            failing,
        }
    }

    /// Runs until `stop` is told or dropped, or another plugin leads. A transaction in flight is waited for.
    pub async fn run(
        self,
        events: &mut mpsc::UnboundedReceiver<Event<Change>>,
        stop: oneshot::Receiver<()>,
    ) -> Ended {
        let purge = Arc::clone(&self.purge);
        tokio::select! {
            ended = self.work(events, stop) => ended,
            // It never ends.
            () = purge.run() => Ended::Stopped,
        }
    }

    async fn work(
        mut self,
        events: &mut mpsc::UnboundedReceiver<Event<Change>>,
        mut stop: oneshot::Receiver<()>,
    ) -> Ended {
        let mut notices = self.planner.model.subscribe();
        let mut fleet_notices = self.planner.fleet.subscribe();
        self.look_at_everything();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return Ended::Stopped,
                event = events.recv() => match event {
                    Some(event) => self.hear(event, &HashSet::new()),
                    None => return Ended::Stopped,
                },
                notice = notices.recv() => self.notice(&notice),
                notice = fleet_notices.recv() => self.fleet_notice(&notice),
                Some(id) = self.unpurged.recv() => {
                    self.queue.failed(Key::LoadBalancer(id), Instant::now());
                }
                () = due(self.queue.next()), if self.is_live() => {
                    if self.due(events).await == Go::Deposed {
                        return Ended::Deposed;
                    }
                }
            }
            self.metrics.queue_length.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
        }
    }

    fn is_live(&self) -> bool {
        self.planner.northbound.is_live()
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
                for id in self.planner.fleet.trees_on(*switch) {
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
                self.planner.fleet.network_changed(*uuid);
                self.network_soon(*uuid);
            }
            Change::Ports { switch } => self.failing_soon(*switch),
            Change::Router { uuid } => {
                let switches: Vec<Uuid> =
                    plan::switches_behind(*uuid, &self.planner.northbound.read()).collect();
                for switch in switches {
                    self.planner.fleet.network_changed(switch);
                    self.network_soon(switch);
                }
            }
            // It may be able to do more, or less.
            Change::Northd => {
                self.planner.fleet.look_at_everything();
                self.look_at_everything();
            }
        }
    }

    /// What an owner is, if it is one of this installation.
    fn ours(&self, owner: &str) -> Option<(OwnerKind, Uuid)> {
        let owner: Owner = owner.parse().ok()?;
        (owner.installation == self.planner.installation).then_some((owner.kind, owner.id))
    }

    /// Whether a network that came to a responder, or left it, should have.
    fn is_as_it_should(&self, switch: Uuid, network: &str) -> bool {
        let Some(vip) = plan::vip_of(network) else { return false };
        let holder = self.planner.model.vip_holder(switch, vip);
        holder.is_some_and(|tree| is_answered_for(&tree))
            == plan::is_answered(self.planner.installation, switch, vip, &self.planner.northbound.read())
    }

    /// What a network shares, and those of its load balancers that something stood in the way of.
    fn network_soon(&mut self, switch: Uuid) {
        if !self.planner.model.has_vips(switch)
            && self
                .planner
                .northbound
                .read()
                .owned(&self.planner.installation.network(switch).to_string())
                .next()
                .is_none()
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
        for key in self.planner.everything() {
            self.queue.add(key, now);
        }
    }

    /// What is due, if this plugin may write.
    async fn due(&mut self, events: &mut mpsc::UnboundedReceiver<Event<Change>>) -> Go {
        if let Some(fence) = &mut self.fence {
            match fence.raise(&self.planner.northbound).await {
                Ok(()) => {}
                Err(FencedOff::Deposed) => return Go::Deposed,
                Err(error) => {
                    let error = error.to_string();
                    if self.fenced_off.as_ref() != Some(&error) {
                        tracing::warn!(error, "nothing can be carried out in OVN; trying again");
                        self.fenced_off = Some(error);
                    }
                    tokio::time::sleep(FENCE_PAUSE).await;
                    return Go::On;
                }
            }
            self.fenced_off = None;
        }
        self.batch(events).await;
        Go::On
    }

    /// One transaction for all that is due. Where it is refused, halves of it, until the guilty ones stand alone.
    async fn batch(&mut self, events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
        // What came while the first one waited goes with it.
        let due = Instant::now() + self.gather();
        let mut parts = vec![self.queue.take(due, self.settings.batch)];
        while let Some(keys) = parts.pop() {
            let mut batch = self.planner.plan(&keys);
            self.note_repairs(&batch);
            let steps = std::mem::take(&mut batch.steps);
            let started = Instant::now();
            let outcome = apply(&self.planner.northbound, self.fence.as_ref(), steps).await;
            self.metrics.transaction(outcome.label(), batch.runs.len(), started.elapsed());
            match outcome {
                Outcome::InStep => self.done(batch),
                Outcome::Committed => {
                    self.misses = 0;
                    self.hear_of(&batch, events);
                    self.done(batch);
                }
                Outcome::Missed => {
                    self.misses = self.misses.saturating_add(1);
                    self.again(keys);
                    if self.misses > MISSES {
                        // The replica must be behind, or somebody writes against us.
                        tracing::warn!(
                            misses = self.misses,
                            "rows are not as they were seen, time and again; looking again"
                        );
                        tokio::time::sleep(FENCE_PAUSE).await;
                    }
                }
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
                    if let Some(fence) = &mut self.fence {
                        fence.abandon();
                    }
                    self.again(keys);
                    self.again(parts.into_iter().flatten());
                    return;
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
        let in_step = self.planner.in_step(batch);
        for event in heard {
            self.hear(event, &in_step);
        }
    }

    fn again(&mut self, keys: impl IntoIterator<Item = Key>) {
        let soon = Instant::now() + self.gather();
        for key in keys {
            self.queue.add(key, soon);
        }
    }

    /// Says what somebody else has changed of rows that were as they should be.
    fn note_repairs(&self, batch: &Batch) {
        let changed: Vec<Uuid> =
            batch.runs.iter().filter(|run| self.was_as_it_should(run)).map(|run| run.id).collect();
        self.metrics.repairs.inc_by(u64::try_from(changed.len()).unwrap_or_default());
        const WORDS: &str =
            "somebody else changed or deleted rows in the northbound database; putting them right";
        if changed.len() > MOST_REPAIRS_NAMED {
            tracing::warn!(load_balancers = changed.len(), "{WORDS}");
            return;
        }
        for load_balancer in changed {
            tracing::warn!(%load_balancer, "{WORDS}");
        }
    }

    /// Whether a load balancer that lacks something had all of it, and nothing else is asked of it since.
    fn was_as_it_should(&self, run: &Run) -> bool {
        let seen = self.planner.model.observation(run.id);
        let is_applied = run
            .tree
            .as_ref()
            .zip(seen.applied.as_ref())
            .is_some_and(|(tree, applied)| Arc::ptr_eq(tree, applied));
        run.steps > 0 && is_applied && seen.failure.is_none() && *seen.carried == run.carried
    }

    /// Everything in `batch` is in the database.
    fn done(&mut self, batch: Batch) {
        for (id, reason) in batch.obstructed {
            self.failed(&[Key::LoadBalancer(id)], &reason);
        }
        for run in batch.runs {
            self.queue.succeeded(Key::LoadBalancer(run.id));
            self.failing.remove(&run.id);
            let Some(tree) = run.tree else { continue };
            if tree.has_deleted() {
                self.purge.add(Arc::clone(&tree));
            }
            if let Some(at) = run.carried.view.look_again {
                // The clock of the nodes may stand still.
                let at = at.max(Instant::now() + LOOK_AGAIN);
                self.queue.add(Key::LoadBalancer(run.id), at);
            }
            let carried = Arc::new(run.carried);
            self.planner.model.observe(run.id, Observation { applied: Some(tree), carried, failure: None });
        }
    }

    fn failed(&mut self, keys: &[Key], reason: &str) {
        for key in keys {
            let wait = self.queue.failed(*key, Instant::now());
            tracing::warn!(?key, reason, ?wait, "could not be carried out; trying again");
            let Key::LoadBalancer(id) = key else { continue };
            let network = self.planner.model.tree(*id).map(|tree| tree.load_balancer.spec.network);
            self.failing.extend(network.map(|network| (*id, network)));
            let before = self.planner.model.observation(*id);
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let failure =
                Failure { reason: reason.to_owned(), next_attempt_at: now_ms().saturating_add(wait_ms) };
            self.planner
                .model
                .observe(*id, Observation { failure: Some(failure), ..Observation::clone(&before) });
        }
    }
}

async fn due(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
