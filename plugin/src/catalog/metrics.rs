//! Numbers of stored resources, collected by each scrape.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Model;

/// Exports the numbers of resources in `model`.
pub(crate) fn register(registry: &mut Registry, model: Arc<Model>) {
    registry.register_collector(Box::new(Resources(model)));
}

struct Resources(Arc<Model>);

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resources")
    }
}

impl Collector for Resources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (load_balancers, below) = self.0.counts();
        let gauge = |count: u64| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let all = [
            ("load_balancers", "Load balancers that are stored", load_balancers),
            ("resources", "Listeners, pools, backends and health checks that are stored", below),
        ];
        for (name, help, count) in all {
            let gauge = gauge(u64::try_from(count).unwrap_or(u64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let all = [
            (
                "vips",
                "Most that the rows of all load balancers take in the northbound database, in their column vips",
                self.0.vips_bytes(),
            ),
            (
                "project_vips",
                "The same, of the project whose load balancers take the most",
                self.0.vips_bytes_of_largest_project(),
            ),
        ];
        for (name, help, bytes) in all {
            let gauge = gauge(bytes);
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                Some(&Unit::Bytes),
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}
