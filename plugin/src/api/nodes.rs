//! Proxy nodes as operators see them, and their verdicts on a backend.

use std::time::{Instant, SystemTime};

use fiberlb_proto::v1;
use prost_types::Timestamp;
use tonic::Status;

use super::peers::question;
use super::principal::Principal;
use super::render::{operating, timestamp};
use super::services::{Api, Audit};
use crate::fleet::{Duty, DutyError, Node, NodeRecord};
use crate::resources::Backend;
use crate::status::{BackendVerdict, Liveness};

impl Api {
    /// All proxy nodes, in the order of their ids.
    pub(super) async fn nodes(&self) -> Result<Vec<v1::Node>, Status> {
        match self.elsewhere().await? {
            Some(mut leader) => {
                Ok(leader.list_nodes(question(v1::ListNodesRequest {})).await?.into_inner().nodes)
            }
            None => Ok(self.nodes_here()),
        }
    }

    /// As [`Self::nodes`], on the leader.
    pub(super) fn nodes_here(&self) -> Vec<v1::Node> {
        let fleet = self.0.roles.fleet();
        let mut nodes = fleet.nodes(known);
        for node in &mut nodes {
            self.add_networks(node);
        }
        nodes
    }

    /// One proxy node.
    pub(super) async fn node(&self, id: &str) -> Result<v1::Node, Status> {
        match self.elsewhere().await? {
            Some(mut leader) => {
                Ok(leader.get_node(question(v1::GetNodeRequest { id: id.to_owned() })).await?.into_inner())
            }
            None => self.node_here(id).await,
        }
    }

    /// As [`Self::node`], on the leader.
    pub(super) async fn node_here(&self, id: &str) -> Result<v1::Node, Status> {
        let record = self.0.roles.fleet().record_of(id).await.map_err(|error| refusal(&error))?;
        Ok(self.as_stored(&record))
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
        let stored = self.as_stored(&result?);
        // The change is stored, whether or not the leader can be asked for the rest.
        Ok(self.node(id).await.unwrap_or(stored))
    }

    /// Removes a node that does not return.
    pub(super) async fn forget_node(&self, principal: &Principal, id: &str) -> Result<(), Status> {
        let result = match self.elsewhere().await? {
            Some(mut leader) => {
                let request = question(v1::RemoveNodeRequest { id: id.to_owned() });
                leader.remove_node(request).await.map(drop)
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

    /// A node as stored, with this plugin's observations of it.
    fn as_stored(&self, record: &NodeRecord) -> v1::Node {
        let mut wire = stored(record);
        // Only the leader receives the node's stream.
        let _ = self.0.roles.fleet().node(&record.id, |node| add_heard(&mut wire, node, Instant::now()));
        self.add_networks(&mut wire);
        wire
    }

    fn add_networks(&self, wire: &mut v1::Node) {
        let moves = self.0.roles.fleet().moves_of(&wire.id);
        wire.networks = count(self.0.roles.fleet().networks_of(&wire.id));
        wire.draining_networks = count(moves.draining);
        wire.waiting_for = moves.why.unwrap_or_default();
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

/// A node as this plugin knows it.
fn known(id: &str, node: &Node) -> v1::Node {
    let mut wire = node.record.as_ref().map(stored).unwrap_or_default();
    id.clone_into(&mut wire.id);
    add_heard(&mut wire, node, Instant::now());
    wire
}

/// The stored part of a node, the same on every plugin.
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
fn add_heard(wire: &mut v1::Node, node: &Node, now: Instant) {
    let (status, why) = liveness(node, now);
    let errors: Vec<&str> =
        node.results.values().filter_map(|result| result.as_ref().err()).map(String::as_str).collect();
    wire.reason = match (why, errors.first()) {
        ("", Some(first)) => format!("{} things cannot be carried out there, such as: {first}", errors.len()),
        (why, _) => why.to_owned(),
    };
    wire.status = status.into();
    wire.listeners = count(node.counters.len());
    wire.connections = if node.is_there(now) { node.connections() } else { 0 };
    wire.since = since(node, now);
}

/// Liveness of a node, and the reason.
fn liveness(node: &Node, now: Instant) -> (v1::NodeStatus, &'static str) {
    match node.contact.liveness(now) {
        Liveness::Alive => (v1::NodeStatus::Alive, ""),
        Liveness::Silent if node.contact.last.is_none() => {
            (v1::NodeStatus::Silent, "the plugin has just started and waits for it")
        }
        Liveness::Silent => (v1::NodeStatus::Silent, "its stream has just ended; waiting for its return"),
        Liveness::Dead => (
            v1::NodeStatus::Dead,
            "nothing is heard of it: is fiberlb-proxy running there, and can it reach the plugin?",
        ),
    }
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

/// Time at which its stream came or went, by the plugin's clock.
fn since(node: &Node, now: Instant) -> Option<Timestamp> {
    let at = SystemTime::now().checked_sub(now.saturating_duration_since(node.since))?;
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(timestamp(u64::try_from(since_1970.as_millis()).ok()?))
}
