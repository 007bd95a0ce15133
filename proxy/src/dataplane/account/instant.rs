//! Instants that workers share without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// An instant, to the millisecond, or none.
#[derive(Debug)]
pub(in crate::dataplane) struct AtomicInstant {
    epoch: Instant,
    /// Milliseconds after the epoch, and one; 0: none.
    millis: AtomicU64,
}

impl AtomicInstant {
    /// None yet. Instants before this one count as it.
    pub(in crate::dataplane) fn none() -> Self {
        Self { epoch: Instant::now(), millis: AtomicU64::new(0) }
    }

    /// The instant.
    pub(in crate::dataplane) fn get(&self) -> Option<Instant> {
        let millis = self.millis.load(Relaxed).checked_sub(1)?;
        self.epoch.checked_add(Duration::from_millis(millis))
    }

    /// Sets it.
    pub(in crate::dataplane) fn set(&self, instant: Option<Instant>) {
        let millis = instant.map_or(0, |instant| {
            let since = instant.saturating_duration_since(self.epoch).as_millis();
            u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
        });
        self.millis.store(millis, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_kept_to_the_millisecond() {
        let cell = AtomicInstant::none();
        assert_eq!(cell.get(), None);
        let later = cell.epoch + Duration::from_micros(7_900);
        cell.set(Some(later));
        assert_eq!(cell.get(), Some(cell.epoch + Duration::from_millis(7)));
        cell.set(cell.epoch.checked_sub(Duration::from_secs(1)));
        assert_eq!(cell.get(), Some(cell.epoch));
        cell.set(None);
        assert_eq!(cell.get(), None);
    }
}
