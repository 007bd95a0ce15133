//! Proxy nodes and verdicts.

use fiberlb_proto::v1;

use super::state::{operating, timestamp};
use crate::api::{BackendHealth, NodeState};
use crate::status::{BackendVerdict, EjectedBackend, InconclusiveCheck, Liveness};

/// Health of a backend.
pub(super) fn health(health: BackendHealth) -> v1::BackendHealth {
    let addresses = |node: &str| -> Vec<String> {
        health.hosts.get(node).into_iter().flatten().map(ToString::to_string).collect()
    };
    let verdict = |(node_id, verdict): (String, BackendVerdict)| v1::NodeVerdict {
        addresses: addresses(&node_id),
        node_id,
        up: verdict.up,
        reason: verdict.reason,
        since: Some(timestamp(verdict.since_ms)),
    };
    let inconclusive = |(node_id, check): (String, InconclusiveCheck)| v1::NodeInconclusive {
        addresses: addresses(&node_id),
        node_id,
        reason: check.reason,
        since: Some(timestamp(check.since_ms)),
    };
    let ejection = |(node_id, ejection): (String, EjectedBackend)| v1::NodeEjection {
        node_id,
        until: Some(timestamp(ejection.until_ms)),
        reason: ejection.reason,
    };
    v1::BackendHealth {
        backend_id: health.backend.to_string(),
        operating_status: operating(health.status.operating).into(),
        reason: health.status.reason,
        verdicts: health.verdicts.into_iter().map(verdict).collect(),
        inconclusive: health.inconclusive.into_iter().map(inconclusive).collect(),
        ejections: health.ejections.into_iter().map(ejection).collect(),
    }
}

/// Message of a node.
pub(super) fn node(node: NodeState) -> v1::Node {
    let status = match node.liveness {
        None => v1::NodeStatus::Unspecified,
        Some(Liveness::Alive) => v1::NodeStatus::Alive,
        Some(Liveness::Silent) => v1::NodeStatus::Silent,
        Some(Liveness::Dead) => v1::NodeStatus::Dead,
    };
    v1::Node {
        id: node.id,
        status: status.into(),
        reason: node.reason,
        zone: node.zone,
        chassis: node.chassis,
        release: node.release,
        networks: count(node.networks),
        listeners: count(node.listeners),
        registered_at: (node.registered_at > 0).then(|| timestamp(node.registered_at)),
        since: node.since.map(timestamp),
        cordoned: node.cordoned,
        draining: node.draining,
        draining_networks: count(node.draining_networks),
        connections: node.connections,
        waiting_for: node.waiting_for,
        capabilities: node.capabilities,
        connections_draining: node.connections_draining.connections,
        drain_deadline: node.connections_draining.deadline_ms.map(timestamp),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
