//! Counters and gauges of the checker.

use std::sync::atomic::{AtomicU64, Ordering};

use super::observe::TargetState;

/// Counters and gauges, written by the checker's thread alone.
#[derive(Debug, Default)]
pub(super) struct HealthCounters {
    pub(super) started: AtomicU64,
    pub(super) ok: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) inconclusive: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) targets: AtomicU64,
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

/// Counters since the start of the checker, and current gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthMetrics {
    /// Probes started.
    pub started: u64,
    /// Good probes.
    pub ok: u64,
    /// Bad probes.
    pub failed: u64,
    /// Probes that failed for a reason of the node's own.
    pub inconclusive: u64,
    /// Probes that started more than 100 ms after they were due: CPU or slots are short.
    pub late: u64,
    /// Probes running now.
    pub in_flight: u64,
    /// Addresses probed, each once however many backends share it.
    pub targets: u64,
    /// Targets with the verdict up.
    pub up: u64,
    /// Targets with the verdict down.
    pub down: u64,
}

impl HealthCounters {
    pub(super) fn read(&self) -> HealthMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HealthMetrics {
            started: read(&self.started),
            ok: read(&self.ok),
            failed: read(&self.failed),
            inconclusive: read(&self.inconclusive),
            late: read(&self.late),
            in_flight: read(&self.in_flight),
            targets: read(&self.targets),
            up: read(&self.up),
            down: read(&self.down),
        }
    }

    /// Counts a target that has entered a state.
    pub(super) fn entered(&self, state: TargetState) {
        self.gauge(state).map(|gauge| gauge.fetch_add(1, Ordering::Relaxed));
    }

    /// Counts a target that has left a state.
    pub(super) fn left(&self, state: TargetState) {
        self.gauge(state).map(|gauge| gauge.fetch_sub(1, Ordering::Relaxed));
    }

    fn gauge(&self, state: TargetState) -> Option<&AtomicU64> {
        match state {
            TargetState::Unknown { .. } => None,
            TargetState::Up { .. } => Some(&self.up),
            TargetState::Down { .. } => Some(&self.down),
        }
    }
}

/// Adds one.
pub(super) fn increment(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Sets a gauge.
pub(super) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
}
