//! The checker without its thread: schedule, probes, verdicts. Reads no clock: `now` is a parameter.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::Span;

use super::attempt::TICK;
use super::checker::CheckerConfig;
use super::metrics::{HealthCounters, increment, set};
use super::observe::{Flip, TargetState, Thresholds, observe};
use super::outcome::{NodeFailure, ProbeOutcome, good_text};
use super::pace;
use super::prober::{EndedProbe, Prober};
use super::report::{BackendCheck, InconclusiveCheck, Report, TargetKey, Targets, Verdict, VerdictSnapshot};
use super::schedule::{Id, Schedule};
use super::table::{Table, TargetEntry};
use super::trace;
use crate::shortage::Shortages;

/// Delay of a probe's start above which it counts as late.
const LATE: Duration = Duration::from_millis(100);

/// Most probes that start in one tick: 10,000 a second. A backlog from a time in which the process was
/// stopped must not reach the network, and the backends' queues, all at once.
const BURST: usize = 100;

/// Interval at which unneeded sockets are closed.
const TRIM: Duration = Duration::from_secs(30);

/// All of the checker but its thread.
pub(super) struct Engine<R> {
    table: Table,
    schedule: Schedule,
    prober: Prober,
    counters: Arc<HealthCounters>,
    shortages: Arc<Shortages>,
    random: fastrand::Rng,
    report: R,
    sequence: u64,
    trimmed: Instant,
    // Reused buffers.
    started: Vec<(Id, Instant)>,
    ended: Vec<EndedProbe>,
}

impl<R: FnMut(Report)> Engine<R> {
    /// An engine without targets.
    pub(super) fn new(config: CheckerConfig, counters: Arc<HealthCounters>, report: R, now: Instant) -> Self {
        Self {
            table: Table::default(),
            schedule: Schedule::new(config.max_in_flight),
            prober: Prober::new(),
            counters,
            shortages: config.shortages,
            random: fastrand::Rng::new(),
            report,
            sequence: 0,
            trimmed: now,
            started: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Replaces the targets.
    pub(super) fn apply(&mut self, targets: Targets, now: Instant) {
        let changes = self.table.replace(targets.targets, SystemTime::now());
        for (id, entry) in &changes.removed {
            self.prober.abort(*id);
            self.schedule.remove(*id);
            self.counters.left(entry.state);
        }
        for id in self.prober.set_networks(&targets.networks) {
            self.schedule.ended(id, now);
        }
        self.add(&changes.added, now);
        for (id, backends) in changes.joined {
            let Some(entry) = self.table.get(id) else { continue };
            let doubt = entry.doubt.reason().is_some().then(|| doubt(entry, backends.clone()));
            let verdict = verdict(entry, backends, 0);
            verdict.into_iter().for_each(|verdict| self.send(verdict));
            doubt.into_iter().for_each(|doubt| (self.report)(Report::Inconclusive(doubt)));
        }
        self.update_gauges();
    }

    /// Polls and starts the probes that are due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.poll(now);
        self.start(now);
        if now >= self.trimmed + TRIM {
            self.trimmed = now;
            self.prober.trim();
        }
        self.update_gauges();
    }

    /// Time of the next call of `tick`, at the earliest a tick from now. None without targets.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.prober.next_poll().into_iter().chain(self.schedule.next_due()).min();
        due.map(|due| due.max(now + TICK))
    }

    /// All verdicts.
    pub(super) fn snapshot(&self) -> VerdictSnapshot {
        let verdicts =
            self.table.entries().filter_map(|entry| verdict(entry, entry.backends.clone(), self.sequence));
        VerdictSnapshot { sequence: self.sequence, verdicts: verdicts.collect() }
    }

    /// The first backends by id, at most `most`.
    pub(super) fn backends(&self, most: usize) -> Vec<BackendCheck> {
        let mut all: Vec<_> = self.table.entries().flat_map(checks).collect();
        all.sort_unstable_by_key(|check| check.backend);
        all.truncate(most);
        all
    }

    fn add(&mut self, added: &[Id], now: Instant) {
        for (index, id) in added.iter().enumerate() {
            let Some(key) = self.table.get(*id).map(|entry| &entry.key) else { continue };
            let wait = pace::first(index, added.len(), key.check.delay(), self.random.f64());
            self.schedule.add(*id, key.network, now + wait);
        }
    }

    fn poll(&mut self, now: Instant) {
        let mut ended = std::mem::take(&mut self.ended);
        self.prober.poll(now, &mut ended);
        for EndedProbe { id, started, outcome, span } in ended.drain(..) {
            self.end(id, started, outcome, &span, now);
        }
        self.ended = ended;
    }

    fn start(&mut self, now: Instant) {
        let mut started = std::mem::take(&mut self.started);
        self.schedule.admit(now, BURST, &mut started);
        for (id, due) in started.drain(..) {
            increment(&self.counters.started);
            if now > due + LATE {
                increment(&self.counters.late);
            }
            let Some(entry) = self.table.get(id) else { continue };
            let span = trace::span(&entry.key, &entry.backends);
            if let Err((outcome, span)) = self.prober.start(id, &entry.key, entry.has_route, span, now) {
                self.end(id, now, outcome, &span, now);
            }
        }
        self.started = started;
    }

    /// Records the outcome of a probe, and schedules the next one.
    fn end(&mut self, id: Id, started: Instant, outcome: ProbeOutcome, span: &Span, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let outcome = &match self.shortages.are_neighbours_full() {
            true => outcome.while_neighbours_are_full(),
            false => outcome,
        };
        let pause = pace::interval(entry.key.check.delay(), self.random.f64());
        self.schedule.ended(id, (started + pause).max(now));
        let took = now.saturating_duration_since(started);
        if !matches!(outcome, ProbeOutcome::Inconclusive(_)) {
            entry.took = Some(took);
        }
        trace::log_end(span, &entry.key.check, outcome, took);
        increment(match outcome {
            ProbeOutcome::Good => &self.counters.ok,
            ProbeOutcome::Bad(_) => &self.counters.failed,
            ProbeOutcome::Inconclusive(NodeFailure { text, resource }) => {
                log_inconclusive(&mut self.prober, &entry.key, text, now);
                if let Some(resource) = resource {
                    self.shortages.record(*resource);
                }
                &self.counters.inconclusive
            }
        });
        let thresholds = Thresholds::from(&*entry.key.check);
        if entry.doubt.observe(outcome, thresholds.fall) {
            let doubt = doubt(entry, entry.backends.clone());
            (self.report)(Report::Inconclusive(doubt));
        }
        let (state, flip) = observe(entry.state, outcome, thresholds);
        let before = std::mem::replace(&mut entry.state, state);
        if let Some(flip) = flip {
            entry.since = SystemTime::now();
            log(&entry.key, flip);
            self.counters.left(before);
            self.counters.entered(state);
            let verdict = verdict(entry, entry.backends.clone(), 0);
            verdict.into_iter().for_each(|verdict| self.send(verdict));
        }
    }

    fn send(&mut self, verdict: Verdict) {
        self.sequence += 1;
        (self.report)(Report::Verdict(Verdict { sequence: self.sequence, ..verdict }));
    }

    fn update_gauges(&self) {
        set(&self.counters.targets, self.table.len());
        set(&self.counters.in_flight, self.prober.in_flight());
    }
}

/// The verdict on a target for some of its backends, if there is one.
fn verdict(entry: &TargetEntry, backends: Vec<uuid::Uuid>, sequence: u64) -> Option<Verdict> {
    let check = &entry.key.check;
    let (up, reason) = match entry.state {
        TargetState::Unknown { .. } => return None,
        TargetState::Up { .. } => (true, good_text(check).to_owned()),
        TargetState::Down { reason, .. } => (false, reason.text(check)),
    };
    Some(Verdict { key: entry.key.clone(), backends, up, reason, at: entry.since, sequence })
}

/// The backends of a target.
fn checks(entry: &TargetEntry) -> impl Iterator<Item = BackendCheck> {
    let TargetEntry { key: TargetKey { network, address, .. }, state, took, .. } = entry;
    let up = match state {
        TargetState::Unknown { .. } => None,
        TargetState::Up { .. } => Some(true),
        TargetState::Down { .. } => Some(false),
    };
    let check = move |backend: &uuid::Uuid| BackendCheck {
        backend: *backend,
        network: *network,
        address: *address,
        up,
        took: *took,
    };
    entry.backends.iter().map(check)
}

/// Report of the doubts about a target, for some of its backends.
fn doubt(entry: &TargetEntry, backends: Vec<uuid::Uuid>) -> InconclusiveCheck {
    let reason = entry.doubt.reason().map(str::to_owned);
    InconclusiveCheck { key: entry.key.clone(), backends, reason, at: SystemTime::now() }
}

fn log(key: &TargetKey, flip: Flip) {
    let (backend, network) = (key.address, key.network);
    match flip {
        Flip::Up => tracing::info!(%backend, %network, "backend is up: {}", good_text(&key.check)),
        Flip::Down(reason) => {
            tracing::warn!(%backend, %network, "backend is down: {}", reason.text(&key.check));
        }
    }
}

fn log_inconclusive(prober: &mut Prober, key: &TargetKey, text: &str, now: Instant) {
    if let Some(suppressed) = prober.admit_log(key.network, now) {
        let (backend, network) = (key.address, key.network);
        tracing::warn!(%backend, %network, suppressed, "inconclusive health check: {text}");
    }
}
