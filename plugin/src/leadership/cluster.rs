//! Answers from whichever plugin on the store knows: this one if it leads, else the leader.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::plan::Installation;
use fiberlb_proto::agent::v1 as agent;
use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::v1;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::Semaphore;
use tonic::Request;
use tonic::transport::Channel;
use uuid::Uuid;

use super::{Role, Roles};
use crate::agents::{Plugins, node_state, refused, verdict_of, verification_of};
use crate::api::{ApiError, DutyChange, ErrorReason, NodeDirectory, NodeState, Reconciliation, Verification};
use crate::catalog::Model;
use crate::fleet::{Duty, DutyError, Node, NodeRecord};
use crate::metrics::Metrics;
use crate::reconcile::Planner;
use crate::status::{BackendVerdict, Liveness};

/// Deadline of a query to the leader. A comparison with OVN takes longest: seconds with very many load
/// balancers.
const ANSWER: Duration = Duration::from_secs(30);
/// Most differences in an answer.
const MOST: usize = 1000;

/// The plugins on one store, seen from this one.
pub struct Cluster {
    installation: Installation,
    model: Arc<Model>,
    northbound: Client<Northbound>,
    metrics: Arc<Metrics>,
    roles: Arc<Roles>,
    plugins: Plugins,
    /// Permits for concurrent comparisons with OVN.
    verifications: Arc<Semaphore>,
}

impl Cluster {
    /// `plugins`: client for queries to the leader.
    pub fn new(
        installation: Installation,
        model: Arc<Model>,
        northbound: Client<Northbound>,
        metrics: Arc<Metrics>,
        roles: Arc<Roles>,
        plugins: Plugins,
    ) -> Self {
        let verifications = Arc::new(Semaphore::new(1));
        Self { installation, model, northbound, metrics, roles, plugins, verifications }
    }

    /// True if this plugin leads.
    pub(super) fn leads(&self) -> bool {
        self.roles.leads()
    }

    /// A client of the leader; `None`: this plugin leads.
    async fn elsewhere(&self) -> Result<Option<PeerServiceClient<Channel>>, ApiError> {
        let unavailable = |text: String| ApiError::new(ErrorReason::LeaderUnavailable, text);
        match self.roles.role() {
            Role::Leads => Ok(None),
            Role::Follows(None) => Err(unavailable("no plugin leads at the moment: try again".to_owned())),
            Role::Follows(Some(record)) => match record.agents {
                Some(address) => {
                    self.plugins.ask(&address).await.map(Some).map_err(|status| refused(&status))
                }
                None => Err(unavailable(format!(
                    "only the leader, on {}, knows that, and others cannot ask it, for its agents.listen is off: ask it \
                     yourself",
                    record.host
                ))),
            },
        }
    }

    /// All nodes, on the leader.
    pub(super) fn nodes_here(&self) -> Vec<NodeState> {
        let mut nodes = self.roles.fleet().nodes(known);
        nodes.iter_mut().for_each(|node| self.add_networks(node));
        nodes
    }

    /// One node, on the leader.
    pub(super) async fn node_here(&self, id: &str) -> Result<NodeState, ApiError> {
        let record = self.roles.fleet().record_of(id).await.map_err(|error| refusal(&error))?;
        Ok(self.as_stored(&record))
    }

    /// Removes a node, on the leader.
    pub(super) async fn remove_here(&self, id: &str) -> Result<(), ApiError> {
        self.roles.fleet().remove_node(id).await.map_err(|error| refusal(&error))
    }

    /// Verdicts on a backend, on the leader.
    pub(super) fn verdicts_here(&self, backend: Uuid) -> Vec<(String, BackendVerdict)> {
        self.roles.fleet().verdicts_of(backend)
    }

    /// Compares the northbound database with the desired state, on the leader.
    pub(super) async fn verify_here(&self) -> Result<Verification, ApiError> {
        let busy =
            || ApiError::new(ErrorReason::Busy, "another comparison is under way: try again when it is done");
        let permit = Arc::clone(&self.verifications).try_acquire_owned().map_err(|_| busy())?;
        let northbound = self.northbound.status().borrow().to_string();
        if !self.northbound.is_live() {
            let text = format!("the northbound database is not connected: {northbound}");
            return Err(ApiError::new(ErrorReason::NorthboundUnavailable, text));
        }
        let planner = Planner {
            installation: self.installation,
            model: Arc::clone(&self.model),
            northbound: self.northbound.clone(),
            fleet: self.roles.fleet(),
        };
        // Takes seconds with very many load balancers, and must not block the runtime.
        let compared = tokio::task::spawn_blocking(move || (planner.verify(), permit)).await;
        let failed = |error: tokio::task::JoinError| ApiError::new(ErrorReason::Internal, error.to_string());
        let (differences, _permit) = compared.map_err(failed)?;
        Ok(Verification {
            total: differences.found.len(),
            differences: differences.found.into_iter().take(MOST).collect(),
            load_balancers: differences.load_balancers,
            waiting: usize::try_from(self.metrics.queue_length.get()).unwrap_or_default(),
            northbound,
        })
    }

    /// A node as stored, with this plugin's observations of it.
    fn as_stored(&self, record: &NodeRecord) -> NodeState {
        let mut state = stored(record);
        // Only the leader receives the node's stream.
        let _ = self.roles.fleet().node(&record.id, |node| add_heard(&mut state, node, Instant::now()));
        self.add_networks(&mut state);
        state
    }

    fn add_networks(&self, state: &mut NodeState) {
        let fleet = self.roles.fleet();
        let moves = fleet.moves_of(&state.id);
        state.networks = fleet.networks_of(&state.id);
        state.draining_networks = moves.draining;
        state.waiting_for = moves.why.unwrap_or_default();
    }
}

impl NodeDirectory for Cluster {
    fn list(&self) -> BoxFuture<'_, Result<Vec<NodeState>, ApiError>> {
        async {
            let Some(mut leader) = self.elsewhere().await? else { return Ok(self.nodes_here()) };
            let answer = leader.list_nodes(question(v1::ListNodesRequest {})).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            Ok(answer.nodes.into_iter().map(node_state).collect())
        }
        .boxed()
    }

    fn get<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        async move {
            let Some(mut leader) = self.elsewhere().await? else { return self.node_here(id).await };
            let answer = leader.get_node(question(v1::GetNodeRequest { id: id.to_owned() })).await;
            answer.map(|answer| node_state(answer.into_inner())).map_err(|status| refused(&status))
        }
        .boxed()
    }

    fn set_duty<'a>(&'a self, id: &'a str, change: DutyChange) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        async move {
            let changed = self.roles.fleet().set_duty(id, duty_after(change)).await;
            let stored = self.as_stored(&changed.map_err(|error| refusal(&error))?);
            // The change is stored, whether or not the leader can be asked for the rest.
            Ok(self.get(id).await.unwrap_or(stored))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        async move {
            let Some(mut leader) = self.elsewhere().await? else { return self.remove_here(id).await };
            let answer = leader.remove_node(question(v1::RemoveNodeRequest { id: id.to_owned() })).await;
            answer.map(drop).map_err(|status| refused(&status))
        }
        .boxed()
    }

    fn verdicts(&self, backend: Uuid) -> BoxFuture<'_, Result<Vec<(String, BackendVerdict)>, ApiError>> {
        async move {
            let Some(mut leader) = self.elsewhere().await? else { return Ok(self.verdicts_here(backend)) };
            let request = agent::GetVerdictsRequest { backend_id: backend.to_string() };
            let answer = leader.get_verdicts(question(request)).await.map_err(|status| refused(&status))?;
            Ok(answer.into_inner().verdicts.into_iter().map(verdict_of).collect())
        }
        .boxed()
    }
}

impl Reconciliation for Cluster {
    fn waiting_for(&self) -> Option<String> {
        match self.roles.role() {
            Role::Leads if self.northbound.is_live() => None,
            Role::Leads => {
                let status = self.northbound.status().borrow().to_string();
                Some(format!("stored; carried out when the northbound database is back: {status}"))
            }
            // The leader publishes its own dependency.
            Role::Follows(Some(_)) => None,
            Role::Follows(None) => {
                Some("stored; carried out once one of the plugins on the store leads".to_owned())
            }
        }
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verification, ApiError>> {
        async {
            let Some(mut leader) = self.elsewhere().await? else { return self.verify_here().await };
            let answer = leader.verify_ovn(question(v1::VerifyOvnRequest {})).await;
            answer.map(|answer| verification_of(answer.into_inner())).map_err(|status| refused(&status))
        }
        .boxed()
    }
}

fn duty_after(change: DutyChange) -> fn(Duty) -> Duty {
    match change {
        DutyChange::Cordon => Duty::cordoned,
        DutyChange::Uncordon => |_| Duty::Active,
        DutyChange::Drain => |_| Duty::Draining,
    }
}

/// A query to the leader, with its deadline.
fn question<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// A node as this plugin knows it.
fn known(id: &str, node: &Node) -> NodeState {
    let mut state = node.record.as_ref().map(stored).unwrap_or_default();
    id.clone_into(&mut state.id);
    add_heard(&mut state, node, Instant::now());
    state
}

/// The stored part of a node, the same on every plugin.
fn stored(record: &NodeRecord) -> NodeState {
    NodeState {
        id: record.id.clone(),
        zone: record.zone.clone(),
        chassis: record.chassis.clone(),
        release: record.release.clone(),
        registered_at: record.registered_at,
        cordoned: record.duty != Duty::Active,
        draining: record.duty == Duty::Draining,
        ..NodeState::default()
    }
}

/// Adds the state of its stream.
fn add_heard(state: &mut NodeState, node: &Node, now: Instant) {
    let (liveness, why) = liveness(node, now);
    let errors: Vec<&str> =
        node.results.values().filter_map(|result| result.as_ref().err()).map(String::as_str).collect();
    state.reason = match (why, errors.first()) {
        ("", Some(first)) => format!("{} things cannot be carried out there, such as: {first}", errors.len()),
        (why, _) => why.to_owned(),
    };
    state.liveness = Some(liveness);
    state.listeners = node.counters.len();
    state.connections = if node.is_there(now) { node.connections() } else { 0 };
    state.since = since(node, now);
}

/// Liveness of a node, and the reason.
fn liveness(node: &Node, now: Instant) -> (Liveness, &'static str) {
    let liveness = node.contact.liveness(now);
    let why = match liveness {
        Liveness::Alive => "",
        Liveness::Silent if node.contact.last.is_none() => "the plugin has just started and waits for it",
        Liveness::Silent => "its stream has just ended; waiting for its return",
        Liveness::Dead => {
            "nothing is heard of it: is fiberlb-proxy running there, and can it reach the plugin?"
        }
    };
    (liveness, why)
}

/// Error for an operation that a node does not allow.
fn refusal(error: &DutyError) -> ApiError {
    let reason = match error {
        DutyError::Unknown(_) => ErrorReason::NotFound,
        DutyError::Connected(_) | DutyError::Unreadable(_) => ErrorReason::NodeState,
        DutyError::Read(_) => ErrorReason::StoreUnavailable,
        DutyError::Elsewhere(_) => ErrorReason::LeaderUnavailable,
        DutyError::Write(error) => return error.into(),
    };
    ApiError::new(reason, error.to_string())
}

/// Time at which its stream came or went, by the plugin's clock.
fn since(node: &Node, now: Instant) -> Option<u64> {
    let at = SystemTime::now().checked_sub(now.saturating_duration_since(node.since))?;
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since_1970.as_millis()).ok()
}
