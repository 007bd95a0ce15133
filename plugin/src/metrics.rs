//! Prometheus metrics of the plugin (OpenMetrics text format).

use std::sync::Arc;
use std::time::Duration;

use fiberlb_daemon::metrics::ProcessMetrics;
use fiberlb_store::Store;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

mod store;

use crate::resources::Kind;
use store::{StoreDurations, StoreLabel, TimedStore};

/// All values of the label `outcome`, with their meanings.
const OUTCOMES: [(&str, &str); 6] = [
    ("in_step", "nothing was missing"),
    ("committed", ""),
    ("missed", "a row was gone, or the fence had been moved: planned again"),
    ("refused", "by the database; the status of the guilty load balancer says why"),
    ("not_connected", ""),
    ("unknown", "no answer; looked up and planned again"),
];
/// Outcomes of batches that were not sent.
const NOT_SENT: [&str; 2] = ["in_step", "not_connected"];
/// All values of the label `resource`.
fn resources() -> impl Iterator<Item = String> {
    Kind::ALL.iter().map(|kind| kind.words()).chain(["node"]).map(resource)
}

/// Value of the label `resource`.
fn resource(words: &str) -> String {
    words.replace(' ', "_")
}

/// All values of the label `operation`.
const OPERATIONS: [&str; 9] =
    ["create", "update", "delete", "apply", "validate", "cordon", "uncordon", "drain", "remove"];

/// Outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Write through the API, with its gRPC code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabel {
    resource: String,
    operation: &'static str,
    code: &'static str,
}

/// Call of the API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    method: String,
    class: &'static str,
}

/// Limit, by the key of its setting.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    key: &'static str,
}

/// Registers metrics: field, name, help.
macro_rules! register {
    ($registry:ident, $metrics:ident, { $($field:ident: $name:literal, $help:literal;)* }) => {
        $($registry.register($name, $help, $metrics.$field.clone());)*
    };
}

/// Metrics of the plugin.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: ProcessMetrics,
    transactions: Family<OutcomeLabel, Counter>,
    transaction_seconds: Histogram,
    transaction_load_balancers: Histogram,
    writes: Family<WriteLabel, Counter>,
    calls: Family<CallLabel, Histogram, fn() -> Histogram>,
    store: StoreDurations,
    limit_bytes: Family<LimitLabel, Gauge>,
    /// Writes that were retried after a conflict.
    pub write_conflicts: Counter,
    /// Load balancers whose rows another client had changed or deleted.
    pub repairs: Counter,
    /// Load balancers and networks that wait for the reconciler.
    pub queue_length: Gauge,
    /// 1 while this plugin is the leader.
    pub leads: Gauge,
    /// 1 while the northbound database is connected and its content is known.
    pub northbound_connected: Gauge,
    /// Watch streams that are open.
    pub watches: Gauge,
    /// Large requests that are held.
    pub large_requests: Gauge,
}

impl Metrics {
    /// Metrics, all of which start at 0.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("fiberlb");
        let metrics = Self {
            transactions: Family::default(),
            transaction_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            transaction_load_balancers: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            writes: Family::default(),
            calls: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 14))),
            store: store::durations(),
            limit_bytes: Family::default(),
            write_conflicts: Counter::default(),
            repairs: Counter::default(),
            queue_length: Gauge::<i64, _>::default(),
            leads: Gauge::<i64, _>::default(),
            northbound_connected: Gauge::<i64, _>::default(),
            watches: Gauge::<i64, _>::default(),
            large_requests: Gauge::<i64, _>::default(),
            registry: Registry::default(),
            process: ProcessMetrics::new(env!("CARGO_PKG_VERSION")),
        };
        register!(registry, metrics, {
            leads: "leads", "1 while this plugin is the leader of those on its store: it writes to OVN and has the streams of the proxy nodes";
            northbound_connected: "northbound_connected", "1 while the northbound database is connected and its content is known";
            queue_length: "reconcile_queue", "Load balancers and networks that wait for the reconciler";
            transactions: "northbound_transactions", "Reconciler batches by outcome; those in_step or not_connected were not sent";
        });
        registry.register_with_unit(
            "northbound_transaction_duration",
            "Time until the northbound database answered, or was given up",
            Unit::Seconds,
            metrics.transaction_seconds.clone(),
        );
        register!(registry, metrics, {
            transaction_load_balancers: "northbound_transaction_load_balancers", "Load balancers in one transaction";
            repairs: "northbound_repairs", "Load balancers whose rows somebody else had changed or deleted, and that were put right";
            writes: "api_writes", "Writes through the API by resource, operation and gRPC code";
            write_conflicts: "api_write_conflicts", "Writes repeated inside because another one came first";
            watches: "watches", "Watch streams that are open";
            large_requests: "large_requests", "Requests of more than 64 KiB that are held: worked on, or waiting for their turn";
        });
        registry.register_with_unit(
            "api_call_duration",
            "Time until the answer to a call of the API, or the stream that is one, began, by method and class of its code",
            Unit::Seconds,
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "store_request_duration",
            "Time until the store answered",
            Unit::Seconds,
            metrics.store.clone(),
        );
        registry.register_with_unit(
            "limit",
            "Limit of bytes, by the key of its setting",
            Unit::Bytes,
            metrics.limit_bytes.clone(),
        );
        // A series that starts above 0 hides its first step from `increase`.
        for (outcome, _) in OUTCOMES {
            drop(metrics.transactions.get_or_create(&OutcomeLabel { outcome }));
        }
        for request in store::REQUESTS {
            drop(metrics.store.get_or_create(&StoreLabel { request }));
        }
        Self { registry, ..metrics }
    }

    /// Registry in which modules above this one register what they export themselves.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Records a limit of the configuration, in bytes.
    pub fn limit_bytes(&self, key: &'static str, bytes: u64) {
        self.limit_bytes.get_or_create(&LimitLabel { key }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Records the end of a reconciler batch.
    pub fn transaction(&self, outcome: &'static str, load_balancers: usize, took: Duration) {
        debug_assert!(OUTCOMES.iter().any(|(known, _)| *known == outcome), "OUTCOMES lacks {outcome:?}");
        self.transactions.get_or_create(&OutcomeLabel { outcome }).inc();
        if !NOT_SENT.contains(&outcome) {
            self.transaction_seconds.observe(took.as_secs_f64());
            self.transaction_load_balancers
                .observe(u32::try_from(load_balancers).map_or(f64::MAX, f64::from));
        }
    }

    /// Records the end of a call of the API: method, and `ok`, `client_error`, `server_error` or `cancelled`.
    pub(crate) fn call(&self, method: String, class: &'static str, took: Duration) {
        self.calls.get_or_create(&CallLabel { method, class }).observe(took.as_secs_f64());
    }

    /// The same store, timed.
    #[must_use]
    pub fn timed(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(TimedStore::new(store, self.store.clone()))
    }

    /// Records the end of a write to a kind of resource, by its words.
    pub fn write(&self, resource: &'static str, operation: &'static str, code: &'static str) {
        let resource = self::resource(resource);
        debug_assert!(resources().any(|known| known == resource), "the label does not know {resource:?}");
        debug_assert!(OPERATIONS.contains(&operation), "OPERATIONS lacks {operation:?}");
        self.writes.get_or_create(&WriteLabel { resource, operation, code }).inc();
    }

    /// Text that answers a scrape.
    ///
    /// # Errors
    /// None that a registry made here can cause.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        self.process.encode(&self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod docs;
