//! Proxy nodes and verdicts.

use fiberlb_proto::v1;

use super::state::{operating, timestamp};
use crate::api::BackendHealth;
use crate::status::BackendVerdict;

/// Health of a backend.
pub(super) fn health(health: BackendHealth) -> v1::BackendHealth {
    v1::BackendHealth {
        backend_id: health.backend.to_string(),
        operating_status: operating(health.status.operating).into(),
        reason: health.status.reason,
        verdicts: health.verdicts.into_iter().map(verdict).collect(),
    }
}

fn verdict((node_id, verdict): (String, BackendVerdict)) -> v1::NodeVerdict {
    let since = Some(timestamp(verdict.since_ms));
    v1::NodeVerdict { node_id, up: verdict.up, reason: verdict.reason, since }
}
