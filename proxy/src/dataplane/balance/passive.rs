//! Passive health of backends as the workers share it: a look at each selection costs no lock, nor does a connection to a
//! backend that fails none.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::ejection::{EjectionRecord, FailureEffect};
use crate::dataplane::{account::AtomicInstant, spec::PassiveHealthSpec};

/// A backend that is left out of this node's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Its end, in milliseconds since 1970.
    pub until_ms: u64,
    /// Failure of the latest connection, for people.
    pub reason: String,
}

/// Decisions on the ejections of a pool, one after the other, so that never too many are out. All snapshots of the pool
/// share them: the latest alone decides, and connections that others have begun say nothing any more.
#[derive(Debug)]
pub(super) struct Decisions {
    /// Number of the latest snapshot.
    latest: Arc<Mutex<u64>>,
    /// Number of this one.
    number: u64,
}

/// Held while something is decided.
pub(super) type Deciding<'a> = MutexGuard<'a, u64>;

impl Decisions {
    /// Creates those of a snapshot that replaces `older`.
    pub(super) fn new(older: Option<&Self>) -> Self {
        let latest = older.map(|older| Arc::clone(&older.latest)).unwrap_or_default();
        Self { latest, number: older.map_or(0, |older| older.number.saturating_add(1)) }
    }

    /// Waits for other decisions to be over. None: another snapshot decides.
    pub(super) fn decide(&self) -> Option<Deciding<'_>> {
        Some(self.lock()).filter(|latest| **latest == self.number)
    }

    /// Waits for other decisions to be over, and takes over from an older snapshot.
    pub(super) fn take_over(&self) -> Deciding<'_> {
        let mut latest = self.lock();
        *latest = self.number;
        latest
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passive health of one backend.
#[derive(Debug)]
pub(super) struct BackendEjection {
    until: AtomicInstant,
    /// True if an accepted connection would change the record.
    is_watched: AtomicBool,
    record: Mutex<ReportedRecord>,
}

#[derive(Debug, Default)]
struct ReportedRecord {
    record: EjectionRecord,
    latest: Option<Ejection>,
}

impl BackendEjection {
    pub(super) fn new() -> Self {
        Self { until: AtomicInstant::none(), is_watched: AtomicBool::default(), record: Mutex::default() }
    }

    /// End of the latest ejection, which may be over.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until.get()
    }

    /// True if it is left out.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// The ejection, if it is left out.
    pub(super) fn current(&self, now: Instant) -> Option<Ejection> {
        if self.is_ejected(now) { self.lock().latest.clone() } else { None }
    }

    /// True if [`Self::succeed`] would change something.
    pub(super) fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Counts a failed connection. `may_eject`: asked if it is due to be left out.
    pub(super) fn fail(
        &self,
        rules: &PassiveHealthSpec,
        error: &io::Error,
        may_eject: impl FnOnce() -> bool,
        now: Instant,
    ) -> FailureEffect {
        let mut reported = self.lock();
        let effect = reported.record.fail(rules, may_eject, now);
        if let FailureEffect::Ejected { duration, .. } = effect {
            reported.latest = Some(Ejection { until_ms: wall_clock_after(duration), reason: reason(error) });
        }
        self.publish(&reported);
        effect
    }

    /// Counts a connection that it has accepted. True if it is the first one after an ejection.
    pub(super) fn succeed(&self, now: Instant) -> bool {
        let mut reported = self.lock();
        let is_back = reported.record.succeed(now);
        self.publish(&reported);
        is_back
    }

    /// Ends an ejection before its time.
    pub(super) fn readmit(&self, now: Instant) {
        let mut reported = self.lock();
        reported.record.readmit(now);
        self.publish(&reported);
    }

    /// Resets the record, since its pool has no passive health check.
    pub(super) fn forget(&self) {
        if self.is_watched() || self.until().is_some() {
            let mut reported = self.lock();
            *reported = ReportedRecord::default();
            self.until.set(None);
            self.publish(&reported);
        }
    }

    fn publish(&self, reported: &ReportedRecord) {
        // An end that the record has dropped stays: a slow start counts from it.
        if let Some(until) = reported.record.ejected_until() {
            self.until.set(Some(until));
        }
        self.is_watched.store(reported.record.is_watched(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, ReportedRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failure in the words of health checks.
fn reason(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let words = match error.kind() {
        Kind::ConnectionRefused => "connection refused",
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => "connection reset",
        Kind::HostUnreachable => "host unreachable",
        Kind::TimedOut => "no answer in time",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// Time of the machine's clock after a while, in milliseconds since 1970.
fn wall_clock_after(duration: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_add(duration).as_millis()).unwrap_or(u64::MAX)
}
