//! Generated service traits: each method determines the caller and delegates the work.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::plan::Installation;
use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_server::BackendService;
use fiberlb_proto::v1::health_check_service_server::HealthCheckService;
use fiberlb_proto::v1::listener_service_server::ListenerService;
use fiberlb_proto::v1::load_balancer_service_server::LoadBalancerService;
use fiberlb_proto::v1::node_service_server::NodeService;
use fiberlb_proto::v1::ovn_service_server::OvnService;
use fiberlb_proto::v1::pool_service_server::PoolService;
use fiberlb_proto::v1::watch_service_server::WatchService;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::limits::Limits;
use super::list::Query;
use super::networks::Networks;
use super::principal;
use super::render::View;
use super::watch::Events;
use crate::agents::Plugins;
use crate::catalog::{Model, Writer};
use crate::fleet::Duty;
use crate::leadership::{Role, Roles};
use crate::metrics::Metrics;
use crate::resources::{Backend, HealthCheck, Listener, Pool, Tree};

/// All services of the public API.
#[derive(Clone)]
pub struct Api(pub(super) Arc<Inner>);

/// State shared by the services.
pub struct Inner {
    /// Source of every answer.
    pub model: Arc<Model>,
    /// The only way to write.
    pub writer: Arc<Writer>,
    /// Look-ups of tenant networks.
    pub networks: Networks,
    /// Client whose state tells which dependency the reconciler waits for.
    pub northbound: Client<Northbound>,
    /// Counters of calls.
    pub metrics: Arc<Metrics>,
    /// Limits on one caller.
    pub limits: Limits,
    /// Role of this plugin among others, and the proxy nodes.
    pub roles: Arc<Roles>,
    /// Client for queries to the leader.
    pub plugins: Plugins,
    /// Installation id on rows in OVN.
    pub installation: Installation,
    /// Number of open watches.
    pub watches: Arc<AtomicUsize>,
    /// Permits for concurrent comparisons with OVN.
    pub verifications: Arc<Semaphore>,
}

impl Api {
    /// The services over these parts.
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Replaces the tree `root` by the result of `edit`; see [`Writer::write`].
    pub(super) async fn write<T>(
        &self,
        root: Uuid,
        edit: impl Fn(Option<&Tree>) -> Result<(Option<Tree>, T), Status>,
    ) -> Result<(Option<Tree>, T), Status> {
        self.0.writer.write(root, edit).await
    }

    /// A tree with its observed state.
    pub(super) fn view(&self, tree: Arc<Tree>) -> View {
        let observation = self.0.model.observation(tree.id());
        View { tree, observation, waiting_for: self.waiting_for() }
    }

    /// Dependency that the reconciler cannot go on without.
    fn waiting_for(&self) -> Option<String> {
        match self.0.roles.role() {
            Role::Leads if self.0.northbound.is_live() => return None,
            Role::Leads => {}
            // The leader publishes its own dependency.
            Role::Follows(Some(_)) => return None,
            Role::Follows(None) => {
                return Some("stored; carried out once one of the plugins on the store leads".to_owned());
            }
        }
        let status = self.0.northbound.status().borrow().to_string();
        Some(format!("stored; carried out when the northbound database is back: {status}"))
    }

    /// Records a write: an audit line (who did what), and the metrics.
    pub(super) fn audit(&self, line: &Audit<'_>, result: &Result<String, &Status>) {
        let code = result.as_ref().map_or_else(|status| code_name(status.code()), |_| "OK");
        self.0.metrics.write(line.resource, line.operation, code);
        let Audit { principal, resource, operation, .. } = line;
        let id = result.as_deref().unwrap_or(line.id);
        let error = result.as_ref().err().map(|status| status.message());
        tracing::info!(
            target: "audit", org = principal.org_id, project = principal.project_id, operation, resource, id, code, error,
            "write"
        );
    }
}

/// Actor, operation and resource of a write.
pub(super) struct Audit<'a> {
    pub(super) principal: &'a principal::Principal,
    pub(super) resource: &'static str,
    pub(super) operation: &'static str,
    pub(super) id: &'a str,
}

/// Name of a gRPC status code in the specification.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code as C;
    match code {
        C::Ok => "OK",
        C::Cancelled => "CANCELLED",
        C::Unknown => "UNKNOWN",
        C::InvalidArgument => "INVALID_ARGUMENT",
        C::DeadlineExceeded => "DEADLINE_EXCEEDED",
        C::NotFound => "NOT_FOUND",
        C::AlreadyExists => "ALREADY_EXISTS",
        C::PermissionDenied => "PERMISSION_DENIED",
        C::ResourceExhausted => "RESOURCE_EXHAUSTED",
        C::FailedPrecondition => "FAILED_PRECONDITION",
        C::Aborted => "ABORTED",
        C::OutOfRange => "OUT_OF_RANGE",
        C::Unimplemented => "UNIMPLEMENTED",
        C::Internal => "INTERNAL",
        C::Unavailable => "UNAVAILABLE",
        C::DataLoss => "DATA_LOSS",
        C::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The query in a list request; `$parent` is the expression for its parent field.
macro_rules! query {
    ($request:ident, $parent:expr) => {
        Query {
            page_size: $request.page_size,
            page_token: $request.page_token,
            name: $request.name,
            tags: $request.tags,
            provisioning: $request.provisioning_status,
            operating: $request.operating_status,
            parent: $parent,
        }
    };
}

/// The five methods of a service for a resource below a load balancer.
macro_rules! service {
    (
        $service:ident, $type:ty, $wire:ident, $field:ident, $list_field:ident, $parent:ident, $cascade:expr,
        $create:ident($create_request:ident), $get:ident($get_request:ident),
        $list:ident($list_request:ident) -> $list_response:ident,
        $update:ident($update_request:ident), $delete:ident($delete_request:ident)
        $(, { $($more:tt)* })?
    ) => {
        #[tonic::async_trait]
        impl $service for Api {
            async fn $create(
                &self,
                request: Request<v1::$create_request>,
            ) -> Result<Response<v1::$wire>, Status> {
                let principal = principal::of(&request)?;
                let request = request.into_inner();
                self.create::<$type>(&principal, request.$field, request.request_id).await.map(Response::new)
            }

            async fn $get(&self, request: Request<v1::$get_request>) -> Result<Response<v1::$wire>, Status> {
                let principal = principal::of(&request)?;
                self.get::<$type>(&principal, &request.get_ref().id).map(Response::new)
            }

            async fn $list(
                &self,
                request: Request<v1::$list_request>,
            ) -> Result<Response<v1::$list_response>, Status> {
                let principal = principal::of(&request)?;
                let request = request.into_inner();
                let query = query!(request, request.$parent);
                let (page, next_page_token) = self.list::<$type>(&principal, &query)?;
                Ok(Response::new(v1::$list_response { $list_field: page, next_page_token }))
            }

            async fn $update(
                &self,
                request: Request<v1::$update_request>,
            ) -> Result<Response<v1::$wire>, Status> {
                let principal = principal::of(&request)?;
                let request = request.into_inner();
                let (wire, mask) = (request.$field, request.update_mask);
                self.update::<$type>(&principal, wire, mask, &request.etag).await.map(Response::new)
            }

            async fn $delete(
                &self,
                request: Request<v1::$delete_request>,
            ) -> Result<Response<v1::$wire>, Status> {
                let principal = principal::of(&request)?;
                let request = request.into_inner();
                let cascade: fn(&v1::$delete_request) -> bool = $cascade;
                let cascade = cascade(&request);
                self.delete::<$type>(&principal, &request.id, &request.etag, cascade).await.map(Response::new)
            }

            $($($more)*)?
        }
    };
}

service!(
    ListenerService, Listener, Listener, listener, listeners, load_balancer_id, |_| false,
    create_listener(CreateListenerRequest), get_listener(GetListenerRequest),
    list_listeners(ListListenersRequest) -> ListListenersResponse,
    update_listener(UpdateListenerRequest), delete_listener(DeleteListenerRequest)
);
service!(
    PoolService, Pool, Pool, pool, pools, load_balancer_id, |request| request.cascade,
    create_pool(CreatePoolRequest), get_pool(GetPoolRequest),
    list_pools(ListPoolsRequest) -> ListPoolsResponse,
    update_pool(UpdatePoolRequest), delete_pool(DeletePoolRequest)
);
service!(
    BackendService, Backend, Backend, backend, backends, pool_id, |_| false,
    create_backend(CreateBackendRequest), get_backend(GetBackendRequest),
    list_backends(ListBackendsRequest) -> ListBackendsResponse,
    update_backend(UpdateBackendRequest), delete_backend(DeleteBackendRequest),
    {
        async fn get_backend_health(
            &self,
            request: Request<v1::GetBackendHealthRequest>,
        ) -> Result<Response<v1::BackendHealth>, Status> {
            let principal = principal::of(&request)?;
            self.backend_health(&principal, &request.get_ref().id).map(Response::new)
        }
    }
);
service!(
    HealthCheckService, HealthCheck, HealthCheck, health_check, health_checks, pool_id, |_| false,
    create_health_check(CreateHealthCheckRequest), get_health_check(GetHealthCheckRequest),
    list_health_checks(ListHealthChecksRequest) -> ListHealthChecksResponse,
    update_health_check(UpdateHealthCheckRequest), delete_health_check(DeleteHealthCheckRequest)
);

#[tonic::async_trait]
impl LoadBalancerService for Api {
    async fn create_load_balancer(
        &self,
        request: Request<v1::CreateLoadBalancerRequest>,
    ) -> Result<Response<v1::LoadBalancer>, Status> {
        let principal = principal::of(&request)?;
        let request = request.into_inner();
        self.create_root(&principal, request.load_balancer, request.request_id).await.map(Response::new)
    }

    async fn get_load_balancer(
        &self,
        request: Request<v1::GetLoadBalancerRequest>,
    ) -> Result<Response<v1::LoadBalancer>, Status> {
        let principal = principal::of(&request)?;
        let tree = self.root(&principal, &request.get_ref().id)?;
        Ok(Response::new(self.view(tree).load_balancer()))
    }

    async fn list_load_balancers(
        &self,
        request: Request<v1::ListLoadBalancersRequest>,
    ) -> Result<Response<v1::ListLoadBalancersResponse>, Status> {
        let principal = principal::of(&request)?;
        let request = request.into_inner();
        let query = query!(request, String::new());
        let (load_balancers, next_page_token) = self.list_roots(&principal, &query)?;
        Ok(Response::new(v1::ListLoadBalancersResponse { load_balancers, next_page_token }))
    }

    async fn update_load_balancer(
        &self,
        request: Request<v1::UpdateLoadBalancerRequest>,
    ) -> Result<Response<v1::LoadBalancer>, Status> {
        let principal = principal::of(&request)?;
        let request = request.into_inner();
        self.update_root(&principal, request.load_balancer, request.update_mask, &request.etag)
            .await
            .map(Response::new)
    }

    async fn delete_load_balancer(
        &self,
        request: Request<v1::DeleteLoadBalancerRequest>,
    ) -> Result<Response<v1::LoadBalancer>, Status> {
        let principal = principal::of(&request)?;
        let request = request.into_inner();
        self.delete_root(&principal, &request.id, &request.etag, request.cascade).await.map(Response::new)
    }

    async fn apply_load_balancer(
        &self,
        request: Request<v1::ApplyLoadBalancerRequest>,
    ) -> Result<Response<v1::ApplyLoadBalancerResponse>, Status> {
        let principal = principal::of(&request)?;
        self.apply(&principal, request.into_inner()).await.map(Response::new)
    }

    async fn get_status_tree(
        &self,
        request: Request<v1::GetStatusTreeRequest>,
    ) -> Result<Response<v1::LoadBalancerTree>, Status> {
        let principal = principal::of(&request)?;
        let tree = self.root(&principal, &request.get_ref().load_balancer_id)?;
        Ok(Response::new(self.view(tree).tree()))
    }
}

#[tonic::async_trait]
impl NodeService for Api {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        // Nodes belong to no tenant: every caller may see them, until there are roles.
        principal::of(&request)?;
        Ok(Response::new(v1::ListNodesResponse { nodes: self.nodes() }))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        principal::of(&request)?;
        self.node(&request.get_ref().id).await.map(Response::new)
    }

    async fn cordon_node(
        &self,
        request: Request<v1::CordonNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let principal = principal::of(&request)?;
        self.set_duty(&principal, "cordon", Duty::cordoned, &request.get_ref().id).await.map(Response::new)
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::UncordonNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let principal = principal::of(&request)?;
        self.set_duty(&principal, "uncordon", |_| Duty::Active, &request.get_ref().id)
            .await
            .map(Response::new)
    }

    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let principal = principal::of(&request)?;
        self.set_duty(&principal, "drain", |_| Duty::Draining, &request.get_ref().id).await.map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let principal = principal::of(&request)?;
        self.forget_node(&principal, &request.get_ref().id).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }
}

#[tonic::async_trait]
impl OvnService for Api {
    async fn verify_ovn(
        &self,
        request: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        // The database belongs to no tenant: every caller may see it, until there are roles.
        principal::of(&request)?;
        self.verify_ovn().await.map(Response::new)
    }
}

#[tonic::async_trait]
impl WatchService for Api {
    type WatchStream = Events;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Events>, Status> {
        let principal = principal::of(&request)?;
        self.open_watch(principal, &request.get_ref().load_balancer_id).map(Response::new)
    }
}
