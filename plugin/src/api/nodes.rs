//! Proxy nodes as operators see them, and their verdicts on a backend.

use fiberlb_proto::v1;
use tonic::Status;

use super::peers::{Client, question};
use super::principal::Principal;
use super::render::{operating, timestamp};
use super::services::{Api, Audit};
use crate::fleet::{Duty, DutyError, NodeRecord, NodeStatus, NodeView};
use crate::resources::Backend;
use crate::status::{BackendVerdict, Liveness};

impl Api {
    /// All proxy nodes, in the order of their ids.
    pub(super) fn nodes(&self) -> Vec<v1::Node> {
        self.0.roles.node_views().iter().map(render).collect()
    }

    /// One proxy node.
    pub(super) async fn node(&self, id: &str) -> Result<v1::Node, Status> {
        let record = self.0.roles.fleet().record_of(id).await.map_err(|error| refusal(&error))?;
        Ok(render(&self.0.roles.node_view(record)))
    }

    /// Applies `change` to a node's duty.
    pub(super) async fn set_duty(
        &self,
        principal: &Principal,
        operation: &'static str,
        change: fn(Duty) -> Duty,
        id: &str,
    ) -> Result<v1::Node, Status> {
        let result = self.0.roles.fleet().set_duty(id, change).await.map_err(|error| refusal(&error));
        let line = Audit { principal, resource: "node", operation, id };
        self.audit(&line, &result.as_ref().map(|record| record.id.clone()));
        Ok(render(&self.0.roles.node_view(result?)))
    }

    /// Removes a node that does not return.
    pub(super) async fn forget_node(&self, principal: &Principal, id: &str) -> Result<(), Status> {
        let result = match self.leader()? {
            Some(leader) => {
                let request = question(v1::RemoveNodeRequest { id: id.to_owned() });
                let ask = |mut client: Client| async move { client.remove_node(request).await };
                self.0.plugins.ask(&leader, ask).await.map(drop)
            }
            None => self.forget_node_here(id).await,
        };
        let line = Audit { principal, resource: "node", operation: "remove", id };
        self.audit(&line, &result.as_ref().map(|()| id.to_owned()));
        result
    }

    /// As [`Self::forget_node`], on the leader.
    pub(super) async fn forget_node_here(&self, id: &str) -> Result<(), Status> {
        self.0.roles.fleet().remove_node(id).await.map_err(|error| refusal(&error))
    }

    /// Health of a backend, with the verdicts of the nodes that check it.
    pub(super) fn backend_health(
        &self,
        principal: &Principal,
        id: &str,
    ) -> Result<v1::BackendHealth, Status> {
        let (tree, record) = self.find::<Backend>(principal, id)?;
        let observation = self.0.model.observation(tree.id());
        let status = self.view(tree).statuses().backend(&record);
        let verdicts = observation.carried.view.verdicts.get(&record.id).into_iter().flatten();
        Ok(v1::BackendHealth {
            backend_id: record.id.to_string(),
            operating_status: operating(status.operating).into(),
            reason: status.reason,
            verdicts: verdicts.map(|(node, verdict)| node_verdict(node, verdict)).collect(),
        })
    }
}

fn node_verdict(node: &str, verdict: &BackendVerdict) -> v1::NodeVerdict {
    v1::NodeVerdict {
        node_id: node.to_owned(),
        up: verdict.up,
        reason: verdict.reason.clone(),
        since: Some(timestamp(verdict.since_ms)),
    }
}

fn render(view: &NodeView) -> v1::Node {
    let mut wire = view.record.as_ref().map(stored).unwrap_or_default();
    wire.id.clone_from(&view.id);
    wire.networks = count(view.networks);
    wire.draining_networks = count(view.draining_networks);
    match &view.status {
        Some(status) => add_status(&mut wire, status),
        None => "the leader has not published its state yet".clone_into(&mut wire.reason),
    }
    wire
}

/// The stored part of a node.
fn stored(record: &NodeRecord) -> v1::Node {
    v1::Node {
        id: record.id.clone(),
        zone: record.zone.clone(),
        chassis: record.chassis.clone(),
        release: record.release.clone(),
        registered_at: Some(timestamp(record.registered_at)),
        cordoned: record.duty != Duty::Active,
        draining: record.duty == Duty::Draining,
        ..v1::Node::default()
    }
}

/// Adds the state of its stream.
fn add_status(wire: &mut v1::Node, status: &NodeStatus) {
    let liveness = match status.liveness {
        Liveness::Alive => v1::NodeStatus::Alive,
        Liveness::Silent => v1::NodeStatus::Silent,
        Liveness::Dead => v1::NodeStatus::Dead,
    };
    wire.status = liveness.into();
    wire.reason.clone_from(&status.reason);
    wire.since = Some(timestamp(status.since_ms));
    wire.listeners = count(status.listeners);
    wire.connections = status.connections;
    wire.waiting_for.clone_from(&status.waiting_for);
}

/// Status for an operation that a node does not allow.
fn refusal(error: &DutyError) -> Status {
    let text = error.to_string();
    match error {
        DutyError::Unknown(_) => Status::not_found(text),
        DutyError::Connected(_) | DutyError::Unreadable(_) => Status::failed_precondition(text),
        DutyError::Read(_) | DutyError::Elsewhere(_) => Status::unavailable(text),
        DutyError::Write(error) => super::errors::status(error),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
