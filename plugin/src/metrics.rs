//! Prometheus metrics of the plugin (OpenMetrics text format).

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::resources::Kind;

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
fn resources() -> impl Iterator<Item = &'static str> {
    Kind::ALL.iter().map(|kind| kind.words()).chain(["node"])
}

/// All values of the label `operation`.
const OPERATIONS: [&str; 9] =
    ["create", "update", "delete", "apply", "apply (dry run)", "cordon", "uncordon", "drain", "remove"];

/// Outcome of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Write through the API, with its gRPC code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabel {
    resource: &'static str,
    operation: &'static str,
    code: &'static str,
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
    transactions: Family<OutcomeLabel, Counter>,
    transaction_seconds: Histogram,
    transaction_load_balancers: Histogram,
    writes: Family<WriteLabel, Counter>,
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
            limit_bytes: Family::default(),
            write_conflicts: Counter::default(),
            repairs: Counter::default(),
            queue_length: Gauge::<i64, _>::default(),
            leads: Gauge::<i64, _>::default(),
            northbound_connected: Gauge::<i64, _>::default(),
            watches: Gauge::<i64, _>::default(),
            large_requests: Gauge::<i64, _>::default(),
            registry: Registry::default(),
        };
        register!(registry, metrics, {
            leads: "leads", "1 while this plugin leads those on its store: it carries out and hears the proxy nodes";
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
            "limit",
            "Limit of bytes, by the key of its setting",
            Unit::Bytes,
            metrics.limit_bytes.clone(),
        );
        // A series that starts above 0 hides its first step from `increase`.
        for (outcome, _) in OUTCOMES {
            drop(metrics.transactions.get_or_create(&OutcomeLabel { outcome }));
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

    /// Records the end of a write.
    pub fn write(&self, resource: &'static str, operation: &'static str, code: &'static str) {
        debug_assert!(resources().any(|known| known == resource), "the label does not know {resource:?}");
        debug_assert!(OPERATIONS.contains(&operation), "OPERATIONS lacks {operation:?}");
        self.writes.get_or_create(&WriteLabel { resource, operation, code }).inc();
    }

    /// Text that answers a scrape.
    ///
    /// # Errors
    /// None that a registry made here can cause.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod docs;
