//! Reconcile loop: due keys, one transaction for all of them, and its outcome.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fiberlb_daemon::backoff::Backoff;
use fiberlb_northbound::Change;
use fiberlb_northbound::plan::{self, AnswerForm, Capabilities, NetworkTraits, Owner, OwnerKind};
use ovsdb::client::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::apply::{TransactionOutcome, apply};
use super::fence::{Fence, FencedOff};
use super::network::{is_answered_for, reservation};
use super::planner::{Batch, Planner, Run};
use super::purge::Purge;
use super::queue::{Queue, WorkKey};
use crate::catalog::{ModelNotice, Writer};
use crate::fleet::{self, Fleet};
use crate::metrics::Metrics;
use crate::resources::now_ms;
use crate::status::{ApplyFailure, FailureScope, Observation};

/// Pause after the fence could not be raised, or rows kept changing.
const FENCE_PAUSE: Duration = Duration::from_millis(500);

/// Settings of the reconciler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReconcileSettings {
    /// Batching window: how long a change waits for others to share its transaction with. northd pays for each
    /// transaction, not for each row.
    pub gather_ms: u64,
    /// Batching window of health flips that proxy nodes report.
    pub flip_gather_ms: u64,
    /// Most load balancers in one transaction.
    pub batch: usize,
    /// Backoff after a first failure of a load balancer, doubled with each further one.
    pub backoff_least_ms: u64,
    /// Longest backoff after a failure.
    pub backoff_most_ms: u64,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        Self { gather_ms: 5, flip_gather_ms: 25, batch: 200, backoff_least_ms: 500, backoff_most_ms: 30_000 }
    }
}

/// Consecutive misses that the replica's lag may explain.
const MISSES: u32 = 10;
/// Least wait before a run that is due by the passage of time alone.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Most repairs that are logged one by one.
const MOST_REPAIRS_NAMED: usize = 10;
/// Time in which northd and all chassis follow a change of the northbound database: as long as proxies go on serving what OVN
/// carries now.
const TAKEN_OVER: Duration = Duration::from_secs(5);

/// Bytes of `vips` above which load balancers do not share a transaction: the server sends all that one changes as one message,
/// and serves nobody else while it carries one out.
const TRANSACTION_BYTES: u64 = 16 << 20;

/// Reason why a reconciler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Stopped by its caller.
    Stopped,
    /// Leadership is lost.
    Deposed,
}

/// Decision to continue.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    Deposed,
}

/// Splits keys where their sizes would exceed `most` together. A larger one stands alone.
fn split(keys: Vec<WorkKey>, size: impl Fn(&WorkKey) -> u64, most: u64) -> Vec<Vec<WorkKey>> {
    let (mut parts, mut sum) = (vec![Vec::new()], 0_u64);
    for key in keys {
        let bytes = size(&key);
        sum = sum.saturating_add(bytes);
        match parts.last_mut() {
            Some(part) if sum <= most || part.is_empty() => part.push(key),
            _ => {
                parts.push(vec![key]);
                sum = bytes;
            }
        }
    }
    parts
}

/// Brings the northbound database in step with the model.
pub struct Reconciler {
    planner: Planner,
    /// Fencing token; `None` on a store of its own.
    fence: Option<Fence>,
    /// Last logged reason why nothing may be written.
    fenced_off: Option<String>,
    purge: Arc<Purge>,
    metrics: Arc<Metrics>,
    settings: ReconcileSettings,
    queue: Queue,
    /// Consecutive transactions whose rows had changed after planning.
    misses: u32,
    /// End of the batching window for notices of the fleet.
    flips_at: Option<Instant>,
    /// Load balancers that their network blocks, with that network: a change there may unblock them.
    blocked: HashMap<Uuid, Uuid>,
    /// Traits of networks, as their load balancers were last planned with.
    traits: HashMap<Uuid, NetworkTraits>,
    /// Load balancers that this process has found, or brought, in step with the present capabilities.
    in_step: HashSet<Uuid>,
    /// Capabilities of the last plan.
    capabilities: Capabilities,
}

impl Reconciler {
    /// A reconciler of the diffs of `planner`. `writer` removes deleted records.
    pub fn new(
        planner: Planner,
        fence: Option<Fence>,
        writer: Arc<Writer>,
        metrics: Arc<Metrics>,
        settings: ReconcileSettings,
    ) -> Self {
        let backoff = Backoff::new(
            Duration::from_millis(settings.backoff_least_ms),
            Duration::from_millis(settings.backoff_most_ms),
        );
        let (queue, blocked, traits) = (Queue::new(backoff), HashMap::new(), HashMap::new());
        Self {
            in_step: HashSet::new(),
            capabilities: Capabilities::ALL,
            planner,
            fence,
            fenced_off: None,
            misses: 0,
            purge: Arc::new(Purge::new(writer)),
            metrics,
            settings,
            queue,
            flips_at: None,
            blocked,
            traits,
        }
    }

    /// Runs until `stop` is sent or dropped, or leadership is lost. Waits for a transaction in flight.
    pub async fn run(
        self,
        events: &mut mpsc::UnboundedReceiver<Event<Change>>,
        stop: oneshot::Receiver<()>,
    ) -> Ended {
        let purge = Arc::clone(&self.purge);
        tokio::select! {
            ended = self.work(events, stop) => ended,
            // This branch never ends.
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
        let fleet = Arc::clone(&self.planner.fleet);
        self.enqueue_everything();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return Ended::Stopped,
                event = events.recv() => match event {
                    Some(event) => self.handle_event(event, &HashSet::new()),
                    None => return Ended::Stopped,
                },
                notice = notices.recv() => self.notice(&notice),
                notice = fleet_notices.recv() => self.fleet_notice(&notice),
                judged = fleet.judged() => {
                    for id in judged {
                        self.observe_verdicts(id);
                    }
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

    /// Handles a notice of the model.
    fn notice(&mut self, notice: &Result<ModelNotice, broadcast::error::RecvError>) {
        match notice {
            Ok(ModelNotice::Specification(id)) => self.enqueue(*id),
            Ok(ModelNotice::Observation(_)) | Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.enqueue_everything(),
        }
    }

    /// Handles a notice of the fleet. Verdicts on many backends come in bursts when a machine dies or
    /// returns.
    fn fleet_notice(&mut self, notice: &Result<fleet::FleetNotice, broadcast::error::RecvError>) {
        let at = self.next_flips();
        match notice {
            Ok(fleet::FleetNotice::Tree(id)) => self.queue.add(WorkKey::LoadBalancer(*id), at),
            Ok(fleet::FleetNotice::Network(switch)) => {
                self.queue.add(WorkKey::Network(*switch), at);
                for id in self.planner.fleet.trees_on(*switch) {
                    self.queue.add(WorkKey::LoadBalancer(id), at);
                }
            }
            Err(broadcast::error::RecvError::Closed) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => self.enqueue_everything(),
        }
    }

    /// Due time of a fleet notice that comes now, shared with all others of the same batching window.
    fn next_flips(&mut self) -> Instant {
        let now = Instant::now();
        let gathering = self.flips_at.filter(|at| *at > now);
        let at = gathering.unwrap_or(now + Duration::from_millis(self.settings.flip_gather_ms));
        self.flips_at = Some(at);
        at
    }

    /// Handles an event of the northbound database. Load balancers in `in_step` match it and need no run.
    fn handle_event(&mut self, event: Event<Change>, in_step: &HashSet<Uuid>) {
        match event {
            // Changes before a reload are unknown until everything is compared.
            Event::Reloaded(_) => self.enqueue_everything(),
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
                Some((OwnerKind::LoadBalancer, id)) => self.enqueue(id),
                Some((OwnerKind::Network, switch)) => self.enqueue_network(switch),
                None => {}
            },
            Change::Network { owner, network } => {
                let Some((OwnerKind::Network, switch)) = self.ours(owner) else { return };
                if !self.is_network_expected(switch, network) {
                    self.enqueue_network(switch);
                }
            }
            Change::Address { owner, port, address } => {
                let network = self.ours(owner).filter(|(kind, _)| *kind == OwnerKind::Network);
                if !network.is_some_and(|(_, switch)| self.is_address_expected(switch, *port, address)) {
                    self.changed(&Change::Owned { owner: owner.clone() }, in_step);
                }
            }
            Change::Switch { uuid } => {
                self.planner.fleet.network_changed(*uuid);
                self.enqueue_network(*uuid);
            }
            Change::Ports { switch } => self.enqueue_blocked(*switch),
            Change::Router { uuid } => {
                let switches: Vec<Uuid> =
                    plan::switches_behind(*uuid, &self.planner.northbound.read()).collect();
                for switch in switches {
                    self.planner.fleet.network_changed(switch);
                    self.enqueue_network(switch);
                }
            }
            // Its capabilities may have changed.
            Change::Northd => {
                self.planner.fleet.mark_all_dirty();
                self.enqueue_everything();
            }
        }
    }

    /// Kind and id of an owner, if it belongs to this installation.
    fn ours(&self, owner: &str) -> Option<(OwnerKind, Uuid)> {
        let owner: Owner = owner.parse().ok()?;
        (owner.installation == self.planner.installation).then_some((owner.kind, owner.id))
    }

    /// Checks an address that was added to a responder or removed from it against the desired one.
    fn is_network_expected(&self, switch: Uuid, network: &str) -> bool {
        let Some(vip) = plan::vip_of(network) else { return false };
        let capabilities = self.planner.capabilities();
        let form = capabilities.answer_form();
        let holder = self.planner.model.vip_holder(switch, vip);
        let nb = self.planner.northbound.read();
        let holder = holder.filter(|tree| self.planner.is_answered(tree, &nb, &capabilities));
        holder.is_some_and(|tree| self.planner.is_address(&tree, vip, form, &nb))
            == plan::is_address(self.planner.installation, switch, vip, &nb)
    }

    /// Checks an element of the addresses of a network's port that was added or removed against the desired one.
    fn is_address_expected(&self, switch: Uuid, port: Uuid, address: &str) -> bool {
        let Some(vip) = plan::vips_of(address).first().copied() else { return false };
        let capabilities = self.planner.capabilities();
        let by_rows = capabilities.answer_form() == AnswerForm::Rows;
        let holder = self.planner.model.vip_holder(switch, vip).filter(|_| by_rows);
        let nb = self.planner.northbound.read();
        let holder = holder.filter(|tree| self.planner.is_answered(tree, &nb, &capabilities));
        let installation = self.planner.installation;
        let is_wanted = holder.is_some_and(|tree| reservation(&tree, installation).is_kept_as(address, &nb));
        // Where several load balancers leave at once, a port shows that it is empty.
        let row = nb.logical_switch_port.get(&port).filter(|row| !row.addresses.is_empty());
        row.is_some_and(|row| row.addresses.contains(address) == is_wanted)
    }

    /// Enqueues the shared rows of a network, and the load balancers that it blocks.
    fn enqueue_network(&mut self, switch: Uuid) {
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
        self.queue.add(WorkKey::Network(switch), Instant::now() + self.gather());
        self.enqueue_blocked(switch);
    }

    /// Enqueues the load balancers that a network blocks.
    fn enqueue_blocked(&mut self, switch: Uuid) {
        let blocked = self.blocked.iter().filter(|(_, network)| **network == switch);
        for id in blocked.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: Uuid) {
        self.queue.add(WorkKey::LoadBalancer(id), Instant::now() + self.gather());
    }

    fn gather(&self) -> Duration {
        Duration::from_millis(self.settings.gather_ms)
    }

    /// Enqueues everything that is stored, and all rows of this installation: rows without a stored owner are
    /// removed by a run with an empty desired state. The model is complete from the start, so nothing is
    /// removed by mistake.
    fn enqueue_everything(&mut self) {
        let now = Instant::now();
        for key in self.planner.everything() {
            self.queue.add(key, now);
        }
    }

    /// Processes due keys, provided this plugin holds the fencing token.
    async fn due(&mut self, events: &mut mpsc::UnboundedReceiver<Event<Change>>) -> Go {
        if let Some(fence) = &mut self.fence {
            match fence.raise(&self.planner.northbound).await {
                Ok(()) => {}
                Err(FencedOff::Deposed) => return Go::Deposed,
                Err(error) => {
                    let error = error.to_string();
                    if self.fenced_off.as_ref() != Some(&error) {
                        tracing::warn!(error, "cannot write to OVN; retrying");
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

    /// Applies all due keys in one transaction, or in several where it would be long. A refused one is retried in halves, until the guilty keys
    /// stand alone.
    #[tracing::instrument(name = "reconcile", skip_all, fields(keys = tracing::field::Empty, key = tracing::field::Empty))]
    async fn batch(&mut self, events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
        // Keys that came during the batching window are included.
        let due = Instant::now() + self.gather();
        let model = &self.planner.model;
        let bytes = |key: &WorkKey| match key {
            WorkKey::LoadBalancer(id) => model.vips_bytes_of(*id),
            WorkKey::Network(_) => 0,
        };
        let mut parts = split(self.queue.take(due, self.settings.batch), bytes, TRANSACTION_BYTES);
        parts.reverse();
        record_pass(&parts);
        while let Some(keys) = parts.pop() {
            let capabilities = self.planner.capabilities();
            if capabilities != self.capabilities {
                // All rows are to be of another form: that nobody else has changed them.
                self.in_step.clear();
                self.capabilities = capabilities;
            }
            let mut batch = self.planner.plan(&keys);
            self.log_repairs(&batch);
            let steps = std::mem::take(&mut batch.steps);
            let started = Instant::now();
            let outcome = apply(&self.planner.northbound, self.fence.as_ref(), steps).await;
            self.metrics.transaction(outcome.label(), batch.runs.len(), started.elapsed());
            match outcome {
                TransactionOutcome::InStep => self.done(batch),
                TransactionOutcome::Committed => {
                    self.misses = 0;
                    self.drain_events(&batch, events);
                    let moving = std::mem::take(&mut batch.moving);
                    self.done(batch);
                    for switch in moving {
                        self.enqueue_network(switch);
                    }
                }
                TransactionOutcome::Missed => {
                    self.misses = self.misses.saturating_add(1);
                    self.requeue(keys);
                    if self.misses > MISSES {
                        // The replica lags, or another client writes to our rows.
                        tracing::warn!(
                            misses = self.misses,
                            "rows keep changing between plan and transaction; planning again"
                        );
                        tokio::time::sleep(FENCE_PAUSE).await;
                    }
                }
                TransactionOutcome::NotConnected => {
                    self.requeue(keys);
                    self.requeue(parts.into_iter().flatten());
                    return;
                }
                TransactionOutcome::Unknown(reason) => {
                    tracing::warn!(
                        reason,
                        keys = keys.len(),
                        "transaction outcome unknown; planning again from the database"
                    );
                    if let Some(fence) = &mut self.fence {
                        fence.abandon();
                    }
                    self.requeue(keys);
                    self.requeue(parts.into_iter().flatten());
                    return;
                }
                TransactionOutcome::Refused(reason) if keys.len() == 1 => {
                    self.refused(&batch, &keys, &reason);
                }
                TransactionOutcome::Refused(reason) => {
                    tracing::warn!(
                        reason,
                        keys = keys.len(),
                        "northbound database refused a transaction; retrying in halves"
                    );
                    let (first, second) = keys.split_at(keys.len() / 2);
                    parts.push(second.to_vec());
                    parts.push(first.to_vec());
                }
            }
        }
    }

    /// Handles the events of a committed transaction. A load balancer that matches its desired rows needs no
    /// other run.
    fn drain_events(&mut self, batch: &Batch, events: &mut mpsc::UnboundedReceiver<Event<Change>>) {
        // The replica is updated before its event is sent: with events taken first and rows compared then,
        // nothing is missed.
        let heard: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).collect();
        let in_step = self.planner.in_step(batch);
        for event in heard {
            self.handle_event(event, &in_step);
        }
    }

    fn requeue(&mut self, keys: impl IntoIterator<Item = WorkKey>) {
        let soon = Instant::now() + self.gather();
        for key in keys {
            self.queue.add(key, soon);
        }
    }

    /// Logs load balancers that were in step until another client changed their rows.
    fn log_repairs(&self, batch: &Batch) {
        let changed: Vec<Uuid> =
            batch.runs.iter().filter(|run| self.was_in_step(run)).map(|run| run.id).collect();
        self.metrics.repairs.inc_by(u64::try_from(changed.len()).unwrap_or_default());
        const WORDS: &str = "rows changed or deleted by another client; repairing them";
        if changed.len() > MOST_REPAIRS_NAMED {
            tracing::warn!(load_balancers = changed.len(), "{WORDS}");
            return;
        }
        for load_balancer in changed {
            tracing::warn!(%load_balancer, "{WORDS}");
        }
    }

    /// True for a load balancer with missing rows that was in step before, and whose desired state has not
    /// changed since.
    fn was_in_step(&self, run: &Run) -> bool {
        let seen = self.planner.model.observation(run.id);
        let is_of_this_form = self.in_step.contains(&run.id);
        run.steps > 0
            && is_of_this_form
            && self.is_applied(run)
            && seen.failure.is_none()
            && *seen.carried == run.carried
    }

    /// True if the tree of a run was applied before.
    fn is_applied(&self, run: &Run) -> bool {
        let seen = self.planner.model.observation(run.id);
        let trees = run.tree.as_ref().zip(seen.applied.as_ref());
        trees.is_some_and(|(tree, applied)| Arc::ptr_eq(tree, applied))
    }

    /// Records that everything in `batch` is applied.
    fn done(&mut self, batch: Batch) {
        self.compare_traits(&batch.traits);
        for switch in batch.networks {
            self.queue.succeeded(WorkKey::Network(switch));
        }
        for (id, obstacle) in batch.obstructed {
            self.failed(&WorkKey::LoadBalancer(id), &obstacle.reason, obstacle.scope);
            let network = self.planner.model.tree(id).map(|tree| tree.load_balancer.spec.network);
            self.blocked.extend(network.map(|network| (id, network)));
        }
        for run in batch.runs {
            self.queue.succeeded(WorkKey::LoadBalancer(run.id));
            self.blocked.remove(&run.id);
            self.enqueue_chained(&run);
            if run.tree.as_ref().is_some_and(|tree| !tree.load_balancer.deleting) {
                self.in_step.insert(run.id);
            } else {
                self.in_step.remove(&run.id);
            }
            let Some(tree) = run.tree else { continue };
            if tree.has_deleted() {
                self.purge.add(Arc::clone(&tree));
            }
            if tree.load_balancer.deleting {
                // Nobody needs to know more of it: it goes from the store now.
                continue;
            }
            if let Some(at) = run.carried.view.look_again {
                // The clock of the nodes may be paused.
                let at = Instant::from_std(at).max(Instant::now() + LOOK_AGAIN);
                self.queue.add(WorkKey::LoadBalancer(run.id), at);
            }
            let before = self.planner.model.observation(run.id);
            let carried = Arc::new(run.carried);
            let after = Observation { applied: Some(tree), carried, ..Observation::default() };
            let is_relieved = before.relieves_proxies(&after);
            self.planner.model.observe(run.id, after);
            if is_relieved {
                relieve_proxies(Arc::clone(&self.planner.fleet), run.id);
            }
        }
    }

    /// Enqueues the load balancers whose backends are VIPs of one that has come, goes, or has given its VIPs to nodes or taken them
    /// back.
    fn enqueue_chained(&mut self, run: &Run) {
        let Some(tree) = run.tree.as_ref().filter(|_| run.steps > 0) else { return };
        let before = self.planner.model.observation(run.id).applied.clone();
        if before.is_none_or(|before| is_answered_for(&before) != is_answered_for(tree)) {
            for id in self.planner.chained_to(tree) {
                self.enqueue(id);
            }
        }
    }

    /// Puts the current verdicts on a load balancer's backends into its observation. Without one they come with
    /// its first run.
    fn observe_verdicts(&self, id: Uuid) {
        let model = &self.planner.model;
        let before = model.observation(id);
        let Some(tree) = model.tree(id).filter(|_| before.applied.is_some() || before.failure.is_some())
        else {
            return;
        };
        let mut observation = Observation::clone(&before);
        let view = &mut Arc::make_mut(&mut observation.carried).view;
        view.verdicts = self.planner.fleet.verdicts_on(&tree);
        view.inconclusive = self.planner.fleet.inconclusive_on(&tree);
        view.ejections = self.planner.fleet.ejections_on(&tree);
        model.observe(id, observation);
    }

    /// Records that what one key asks for was refused.
    fn refused(&mut self, batch: &Batch, keys: &[WorkKey], reason: &str) {
        for key in keys {
            let run = batch.runs.iter().find(|run| *key == WorkKey::LoadBalancer(run.id));
            // Rows of what is applied already are missing, and cannot be put right.
            let is_repair = run.is_some_and(|run| self.is_applied(run));
            let scope = if is_repair { FailureScope::Tree } else { FailureScope::Changes };
            self.failed(key, reason, scope);
        }
    }

    fn failed(&mut self, key: &WorkKey, reason: &str, scope: FailureScope) {
        let wait = self.queue.failed(*key, Instant::now());
        tracing::warn!(?key, reason, ?wait, "failed to apply desired state; retrying");
        let WorkKey::LoadBalancer(id) = key else { return };
        self.blocked.remove(id);
        let before = self.planner.model.observation(*id);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let next_attempt_at = now_ms().saturating_add(wait_ms);
        let failure = ApplyFailure { reason: reason.to_owned(), next_attempt_at, scope };
        self.planner
            .model
            .observe(*id, Observation { failure: Some(failure), ..Observation::clone(&before) });
    }

    /// Enqueues the load balancers on networks whose traits are others than those that they were planned with.
    fn compare_traits(&mut self, seen: &HashMap<Uuid, NetworkTraits>) {
        for (network, traits) in seen {
            if !self.planner.model.has_vips(*network) {
                self.traits.remove(network);
                continue;
            }
            let before = self.traits.insert(*network, *traits);
            if before.is_none_or(|before| before == *traits) {
                continue;
            }
            let on: HashSet<Uuid> = self.planner.model.vips_on(*network).into_values().collect();
            on.into_iter().for_each(|id| self.enqueue(id));
        }
    }
}

/// Names the keys of a pass in its span: their number, and the key if it is one.
fn record_pass(parts: &[Vec<WorkKey>]) {
    let span = tracing::Span::current();
    span.record("keys", parts.iter().map(Vec::len).sum::<usize>());
    if let [keys] = parts
        && let [key] = keys.as_slice()
    {
        span.record("key", tracing::field::debug(key));
    }
}

async fn due(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Has proxies let go of a tree that OVN has taken over, once northd and all chassis have followed. Earlier calls for the same tree, as
/// after a change of it, do so at once.
fn relieve_proxies(fleet: Arc<Fleet>, tree: Uuid) {
    tokio::spawn(async move {
        tokio::time::sleep(TAKEN_OVER).await;
        fleet.tree_changed(tree);
    });
}

#[cfg(test)]
mod tests;
