//! The proxy nodes as operators see them, and what they say of a backend.

use std::time::{Instant, SystemTime};

use fiberlb_proto::v1;
use prost_types::Timestamp;
use tonic::Status;

use super::principal::Principal;
use super::render::{operating, timestamp};
use super::services::Api;
use crate::fleet::{Liveness, Node};
use crate::resources::Backend;

impl Api {
    /// All proxy nodes, in the order of their ids.
    pub(super) fn nodes(&self) -> Vec<v1::Node> {
        let fleet = self.0.roles.fleet();
        let mut nodes = fleet.nodes(|id, node| render(id, node, Instant::now()));
        for node in &mut nodes {
            node.networks = u32::try_from(fleet.networks_of(&node.id)).unwrap_or(u32::MAX);
        }
        nodes
    }

    /// What the nodes that check a backend say of it.
    pub(super) fn backend_health(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<v1::BackendHealth, Status> {
        let (tree, record) = self.find::<Backend>(principal, id)?;
        let status = self.view(tree).statuses().backend(&record);
        let verdicts = self.0.roles.fleet().verdicts_of(record.id).into_iter().map(|(node_id, verdict)| {
            v1::NodeVerdict {
                node_id,
                up: verdict.up,
                reason: verdict.reason,
                since: Some(timestamp(verdict.since_ms)),
            }
        });
        Ok(v1::BackendHealth {
            backend_id: record.id.to_string(),
            operating_status: operating(status.operating).into(),
            reason: status.reason,
            verdicts: verdicts.collect(),
        })
    }
}

fn render(id: &str, node: &Node, now: Instant) -> v1::Node {
    let (status, reason) = match node.heard.liveness(now) {
        Liveness::Alive => (v1::NodeStatus::Alive, String::new()),
        Liveness::Silent if node.heard.last.is_none() => {
            (v1::NodeStatus::Silent, "the plugin has just started and waits for it".to_owned())
        }
        Liveness::Silent => {
            (v1::NodeStatus::Silent, "its stream has just ended; waiting for its return".to_owned())
        }
        Liveness::Dead => {
            let why = "nothing is heard of it: is fiberlb-proxy running there, and can it reach the plugin?";
            (v1::NodeStatus::Dead, why.to_owned())
        }
    };
    let errors: Vec<&str> =
        node.results.values().filter_map(|result| result.as_ref().err()).map(String::as_str).collect();
    let reason = errors.first().filter(|_| reason.is_empty()).map_or(reason, |first| {
        format!("{} things cannot be carried out there, such as: {first}", errors.len())
    });
    let record = node.record.as_ref();
    let text =
        |field: fn(&crate::fleet::NodeRecord) -> &String| record.map(field).cloned().unwrap_or_default();
    v1::Node {
        id: id.to_owned(),
        status: status.into(),
        reason,
        zone: text(|record| &record.zone),
        chassis: text(|record| &record.chassis),
        release: text(|record| &record.release),
        networks: 0,
        listeners: u32::try_from(node.counters.len()).unwrap_or(u32::MAX),
        registered_at: record.map(|record| timestamp(record.registered_at)),
        since: since(node, now),
    }
}

/// When its stream came or went, by the plugin's clock.
fn since(node: &Node, now: Instant) -> Option<Timestamp> {
    let at = SystemTime::now().checked_sub(now.saturating_duration_since(node.since))?;
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(timestamp(u64::try_from(since_1970.as_millis()).ok()?))
}
