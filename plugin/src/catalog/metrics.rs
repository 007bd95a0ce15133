//! Numbers of stored resources, collected by each scrape.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Model;
use super::status_counts::StatusCounts;
use crate::status::{Operating, Provisioning};

/// Exports the numbers of resources in `model`.
pub(crate) fn register(registry: &mut Registry, model: Arc<Model>) {
    let statuses = Mutex::new(StatusCounts::new(Arc::clone(&model)));
    registry.register_collector(Box::new(Resources { model, statuses }));
}

struct Resources {
    model: Arc<Model>,
    statuses: Mutex<StatusCounts>,
}

impl std::fmt::Debug for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resources")
    }
}

/// Statuses that have a series also where no load balancer has them: all but those that none can have.
fn statuses() -> impl Iterator<Item = (Provisioning, Operating)> {
    let operating = [Operating::Online, Operating::Offline, Operating::Degraded, Operating::Error];
    Provisioning::ALL.into_iter().flat_map(move |status| operating.map(|operating| (status, operating)))
}

impl Resources {
    fn load_balancers(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.statuses.lock().unwrap_or_else(PoisonError::into_inner).renewed();
        let help = "Load balancers that are stored, by status";
        let mut family = encoder.encode_descriptor("load_balancers", help, None, MetricType::Gauge)?;
        for (provisioning, operating) in statuses() {
            let count = counts.get(&(provisioning, operating)).copied().unwrap_or_default();
            let labels =
                [("provisioning_status", provisioning.as_str()), ("operating_status", operating.as_str())];
            gauge(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn gauge(count: u64) -> ConstGauge {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

impl Collector for Resources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.load_balancers(&mut encoder)?;
        let help = "Listeners, pools, backends and health checks that are stored";
        let below = gauge(u64::try_from(self.model.counts().1).unwrap_or(u64::MAX));
        below.encode(encoder.encode_descriptor("resources", help, None, below.metric_type())?)?;
        let all = [
            (
                "vips",
                "Most that the rows of all load balancers take in the northbound database, in their column vips",
                self.model.vips_bytes(),
            ),
            (
                "project_vips",
                "The same, of the project whose load balancers take the most",
                self.model.vips_bytes_of_largest_project(),
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
