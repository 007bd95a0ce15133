//! Connections that the node itself cuts: their counters, and one log line for all workers.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use uuid::Uuid;

use crate::dataplane::listen::{OpenConnections, WorkerListener};

/// Reason why the node cuts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutReason {
    /// Their listener is deleted or switched off, and the drain deadline is over.
    ListenerGone,
    /// Their network leaves the node.
    NetworkGone,
    /// The process ends, and the drain deadline is over.
    Stopping,
}

impl CutReason {
    /// All of them, in the order of their counters.
    const ALL: [Self; 3] = [Self::ListenerGone, Self::NetworkGone, Self::Stopping];

    /// Its word in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ListenerGone => "listener_gone",
            Self::NetworkGone => "network_gone",
            Self::Stopping => "stopping",
        }
    }
}

/// Connections that the node has cut since the process started, of all listeners: counters of a listener go with it.
#[derive(Debug, Default)]
pub struct Cuts([AtomicU64; CutReason::ALL.len()]);

impl Cuts {
    /// Connections by reason.
    pub fn totals(&self) -> impl Iterator<Item = (CutReason, u64)> {
        CutReason::ALL.into_iter().zip(self.0.iter().map(|total| total.load(Relaxed)))
    }

    /// Connections that were cut for a reason.
    #[must_use]
    pub fn of(&self, reason: CutReason) -> u64 {
        self.totals().filter(|(it, _)| *it == reason).map(|(_, total)| total).sum()
    }

    /// Cuts all connections of a set; returns their number.
    pub(super) fn cut(&self, reason: CutReason, connections: &OpenConnections) -> usize {
        let count = connections.len();
        for (_, total) in CutReason::ALL.iter().zip(&self.0).filter(|(it, _)| **it == reason) {
            total.fetch_add(count as u64, Relaxed);
        }
        connections.cut();
        count
    }

    /// Cuts the connections of a listener on one worker. The first worker that has some logs those of all.
    pub(super) fn cut_listener(&self, reason: CutReason, listener: &WorkerListener, log: &CutLog) {
        let WorkerListener { shared, connections, .. } = listener;
        if connections.len() > 0 && log.is_first(shared.id) {
            tracing::info!(
                listener = %shared.id, name = shared.name, network = %shared.network, reason = reason.as_str(),
                connections = shared.counters.read().active, "resetting the connections that a listener has left"
            );
        }
        self.cut(reason, connections);
    }
}

/// Listeners whose connections are cut after one configuration, so that one worker logs it.
#[derive(Debug, Default)]
pub(super) struct CutLog(Mutex<HashSet<Uuid>>);

impl CutLog {
    fn is_first(&self, listener: Uuid) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(listener)
    }
}
