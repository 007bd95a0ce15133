//! Answers from whichever plugin on the store knows: this one if it leads, else the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::Installation;
use fiberlb_proto::agent::v1::GetCountedTrafficRequest;
use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::v1;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use ovsdb::client::Client;
use tokio::sync::Semaphore;
use tokio::time::Interval;
use tonic::Request;
use tonic::transport::Channel;
use uuid::Uuid;

use super::disconnection::disconnection;
use super::places::StreamPlaces;
use super::{Role, Roles};
use crate::agents::{PeerAddress, Plugins};
use crate::api::{
    AccessLogs, ApiError, Draining, DutyChange, ErrorObject, ErrorReason, LogBatch, LogStream, NodeDirectory,
    NodeState, Reconciliation, Traffic, TrafficCounters, Verification,
};
use crate::catalog::Model;
use crate::fleet::{Duty, DutyError, Fleet, LogReader, NodeRecord, NodeStatus, NodeView};
use crate::metrics::Metrics;
use crate::reconcile::Planner;
use crate::resources::Kind;
use crate::wire::{access_log_of, counted_of, error_of, verification_of};

/// Deadline of a query to the leader. A comparison with OVN takes longest: seconds with very many load
/// balancers.
const ANSWER: Duration = Duration::from_secs(30);
/// Interval of looks whether this plugin still leads, while somebody reads an access log.
const LOOK: Duration = Duration::from_secs(1);
/// Client of the leader.
type PeerClient = PeerServiceClient<Channel>;

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
    /// The same for what goes on for long, over a connection of its own, whose streams are bounded.
    stream_plugins: Plugins,
    streams: Arc<StreamPlaces>,
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
        let (verifications, streams) = (Arc::new(Semaphore::new(1)), Arc::default());
        let stream_plugins = plugins.on_another_connection();
        Self {
            installation,
            model,
            northbound,
            metrics,
            roles,
            plugins,
            stream_plugins,
            streams,
            verifications,
        }
    }

    /// True if this plugin leads.
    pub(super) fn leads(&self) -> bool {
        self.roles.leads()
    }

    /// Address of the leader, for what it alone can do; `None`: this plugin leads.
    fn leader(&self) -> Result<Option<PeerAddress>, ApiError> {
        let unavailable = |text: String| ApiError::new(ErrorReason::LeaderUnavailable, text);
        match self.roles.role() {
            Role::Leads => Ok(None),
            Role::Follows(None) => Err(unavailable("no plugin leads at the moment: try again".to_owned())),
            Role::Follows(Some(record)) => record.agents.map(Some).ok_or_else(|| {
                unavailable(format!(
                    "only the leader, on {}, can do that, and others cannot ask it, for its agents.listen is off: ask it \
                     yourself",
                    record.host
                ))
            }),
        }
    }

    /// Removes a node, on the leader.
    pub(super) async fn remove_here(&self, id: &str) -> Result<(), ApiError> {
        self.roles.fleet().remove_node(id).await.map_err(|error| refusal(id, &error))
    }

    /// Traffic of the listeners and backends of a load balancer, on the leader.
    pub(super) fn traffic_here(&self, load_balancer: Uuid) -> BTreeMap<Uuid, Traffic> {
        self.roles.fleet().traffic(load_balancer)
    }

    /// Connections of a listener, on the leader. The stream ends once this plugin has not led without a break.
    ///
    /// # Errors
    /// Too many listeners are read.
    pub(super) fn access_log_here(&self, listener: Uuid) -> Result<LogStream, ApiError> {
        let fleet = self.roles.fleet();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let reader = fleet.read_access_log(listener)?;
        let local = LocalReader { reader, fleet, roles: Arc::clone(&self.roles), look };
        let next = async |local: Option<LocalReader>| {
            let mut local = local?;
            Some(match local.next().await {
                Ok(batch) => (Ok(batch), Some(local)),
                Err(error) => (Err(error), None),
            })
        };
        Ok(stream::unfold(Some(local), next).boxed())
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
            lacking: differences.lacking.into_iter().map(str::to_owned).collect(),
        })
    }
}

/// Reader of what the nodes of this plugin send, for as long as it leads.
struct LocalReader {
    reader: LogReader,
    fleet: Arc<Fleet>,
    roles: Arc<Roles>,
    look: Interval,
}

impl LocalReader {
    async fn next(&mut self) -> Result<LogBatch, ApiError> {
        loop {
            tokio::select! {
                batch = self.reader.next() => return Ok(batch),
                _ = self.look.tick() => {
                    if !self.roles.leads() || !Arc::ptr_eq(&self.roles.fleet(), &self.fleet) {
                        let text = "another plugin leads now: read again";
                        return Err(ApiError::new(ErrorReason::LeaderUnavailable, text));
                    }
                }
            }
        }
    }
}

impl NodeDirectory for Cluster {
    fn list(&self) -> Vec<NodeState> {
        self.roles.node_views().into_iter().map(shown).collect()
    }

    fn get<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        async move {
            let record = self.roles.fleet().record_of(id).await.map_err(|error| refusal(id, &error))?;
            Ok(shown(self.roles.node_view(record)))
        }
        .boxed()
    }

    fn set_duty<'a>(&'a self, id: &'a str, change: DutyChange) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        async move {
            let changed = self.roles.fleet().set_duty(id, duty_after(change)).await;
            Ok(shown(self.roles.node_view(changed.map_err(|error| refusal(id, &error))?)))
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        async move {
            let Some(leader) = self.leader()? else { return self.remove_here(id).await };
            let request = question(v1::RemoveNodeRequest { id: id.to_owned() });
            let ask = |mut client: PeerClient| async move { client.remove_node(request).await };
            self.plugins.ask(&leader, ask).await.map(drop).map_err(|status| error_of(&status))
        }
        .boxed()
    }
}

impl TrafficCounters for Cluster {
    fn traffic(&self, load_balancer: Uuid) -> BoxFuture<'_, Result<BTreeMap<Uuid, Traffic>, ApiError>> {
        async move {
            let Some(leader) = self.leader()? else { return Ok(self.traffic_here(load_balancer)) };
            let request = question(GetCountedTrafficRequest { load_balancer_id: load_balancer.to_string() });
            let ask = |mut client: PeerClient| async move { client.get_counted_traffic(request).await };
            let answer = self.plugins.ask(&leader, ask).await;
            answer.map(counted_of).map_err(|status| error_of(&status))
        }
        .boxed()
    }
}

impl AccessLogs for Cluster {
    fn read(&self, listener: Uuid) -> BoxFuture<'_, Result<LogStream, ApiError>> {
        async move {
            let Some(leader) = self.leader()? else { return self.access_log_here(listener) };
            let owner = self.model.tree_of(Kind::Listener, listener);
            let owner = owner.map(|tree| tree.load_balancer.spec.project_id.clone()).unwrap_or_default();
            let place = self.streams.take(&owner)?;
            // The stream has no deadline, only its beginning.
            let request = Request::new(v1::StreamAccessLogRequest { id: listener.to_string() });
            let ask = |mut client: PeerClient| async move { client.stream_access_log(request).await };
            let opened = tokio::time::timeout(ANSWER, self.stream_plugins.ask(&leader, ask)).await;
            let silent = |_| ApiError::new(ErrorReason::LeaderUnavailable, "the leader does not answer");
            let answer = opened.map_err(silent)?.map_err(|status| error_of(&status))?;
            let batches = answer.map(move |batch| {
                let _held = &place;
                batch.map(access_log_of).map_err(|status| error_of(&status))
            });
            Ok(batches.boxed())
        }
        .boxed()
    }
}

impl Reconciliation for Cluster {
    fn waiting_for(&self) -> Option<String> {
        match self.roles.role() {
            Role::Leads if self.northbound.is_live() => None,
            Role::Leads => {
                let status = disconnection(&self.northbound.status().borrow());
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
            let Some(leader) = self.leader()? else { return self.verify_here().await };
            let ask = |mut client: PeerClient| async move {
                client.verify_ovn(question(v1::VerifyOvnRequest {})).await
            };
            let answer = self.plugins.ask(&leader, ask).await;
            answer.map(verification_of).map_err(|status| error_of(&status))
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

/// A node as the use cases show it.
fn shown(view: NodeView) -> NodeState {
    let mut state = view.record.as_ref().map(stored).unwrap_or_default();
    state.id = view.id;
    state.networks = view.networks;
    state.draining_networks = view.draining_networks;
    match view.status {
        Some(status) => add_status(&mut state, status),
        None => "the leader has not published its state yet".clone_into(&mut state.reason),
    }
    state
}

/// The stored part of a node.
fn stored(record: &NodeRecord) -> NodeState {
    NodeState {
        id: record.id.clone(),
        zone: record.zone.clone(),
        chassis: record.chassis.clone(),
        release: record.release.clone(),
        registered_at: record.registered_at,
        cordoned: record.duty != Duty::Active,
        draining: record.duty == Duty::Draining,
        capabilities: record.capabilities.words().map(str::to_owned).collect(),
        ..NodeState::default()
    }
}

/// Adds the state of its stream.
fn add_status(state: &mut NodeState, status: NodeStatus) {
    state.liveness = Some(status.liveness);
    state.reason = status.reason;
    state.since = Some(status.since_ms);
    state.listeners = status.listeners;
    state.connections = status.connections;
    state.connections_draining =
        Draining { connections: status.draining, deadline_ms: status.drain_deadline_ms };
    state.waiting_for = status.waiting_for;
    state.waiting_network = status.waiting_network;
}

/// Error for an operation that a node does not allow.
fn refusal(node: &str, error: &DutyError) -> ApiError {
    let reason = match error {
        DutyError::Unknown(_) => ErrorReason::NotFound,
        DutyError::Connected(_) | DutyError::Unreadable(_) => ErrorReason::NodeState,
        DutyError::Read(_) => ErrorReason::StoreUnavailable,
        DutyError::Elsewhere(_) => ErrorReason::LeaderUnavailable,
        DutyError::Write(error) => return error.into(),
    };
    let concern = Some(ErrorObject::Node(node.to_owned()));
    ApiError { concern, ..ApiError::new(reason, error.to_string()) }
}
