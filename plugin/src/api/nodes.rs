//! Proxy nodes as operators see them, and their verdicts on a backend.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::error::{ApiError, ErrorReason};
use super::statistics::Draining;
use super::use_cases::UseCases;
use crate::auth::{Object, Principal, Verb, authorize};
use crate::resources::Backend;
use crate::status::{BackendVerdict, EjectedBackend, InconclusiveCheck, Liveness, Status};

/// Change of a node's duty, ordered by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DutyChange {
    /// It gets no more networks.
    Cordon,
    /// It gets networks again.
    Uncordon,
    /// Its networks move to others.
    Drain,
}

impl DutyChange {
    /// Name of the operation in audit lines and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Drain => "drain",
        }
    }
}

/// State of a proxy node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// Name of the node.
    pub id: String,
    /// Liveness; `None`: not known here.
    pub liveness: Option<Liveness>,
    /// Reason of what is wrong with it, for people.
    pub reason: String,
    /// Availability zone.
    pub zone: String,
    /// Name of the OVN chassis that it runs on.
    pub chassis: String,
    /// Release of the node agent.
    pub release: String,
    /// Networks on which it has a port.
    pub networks: usize,
    /// Listeners that it serves.
    pub listeners: usize,
    /// Open connections.
    pub connections: u64,
    /// Time of its first registration, in milliseconds since 1970; 0: it is not registered.
    pub registered_at: u64,
    /// Time at which its stream came or went, in milliseconds since 1970.
    pub since: Option<u64>,
    /// True: it gets no more networks.
    pub cordoned: bool,
    /// True: its networks move to others.
    pub draining: bool,
    /// Networks that move away from it.
    pub draining_networks: usize,
    /// Connections on these, and when what is left of them is reset.
    pub connections_draining: Draining,
    /// Reason why these have not moved yet.
    pub waiting_for: String,
    /// Network that the reason is about.
    pub waiting_network: Option<Uuid>,
    /// Capabilities of its data plane, by their words.
    pub capabilities: Vec<String>,
}

/// The proxy nodes, as far as they are known to this plugin.
pub trait NodeDirectory: Send + Sync + 'static {
    /// All nodes, in the order of their ids.
    fn list(&self) -> Vec<NodeState>;

    /// One node.
    ///
    /// # Errors
    /// There is none, or the store cannot be read.
    fn get<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<NodeState, ApiError>>;

    /// Stores the duty that an operator orders.
    ///
    /// # Errors
    /// There is no such node, or the store cannot be written.
    fn set_duty<'a>(&'a self, id: &'a str, change: DutyChange) -> BoxFuture<'a, Result<NodeState, ApiError>>;

    /// Removes a node that does not return.
    ///
    /// # Errors
    /// There is no such node, it is connected, the leader cannot be asked, or the store cannot be written.
    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ApiError>>;
}

/// Health of a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendHealth {
    /// The backend.
    pub backend: Uuid,
    /// Its status.
    pub status: Status,
    /// Verdicts of the nodes that check it, by node.
    pub verdicts: Vec<(String, BackendVerdict)>,
    /// Checks of nodes that say nothing, by node.
    pub inconclusive: Vec<(String, InconclusiveCheck)>,
    /// Nodes that leave it out by the pool's passive health check.
    pub ejections: Vec<(String, EjectedBackend)>,
    /// Addresses of nodes on the network, by node.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl UseCases {
    /// All proxy nodes, in the order of their ids.
    ///
    /// # Errors
    /// The principal may not see them.
    pub fn nodes(&self, principal: &Principal) -> Result<Vec<NodeState>, ApiError> {
        may_operate(principal, Verb::List)?;
        Ok(self.on().nodes.list().into_iter().map(|node| self.named(node)).collect())
    }

    /// One proxy node.
    ///
    /// # Errors
    /// As [`NodeDirectory::get`].
    pub async fn node(&self, principal: &Principal, id: &str) -> Result<NodeState, ApiError> {
        may_operate(principal, Verb::Get)?;
        Ok(self.named(self.on().nodes.get(id).await?))
    }

    /// The node with the network that it waits for in the reason, by name where it has one.
    fn named(&self, mut node: NodeState) -> NodeState {
        if let Some(network) = node.waiting_network {
            let name = Some(self.network_name(network)).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| network.to_string());
            node.waiting_for = format!("network {name}: {}", node.waiting_for);
        }
        node
    }

    /// Stores the duty that an operator orders for a node.
    ///
    /// # Errors
    /// As [`NodeDirectory::set_duty`].
    pub async fn set_duty(
        &self,
        principal: &Principal,
        id: &str,
        change: DutyChange,
    ) -> Result<NodeState, ApiError> {
        let write = async {
            may_operate(principal, Verb::Update)?;
            Ok(self.named(self.on().nodes.set_duty(id, change).await?))
        };
        let of = |node: &NodeState| node.id.clone();
        self.audited(principal, change.as_str(), Object::Node, id, write, of).await
    }

    /// Removes a node that does not return.
    ///
    /// # Errors
    /// As [`NodeDirectory::remove`].
    pub async fn remove_node(&self, principal: &Principal, id: &str) -> Result<(), ApiError> {
        let write = async {
            may_operate(principal, Verb::Delete)?;
            self.on().nodes.remove(id).await
        };
        self.audited(principal, "remove", Object::Node, id, write, |()| id.to_owned()).await
    }

    /// Health of a backend, with the verdicts of the nodes that check it.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's.
    pub fn backend_health(&self, principal: &Principal, id: Uuid) -> Result<BackendHealth, ApiError> {
        let (tree, record) = self.find::<Backend>(principal, Verb::Get, id)?;
        let view = self.view(tree);
        let fleet = &view.observation.carried.view;
        let verdicts = fleet.verdicts.get(&id).into_iter().flatten();
        let verdicts = verdicts.map(|(node, verdict)| (node.clone(), verdict.clone())).collect();
        let inconclusive = fleet.doubts(id).map(|(node, check)| (node.id.clone(), check.clone())).collect();
        let ejections = fleet.ejections_of(id).map(|(node, it)| (node.id.clone(), it.clone())).collect();
        let hosts = fleet.nodes.iter().map(|node| (node.id.clone(), node.hosts.clone())).collect();
        let status = view.observed(&record).status;
        Ok(BackendHealth { backend: id, status, verdicts, inconclusive, ejections, hosts })
    }
}

fn may_operate(principal: &Principal, verb: Verb) -> Result<(), ApiError> {
    let denied = |_| ApiError::new(ErrorReason::NotFound, "there is no such node");
    authorize(principal, verb, Object::Node, None).map_err(denied)
}
