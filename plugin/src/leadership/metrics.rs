//! Metrics of the proxy nodes, exported by the leader.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Roles;
use crate::status::Liveness;

/// Exports the metrics of the proxy nodes, on the leader only.
pub(crate) fn register(registry: &mut Registry, roles: Arc<Roles>) {
    registry.register_collector(Box::new(Nodes(roles)));
}

/// A proxy node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

/// Collector of the nodes' metrics, run by each scrape. One series per node, so that tenants cannot inflate
/// their number.
struct Nodes(Arc<Roles>);

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nodes")
    }
}

impl Collector for Nodes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if !self.0.leads() {
            return Ok(());
        }
        let now = Instant::now();
        let nodes = self.0.fleet().nodes(|id, node| {
            let active = node.connections();
            let alive = node.contact.liveness(now) == Liveness::Alive;
            (NodeLabel { node: id.to_owned() }, i64::from(alive), i64::try_from(active).unwrap_or(i64::MAX))
        });
        let (up, connections) =
            (Family::<NodeLabel, Gauge>::default(), Family::<NodeLabel, Gauge>::default());
        for (label, alive, active) in nodes {
            up.get_or_create(&label).set(alive);
            connections.get_or_create(&label).set(active);
        }
        let all = [
            ("node_up", "1 while the proxy node is connected", up),
            ("node_connections", "Connections that the proxy node carries at this moment", connections),
        ];
        for (name, help, family) in all {
            family.encode(encoder.encode_descriptor(name, help, None, family.metric_type())?)?;
        }
        Ok(())
    }
}
