//! Prometheus metrics of the agent (OpenMetrics text format), collected at each scrape.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use fiberlb_daemon::listen::Listeners;
use fiberlb_daemon::metrics::{ProcessMetrics, register_certificates};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use uuid::Uuid;

use crate::access_log::AccessLog;
use crate::agent::{NodeReport, SharedReport};
use crate::configuration::Listener;
use crate::dataplane::{Cuts, Durations, HeaderRefusal, ListenerCounters};
use crate::disk::Written;
use crate::health::{BackendCheck, HealthChecker};
use crate::link::LinkStatus;
use crate::network::NetworksState;
use crate::shortage::Shortages;

/// Most listeners with series: the first by id.
const LISTENERS: usize = 1_000;

/// Sources of the metrics.
pub struct Sources {
    /// Status of the stream to the plugin.
    pub link: watch::Receiver<LinkStatus>,
    /// State of the networks.
    pub networks: watch::Receiver<NetworksState>,
    /// Status of writing to disk.
    pub disk: watch::Receiver<Written>,
    /// The health checker.
    pub health: Arc<HealthChecker>,
    /// Counters of the data plane.
    pub report: SharedReport,
    /// Shortages of the node.
    pub shortages: Arc<Shortages>,
    /// Connections that the data plane has cut.
    pub cuts: Arc<Cuts>,
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// Most connections of the data plane at a time.
    pub max_connections: usize,
    /// The checked backends that have series; may block.
    pub backends: Box<dyn Fn() -> Vec<BackendCheck> + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// The metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: ProcessMetrics,
}

impl Metrics {
    /// Metrics of these sources, and those of each daemon: of its listeners, and of the certificates in its settings.
    #[must_use]
    pub fn new(
        sources: Sources,
        listeners: &Listeners,
        certificates: [(&'static str, Option<PathBuf>); 4],
    ) -> Self {
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("fiberlb_proxy").register_collector(Box::new(sources));
        let shared = registry.sub_registry_with_prefix("fiberlb");
        listeners.register(shared);
        register_certificates(shared, certificates);
        Self { registry, process: ProcessMetrics::new(env!("CARGO_PKG_VERSION")) }
    }

    /// Text that answers a scrape.
    ///
    /// # Errors
    /// Does not fail with the metrics of this registry.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        self.process.encode(&self.registry)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.plugin_and_machine(&mut encoder)?;
        self.health(&mut encoder)?;
        self.listeners(&mut encoder)
    }
}

impl Sources {
    fn plugin_and_machine(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let connected = matches!(&*self.link.borrow(), LinkStatus::Connected { .. });
        let written = self.disk.borrow().clone();
        let (networks, failed, held) = {
            let state = self.networks.borrow();
            let failed = state.networks.values().filter(|network| network.error.is_some()).count();
            (state.networks.len(), failed, state.held().len())
        };
        let gauges = [
            ("plugin_connected", "1 while the plugin has taken this node in", u64::from(connected)),
            ("networks", "Tenant networks on this node", count(networks)),
            ("networks_failed", "Tenant networks that are not as they should be", count(failed)),
            ("held_vips", "VIPs on links of this node", count(held)),
            (
                "max_connections",
                "Most connections at a time that its descriptors allow",
                count(self.max_connections),
            ),
        ];
        let lines = self.access_log.counts();
        let records = self.access_log.exported();
        let counters = [
            (
                "access_log_exported",
                "Records of the access log that the collector has taken",
                records.written,
            ),
            (
                "access_log_export_lost",
                "Records of the access log that were lost, since the collector was away, too slow or refused them, or one project had too many",
                records.lost,
            ),
            ("access_log_lines", "Lines of the access log that were written", lines.written),
            (
                "access_log_lost",
                "Lines of the access log that were lost, since the disk or syslog was too slow or failed, or one project had too many",
                lines.lost,
            ),
            ("disk_writes", "Writes of the configuration to disk that went well", written.writes),
            ("disk_write_failures", "Writes of the configuration to disk that failed", written.failures),
        ];
        encode(encoder, &gauges, &counters)?;
        let help = "Connections that the node has reset: their listener was gone and the drain deadline over, their network left, or the process ended";
        let mut family = encoder.encode_descriptor("connections_cut", help, None, MetricType::Counter)?;
        for (reason, total) in self.cuts.totals() {
            let counter = ConstCounter::new(total);
            counter.encode(family.encode_family(&[("reason", reason.as_str())])?)?;
        }
        let help = "Connections, clients and probes that failed for want of a resource of this node";
        let mut family = encoder.encode_descriptor("shortages", help, None, MetricType::Counter)?;
        for (resource, total) in self.shortages.totals() {
            let counter = ConstCounter::new(total);
            counter.encode(family.encode_family(&[("resource", resource.as_str())])?)?;
        }
        Ok(())
    }

    fn health(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let health = self.health.metrics();
        let late = "Probes that started more than 100 ms late: CPU or slots are short";
        let counters = [
            ("probes", "Health probes started", health.started),
            ("probes_ok", "Good probes", health.ok),
            ("probes_failed", "Bad probes", health.failed),
            ("probes_inconclusive", "Probes that failed for a reason of our own", health.inconclusive),
            ("probes_late", late, health.late),
        ];
        let checked = "Addresses that are probed, each once however many backends share it";
        let gauges = [
            ("probes_in_flight", "Probes running", health.in_flight),
            ("backends_checked", checked, health.targets),
            ("backends_up", "Probed addresses that are up", health.up),
            ("backends_down", "Probed addresses that are down", health.down),
        ];
        encode(encoder, &gauges, &counters)?;
        checked_backends(encoder, &(self.backends)())
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listeners = bounded(&report);
        let ejected = "Backends that passive health checks leave out of this node's choice";
        let draining = "Connections of listeners that are gone; they are reset at the drain deadline";
        let leaving = "Connections on backends that take no new ones, or none of their listener; they are reset at the drain timeout of the pool, if it has one";
        let served = [
            ("connections_draining", draining, report.draining),
            ("backend_connections_draining", leaving, leaving_connections(&report)),
            ("listeners", "Listeners on this node", count(report.listeners.len())),
            ("backends_ejected", ejected, count(report.ejections.len())),
        ];
        encode(encoder, &served, &[])?;
        info(encoder, &listeners, &report)?;
        type Figure = fn(&ListenerCounters) -> u64;
        let made = "Connections that clients made, and sessions of UDP; also those that were turned away";
        let uncounted = "Connections that were not counted as their client's, whose limits did not hold for them: the table of clients was full";
        let failures = "Attempts to reach a backend that failed; one connection can count several";
        let over = "Datagrams of clients with a session, or to them, dropped because of the bandwidth limit";
        let waits = "Times that a connection had to wait because of the bandwidth limit";
        let dropped = "Datagrams of clients with a session, or to them, that this node could not send";
        let ejections = "Times that connections which failed had a backend left out of this node's choice";
        let withheld =
            "Times that a backend was to be left out, and was not, since as many of its pool were as may be";
        let counters: [(&str, &str, Option<Unit>, Figure); 14] = [
            ("listener_connections", made, None, |it| it.accepted),
            ("listener_connections_closed", "Connections that have ended", None, |it| it.closed),
            ("listener_clients_uncounted", uncounted, None, |it| it.clients_uncounted),
            ("listener_queued", "Connections that had to wait for a place at a backend", None, |it| {
                it.queued
            }),
            ("listener_connect_failures", failures, None, |it| it.connect_failures),
            ("listener_ejections", ejections, None, |it| it.ejections),
            ("listener_ejections_withheld", withheld, None, |it| it.ejections_withheld),
            ("listener_received", "Bytes from clients to backends", Some(Unit::Bytes), |it| it.bytes_in),
            ("listener_sent", "Bytes from backends to clients", Some(Unit::Bytes), |it| it.bytes_out),
            ("listener_datagrams_received", "Datagrams from clients to backends", None, |it| it.datagrams_in),
            ("listener_datagrams_sent", "Datagrams from backends to clients", None, |it| it.datagrams_out),
            ("listener_datagrams_dropped", dropped, None, |it| it.datagrams_dropped),
            ("listener_datagrams_over_bandwidth", over, None, |it| it.datagrams_over_bandwidth),
            ("listener_bandwidth_waits", waits, None, |it| it.bandwidth_waits),
        ];
        for (name, help, unit, figure) in counters {
            let figures = |it: &ListenerCounters| ConstCounter::new(figure(it));
            by_listener(encoder, (name, help, unit.as_ref()), &listeners, figures)?;
        }
        ends(encoder, &listeners)?;
        refused_headers(encoder, &listeners)?;
        let active = |it: &ListenerCounters| ConstGauge::new(i64::from(it.active));
        let described = ("listener_connections_active", "Connections at this moment", None);
        by_listener(encoder, described, &listeners, active)?;
        let waiting = |it: &ListenerCounters| ConstGauge::new(i64::from(it.waiting));
        let described =
            ("listener_connections_waiting", "Connections that wait for a place at a backend", None);
        by_listener(encoder, described, &listeners, waiting)?;
        let help = "Durations of connections that have reached a backend and ended, and of sessions of UDP";
        let described = ("listener_connection_duration", help, Some(&Unit::Seconds));
        by_listener(encoder, described, &listeners, |it| DurationHistogram(it.durations))
    }
}

/// Connections on backends that take no new ones, or none of their listener.
fn leaving_connections(report: &NodeReport) -> u64 {
    let drains = report.backends.values().filter_map(|backend| backend.drain);
    drains.map(|drain| u64::from(drain.connections)).sum()
}

/// Encodes the names of listeners, for joins.
fn info(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[(Uuid, ListenerCounters)],
    report: &NodeReport,
) -> fmt::Result {
    let help = "1, with the names of a listener and its load balancer";
    let one = ConstGauge::new(1_i64);
    let mut family = encoder.encode_descriptor("listener_info", help, None, one.metric_type())?;
    for item in listeners.iter().filter_map(|(id, _)| report.served.get(id)) {
        let Listener { id, load_balancer, names, .. } = &item.value;
        let (id, load_balancer) = (id.to_string(), load_balancer.to_string());
        let labels = [
            ("listener", id.as_str()),
            ("name", &names.listener),
            ("load_balancer", &load_balancer),
            ("load_balancer_name", &names.load_balancer),
            ("project", &names.project),
        ];
        one.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Encodes verdicts on backends, and the durations of their latest probes.
fn checked_backends(encoder: &mut DescriptorEncoder<'_>, backends: &[BackendCheck]) -> fmt::Result {
    let help = "1 if a backend is up for this node, 0 if it is down; none before the first verdict";
    let mut family = encoder.encode_descriptor("backend_up", help, None, MetricType::Gauge)?;
    for BackendCheck { backend, network, address, up, .. } in backends {
        let Some(up) = up else { continue };
        let (backend, network) = (backend.to_string(), network.to_string());
        let labels =
            [("backend", backend.as_str()), ("address", &address.to_string()), ("network", &network)];
        ConstGauge::new(i64::from(*up)).encode(family.encode_family(&labels)?)?;
    }
    let help = "Duration of a backend's latest probe, up to the answer or the time-out";
    let unit = Some(&Unit::Seconds);
    let mut family = encoder.encode_descriptor("backend_probe_duration", help, unit, MetricType::Gauge)?;
    for (backend, took) in backends.iter().filter_map(|check| Some((check.backend, check.took?))) {
        let labels = [("backend", backend.to_string())];
        ConstGauge::new(took.as_secs_f64()).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Encodes a metric (name, help, unit) with a series for each listener.
fn by_listener<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    listeners: &[(Uuid, ListenerCounters)],
    figure: impl Fn(&ListenerCounters) -> M,
) -> fmt::Result {
    let kind = figure(&ListenerCounters::default()).metric_type();
    let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
    for (listener, counters) in listeners {
        figure(counters).encode(family.encode_family(&[("listener", listener.to_string())])?)?;
    }
    Ok(())
}

/// Durations of one listener's connections.
struct DurationHistogram(Durations);

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Self(durations) = self;
        encoder.encode_histogram::<NoLabelSet>(
            durations.seconds(),
            durations.count(),
            &durations.buckets(),
            None,
        )
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Encodes how connections of listeners ended, by reason.
fn ends(encoder: &mut DescriptorEncoder<'_>, listeners: &[(Uuid, ListenerCounters)]) -> fmt::Result {
    let help = "Connections that were not served, or ended otherwise than by both sides closing them; no session of UDP that was idle";
    let mut family = encoder.encode_descriptor("listener_ends", help, None, MetricType::Counter)?;
    for (listener, counters) in listeners {
        let listener = listener.to_string();
        for (reason, total) in counters.by_reason() {
            let labels = [("listener", listener.as_str()), ("reason", reason.as_str())];
            ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Encodes the refused headers of listeners, by reason.
fn refused_headers(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[(Uuid, ListenerCounters)],
) -> fmt::Result {
    let help = "Connections of trusted proxies turned away for want of a valid PROXY header";
    let mut family =
        encoder.encode_descriptor("listener_refused_headers", help, None, MetricType::Counter)?;
    for (listener, counters) in listeners {
        let listener = listener.to_string();
        for (refusal, total) in HeaderRefusal::ALL.iter().zip(counters.refused_headers) {
            let labels = [("listener", listener.as_str()), ("reason", refusal.as_str())];
            ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Counters of the first listeners. A sum of the others would fall whenever one of them goes, and a counter must not.
fn bounded(report: &NodeReport) -> Vec<(Uuid, ListenerCounters)> {
    let mut all: Vec<_> = report.listeners.iter().map(|(id, counters)| (*id, *counters)).collect();
    all.sort_unstable_by_key(|(id, _)| *id);
    all.truncate(LISTENERS);
    all
}

/// Encodes metrics: name, help, value.
fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    gauges: &[(&str, &str, u64)],
    counters: &[(&str, &str, u64)],
) -> fmt::Result {
    for (name, help, value) in gauges {
        let gauge = ConstGauge::new(i64::try_from(*value).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    for (name, help, value) in counters {
        let counter = ConstCounter::new(*value);
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    Ok(())
}

fn count(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
