//! State of the process's listeners, for metrics and readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Reason why a connection was refused, or closed before it was of use: the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedReason {
    /// `per_source`: the source has as many busy connections as it may have.
    PerSource,
    /// `total`: the listener has as many busy connections as it may have.
    Total,
    /// `displaced`: it gave way to a newcomer, before its first request or while it was idle.
    Displaced,
    /// `silent`: no byte came in time.
    Silent,
    /// `handshake`: the TLS handshake failed, or took too long.
    Handshake,
    /// `no_request`: no complete request came in time.
    NoRequest,
    /// `revoked`: the client's certificate was revoked while the connection was open.
    Revoked,
    /// `denied`: the peer's user may not use the socket file.
    Denied,
    /// `descriptors`: the process has no descriptor or memory for it, and it waits in the kernel's queue. Each attempt counts.
    Descriptors,
}

impl RefusedReason {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::PerSource,
        Self::Total,
        Self::Displaced,
        Self::Silent,
        Self::Handshake,
        Self::NoRequest,
        Self::Revoked,
        Self::Denied,
        Self::Descriptors,
    ];

    /// Value of the label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerSource => "per_source",
            Self::Total => "total",
            Self::Displaced => "displaced",
            Self::Silent => "silent",
            Self::Handshake => "handshake",
            Self::NoRequest => "no_request",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::Descriptors => "descriptors",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    listener: &'static str,
    reason: &'static str,
}

/// The listeners of a process, by name. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    connections: Family<ListenerLabel, Gauge>,
    refused: Family<RefusedLabel, Counter>,
    /// Reason why a listener does not accept; `None`: it does.
    obstacles: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Listeners {
    /// Registers `listener_connections` and `listener_refused`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "listener_connections",
            "Connections of clients to this process that are open",
            self.connections.clone(),
        );
        registry.register(
            "listener_refused",
            "Connections of clients to this process that were refused, or closed before they were of use",
            self.refused.clone(),
        );
    }

    /// Makes a listener known, with all its series: one that starts above 0 hides its first step from `increase`.
    pub fn declare(&self, name: &'static str) {
        self.connections(name);
        for reason in RefusedReason::ALL {
            self.refused(name, reason);
        }
        self.note(name, Some("it has not started".to_owned()));
    }

    /// Listeners that do not accept, each with the reason.
    #[must_use]
    pub fn obstacles(&self) -> Vec<(&'static str, String)> {
        let obstacles = self.obstacles.lock().unwrap_or_else(PoisonError::into_inner);
        obstacles.iter().filter_map(|(name, obstacle)| Some((*name, obstacle.clone()?))).collect()
    }

    /// Notes why a listener does not accept, or that it does.
    pub(super) fn note(&self, name: &'static str, obstacle: Option<String>) {
        self.obstacles.lock().unwrap_or_else(PoisonError::into_inner).insert(name, obstacle);
    }

    /// Gauge of a listener's connections.
    pub(super) fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create(&ListenerLabel { listener }).clone()
    }

    /// Counter of a listener's refused connections.
    pub(super) fn refused(&self, listener: &'static str, reason: RefusedReason) -> Counter {
        self.refused.get_or_create(&RefusedLabel { listener, reason: reason.as_str() }).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_are_named_until_they_are_gone() {
        let listeners = Listeners::default();
        listeners.declare("api");
        listeners.note("metrics", None);
        assert_eq!(listeners.obstacles(), [("api", "it has not started".to_owned())]);
        listeners.note("api", None);
        assert!(listeners.obstacles().is_empty());
    }

    #[test]
    fn series_have_the_reasons_as_labels() {
        let (listeners, mut registry) = (Listeners::default(), Registry::with_prefix("x"));
        listeners.register(&mut registry);
        listeners.connections("api").set(3);
        for reason in RefusedReason::ALL {
            listeners.refused("api", reason).inc();
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("x_listener_connections{listener=\"api\"} 3"), "{text}");
        assert!(
            text.contains("x_listener_refused_total{listener=\"api\",reason=\"per_source\"} 1"),
            "{text}"
        );
    }
}
