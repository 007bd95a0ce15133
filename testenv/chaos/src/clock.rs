//! The time of a run, by which everything in it is noted, and what happened when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Begins with the faults; what happens before is at 0. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    zero: Instant,
    wall: SystemTime,
    lines: Arc<Mutex<Vec<(Duration, String)>>>,
    is_loud: bool,
}

impl Clock {
    /// Begins now. A loud one prints what it is told.
    #[must_use]
    pub fn start(is_loud: bool) -> Self {
        Self { zero: Instant::now(), wall: SystemTime::now(), lines: Arc::default(), is_loud }
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.zero.elapsed()
    }

    /// A moment as time since the beginning.
    #[must_use]
    pub fn at(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.zero)
    }

    /// A time of day, as logs have it, as time since the beginning.
    #[must_use]
    pub fn at_wall(&self, time: SystemTime) -> Duration {
        time.duration_since(self.wall).unwrap_or_default()
    }

    /// Time since the beginning in microseconds, as histories have it.
    #[must_use]
    pub fn micros(&self) -> u64 {
        u64::try_from(self.now().as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment of so many milliseconds after the beginning.
    #[must_use]
    pub fn moment(&self, millis: u64) -> Instant {
        self.zero + Duration::from_millis(millis)
    }

    /// Notes what happens now.
    pub fn note(&self, what: impl Into<String>) {
        let (now, what) = (self.now(), what.into());
        if self.is_loud {
            println!("{}", line(now, &what));
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push((now, what));
    }

    /// All that was noted, a line each.
    #[must_use]
    pub fn timeline(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let zero = format!("zero is {}\n", prost_types::Timestamp::from(self.wall));
        std::iter::once(zero).chain(lines.iter().map(|(at, what)| line(*at, what) + "\n")).collect()
    }
}

fn line(at: Duration, what: &str) -> String {
    format!("{:8.3} s  {what}", at.as_secs_f64())
}
