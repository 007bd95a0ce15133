//! The checker between two commands: schedule, probes, verdicts. Reads no clock: `now` is handed in.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::attempt::TICK;
use super::metrics::{Counters, count, show};
use super::observe::{Flip, State, Thresholds, observe};
use super::outcome::{Outcome, good_text};
use super::pace;
use super::prober::{Ended, Prober};
use super::report::{Key, Snapshot, Targets, Verdict};
use super::schedule::{Id, Schedule};
use super::table::{Entry, Table};

/// A probe that starts later than this after its time counts as late.
const LATE: Duration = Duration::from_millis(100);

/// Most probes that start in one tick: 10,000 a second. What has piled up while the process stood still must not meet the
/// network, and the backends' queues, all at once.
const BURST: usize = 100;

/// How often sockets that are not needed are closed.
const TRIM: Duration = Duration::from_secs(30);

/// All of the checker but its thread.
pub(super) struct Engine<R> {
    table: Table,
    schedule: Schedule,
    prober: Prober,
    counters: Arc<Counters>,
    random: fastrand::Rng,
    report: R,
    sequence: u64,
    trimmed: Instant,
    // Kept to be used again.
    started: Vec<(Id, Instant)>,
    ended: Vec<Ended>,
}

impl<R: FnMut(Verdict)> Engine<R> {
    /// An engine without targets, for at most `slots` probes at once.
    pub(super) fn new(slots: usize, counters: Arc<Counters>, report: R, now: Instant) -> Self {
        Self {
            table: Table::default(),
            schedule: Schedule::new(slots),
            prober: Prober::new(),
            counters,
            random: fastrand::Rng::new(),
            report,
            sequence: 0,
            trimmed: now,
            started: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Makes the targets exactly these.
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
            let verdict = self.table.get(id).and_then(|entry| verdict(entry, backends, 0));
            verdict.into_iter().for_each(|verdict| self.tell(verdict));
        }
        self.show();
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        self.look(now);
        self.start(now);
        if now >= self.trimmed + TRIM {
            self.trimmed = now;
            self.prober.trim();
        }
        self.show();
    }

    /// When to call `tick` again, at the earliest a tick from now. Never without targets.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let due = self.prober.next_look().into_iter().chain(self.schedule.next_due()).min();
        due.map(|due| due.max(now + TICK))
    }

    /// All verdicts.
    pub(super) fn snapshot(&self) -> Snapshot {
        let verdicts =
            self.table.entries().filter_map(|entry| verdict(entry, entry.backends.clone(), self.sequence));
        Snapshot { sequence: self.sequence, verdicts: verdicts.collect() }
    }

    fn add(&mut self, added: &[Id], now: Instant) {
        for (index, id) in added.iter().enumerate() {
            let Some(key) = self.table.get(*id).map(|entry| &entry.key) else { continue };
            let wait = pace::first(index, added.len(), key.check.delay(), self.random.f64());
            self.schedule.add(*id, key.network, now + wait);
        }
    }

    fn look(&mut self, now: Instant) {
        let mut ended = std::mem::take(&mut self.ended);
        self.prober.look(now, &mut ended);
        for Ended { id, started, outcome } in ended.drain(..) {
            self.end(id, started, &outcome, now);
        }
        self.ended = ended;
    }

    fn start(&mut self, now: Instant) {
        let mut started = std::mem::take(&mut self.started);
        self.schedule.admit(now, BURST, &mut started);
        for (id, due) in started.drain(..) {
            count(&self.counters.started);
            if now > due + LATE {
                count(&self.counters.late);
            }
            let Some(entry) = self.table.get(id) else { continue };
            if let Err(outcome) = self.prober.start(id, &entry.key, now) {
                self.end(id, now, &outcome, now);
            }
        }
        self.started = started;
    }

    /// Takes the outcome of a probe in, and plans the next one.
    fn end(&mut self, id: Id, started: Instant, outcome: &Outcome, now: Instant) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let pause = pace::interval(entry.key.check.delay(), self.random.f64());
        self.schedule.ended(id, (started + pause).max(now));
        count(match outcome {
            Outcome::Good => &self.counters.ok,
            Outcome::Bad(_) => &self.counters.failed,
            Outcome::Inconclusive(text) => {
                complain(&mut self.prober, &entry.key, text, now);
                &self.counters.inconclusive
            }
        });
        let (state, flip) = observe(entry.state, outcome, Thresholds::from(&*entry.key.check));
        let before = std::mem::replace(&mut entry.state, state);
        if let Some(flip) = flip {
            entry.since = SystemTime::now();
            log(&entry.key, flip);
            self.counters.left(before);
            self.counters.entered(state);
            let verdict = verdict(entry, entry.backends.clone(), 0);
            verdict.into_iter().for_each(|verdict| self.tell(verdict));
        }
    }

    fn tell(&mut self, verdict: Verdict) {
        self.sequence += 1;
        (self.report)(Verdict { sequence: self.sequence, ..verdict });
    }

    fn show(&self) {
        show(&self.counters.targets, self.table.len());
        show(&self.counters.in_flight, self.prober.in_flight());
    }
}

/// The verdict on a target for some of its backends, if there is one.
fn verdict(entry: &Entry, backends: Vec<uuid::Uuid>, sequence: u64) -> Option<Verdict> {
    let check = &entry.key.check;
    let (up, reason) = match entry.state {
        State::Unknown { .. } => return None,
        State::Up { .. } => (true, good_text(check).to_owned()),
        State::Down { reason, .. } => (false, reason.text(check)),
    };
    Some(Verdict { key: entry.key.clone(), backends, up, reason, at: entry.since, sequence })
}

fn log(key: &Key, flip: Flip) {
    let (backend, network) = (key.address, key.network);
    match flip {
        Flip::Up => tracing::info!(%backend, %network, "backend is up: {}", good_text(&key.check)),
        Flip::Down(reason) => {
            tracing::warn!(%backend, %network, "backend is down: {}", reason.text(&key.check));
        }
    }
}

fn complain(prober: &mut Prober, key: &Key, text: &str, now: Instant) {
    if let Some(unsaid) = prober.may_complain(key.network, now) {
        let (backend, network) = (key.address, key.network);
        tracing::warn!(%backend, %network, unsaid, "a health check says nothing about its backend: {text}");
    }
}
