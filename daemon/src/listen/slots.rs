//! Connection slots of a listener: the admission with its metrics and log lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission::{Admission, ConnectionId, Phase, Refusal, Source};
use super::metrics::{Listeners, RefusedReason};
use super::settings::ConnectionSettings;
use crate::throttle::Throttle;

/// Least time between two log lines about refused connections.
const QUIET: Duration = Duration::from_secs(1);

/// Most connections that give way at once when the process has no descriptors left.
const SHED: usize = 16;

/// Connection slots of a listener.
#[derive(Debug)]
pub(super) struct Slots {
    name: &'static str,
    shared_sources: Vec<IpNetwork>,
    /// A connection learns that it is displaced when its sender is dropped.
    admission: Mutex<Admission<oneshot::Sender<()>>>,
    refused: Mutex<RefusedSince>,
    listeners: Listeners,
    connections: Gauge,
}

/// Refused connections since the last log line.
#[derive(Debug)]
struct RefusedSince {
    throttle: Throttle,
    counts: BTreeMap<RefusedReason, u64>,
}

/// Slot of a connection, released on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    id: ConnectionId,
}

impl Slots {
    /// Slots of a listener, all free.
    pub(super) fn new(name: &'static str, settings: &ConnectionSettings, listeners: Listeners) -> Arc<Self> {
        let connections = listeners.connections(name);
        let refused = RefusedSince { throttle: Throttle::new(QUIET), counts: BTreeMap::new() };
        Arc::new(Self {
            name,
            shared_sources: settings.shared_sources.clone(),
            admission: Mutex::new(Admission::new(settings)),
            refused: Mutex::new(refused),
            listeners,
            connections,
        })
    }

    /// Takes a slot for a connection; the receiver learns if it is displaced. `None`: it is refused.
    pub(super) fn take(self: &Arc<Self>, peer: Option<SocketAddr>) -> Option<(Slot, oneshot::Receiver<()>)> {
        let source = peer.map_or(Source::Unix, |peer| Source::of(peer.ip()));
        let is_shared = peer.is_none_or(|peer| {
            let address = peer.ip().to_canonical();
            self.shared_sources.iter().any(|network| network.contains(address))
        });
        let (stay, displaced) = oneshot::channel();
        let mut admission = self.lock();
        let admitted = admission.admit(source, is_shared, stay);
        self.show(&admission);
        drop(admission);
        match admitted {
            Ok((id, _)) => Some((Slot { slots: Arc::clone(self), id }, displaced)),
            Err(Refusal::Source) => self.refuse(RefusedReason::PerSource, peer),
            Err(Refusal::Total) => self.refuse(RefusedReason::Total, peer),
        }
    }

    /// Makes a connection give way, if one can, and some more of those sources that have several: their descriptors are needed.
    pub(super) fn shed(&self) {
        let mut admission = self.lock();
        drop(admission.shed());
        for _ in 1..SHED {
            if admission.is_crowded() {
                drop(admission.shed());
            }
        }
        self.show(&admission);
    }

    /// Counts a refused connection, and logs a line unless one was logged within the last second.
    pub(super) fn refuse<T>(&self, reason: RefusedReason, peer: Option<SocketAddr>) -> Option<T> {
        self.listeners.refused(self.name, reason).inc();
        if let Some(counts) = self.count(reason) {
            let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.ip().to_string());
            tracing::warn!(listener = self.name, %peer, "refused connections: {counts}");
        }
        None
    }

    /// Counts a connection of a user that may not use the socket file, and logs a line unless one was logged within the last
    /// second.
    pub(super) fn deny(&self, uid: Option<u32>) {
        self.listeners.refused(self.name, RefusedReason::Denied).inc();
        if let Some(counts) = self.count(RefusedReason::Denied) {
            tracing::warn!(
                listener = self.name,
                uid,
                "rejected connection to the socket file: the peer is neither root nor its owner; refused connections: {counts}"
            );
        }
    }

    /// Counts a connection that cannot be accepted, and logs a line unless one was logged within the last second.
    pub(super) fn exhausted(&self, error: &std::io::Error) {
        self.listeners.refused(self.name, RefusedReason::Descriptors).inc();
        self.listeners.note(self.name, Some(format!("cannot accept connections: {error}")));
        if let Some(counts) = self.count(RefusedReason::Descriptors) {
            tracing::error!(
                listener = self.name, %error,
                "cannot accept connections, clients wait; raise LimitNOFILE; refused connections: {counts}"
            );
        }
    }

    /// Notes that connections are accepted, or why they are not any more.
    pub(super) fn note(&self, obstacle: Option<&str>) {
        self.listeners.note(self.name, obstacle.map(str::to_owned));
    }

    /// Counts a reason. Returns the text of all counts if it is time for a line.
    fn count(&self, reason: RefusedReason) -> Option<String> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.counts.entry(reason).or_default() += 1;
        refused.throttle.admit(Instant::now())?;
        let mut text = String::new();
        for (reason, count) in std::mem::take(&mut refused.counts) {
            let separator = if text.is_empty() { "" } else { ", " };
            // Writing to a text does not fail.
            let _ = write!(text, "{separator}{count} {}", reason.as_str());
        }
        Some(text)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Admission<oneshot::Sender<()>>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, admission: &Admission<oneshot::Sender<()>>) {
        self.connections.set(i64::try_from(admission.len()).unwrap_or(i64::MAX));
    }
}

impl Slot {
    /// Phase of the connection; `None`: it is displaced.
    pub(super) fn phase(&self) -> Option<Phase> {
        self.slots.lock().phase(self.id)
    }

    /// Marks a request as in progress until the guard is dropped.
    pub(super) fn request(self: &Arc<Self>) -> RequestGuard {
        self.slots.lock().begin(self.id);
        RequestGuard(Arc::clone(self))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut admission = self.slots.lock();
        admission.remove(self.id);
        self.slots.show(&admission);
    }
}

/// Request in progress on a connection.
#[derive(Debug)]
pub(super) struct RequestGuard(Arc<Slot>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.slots.lock().end(self.0.id, Instant::now());
    }
}
