//! Metrics of the connection with the northbound database, collected by each scrape.

use fiberlb_northbound::Northbound;
use ovsdb::client::Client;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Exports the metrics of a connection.
pub(crate) fn register(registry: &mut Registry, northbound: Client<Northbound>) {
    registry.register_collector(Box::new(Messages(northbound)));
}

#[derive(Debug)]
struct Messages(Client<Northbound>);

impl Collector for Messages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let longest = ConstGauge::new(i64::try_from(self.0.longest_message()).unwrap_or(i64::MAX));
        let help = "Longest message of the northbound database since it was connected";
        let name = "northbound_longest_message";
        longest.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), longest.metric_type())?)
    }
}
