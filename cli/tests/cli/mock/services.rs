//! The generated service traits over the mock's map.

use std::pin::Pin;

use fiberlb_proto::v1::*;
use prost_reflect::{DynamicMessage, Value};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::world::{self, Kind, World, text};

/// A dynamic answer as the generated one.
fn typed<M: prost::Message + Default>(message: &DynamicMessage) -> Response<M> {
    Response::new(message.transcode_to().unwrap())
}

/// The five methods that all services have.
macro_rules! service {
    ($trait:path, $kind:expr, $resource:ident, $plural:ident,
     $create:ident $create_request:ident, $get:ident $get_request:ident,
     $list:ident $list_request:ident $list_response:ident,
     $update:ident $update_request:ident, $delete:ident $delete_request:ident $(, { $($more:tt)* })?) => {
        #[async_trait]
        impl $trait for World {
            async fn $create(&self, request: Request<$create_request>) -> Result<Response<$resource>, Status> {
                let request = self.dynamic(stringify!($create_request), request.get_ref());
                Ok(typed(&self.create($kind, &request)?))
            }
            async fn $get(&self, request: Request<$get_request>) -> Result<Response<$resource>, Status> {
                Ok(typed(&self.get($kind, &request.get_ref().id)?))
            }
            async fn $list(&self, request: Request<$list_request>) -> Result<Response<$list_response>, Status> {
                let request = self.dynamic(stringify!($list_request), request.get_ref());
                let (page, next_page_token) = self.list($kind, &request);
                let $plural = page.iter().map(|message| message.transcode_to().unwrap()).collect();
                Ok(Response::new($list_response { $plural, next_page_token }))
            }
            async fn $update(&self, request: Request<$update_request>) -> Result<Response<$resource>, Status> {
                let request = self.dynamic(stringify!($update_request), request.get_ref());
                Ok(typed(&self.update($kind, &request)?))
            }
            async fn $delete(&self, request: Request<$delete_request>) -> Result<Response<$resource>, Status> {
                let request = self.dynamic(stringify!($delete_request), request.get_ref());
                Ok(typed(&self.delete($kind, &request)?))
            }
            $( $($more)* )?
        }
    };
}

service!(
    load_balancer_service_server::LoadBalancerService, world::LOAD_BALANCER, LoadBalancer, load_balancers,
    create_load_balancer CreateLoadBalancerRequest, get_load_balancer GetLoadBalancerRequest,
    list_load_balancers ListLoadBalancersRequest ListLoadBalancersResponse,
    update_load_balancer UpdateLoadBalancerRequest, delete_load_balancer DeleteLoadBalancerRequest, {
        async fn apply_load_balancer(
            &self,
            request: Request<ApplyLoadBalancerRequest>,
        ) -> Result<Response<ApplyLoadBalancerResponse>, Status> {
            self.apply(&request.into_inner()).map(Response::new)
        }
        async fn get_status_tree(
            &self,
            request: Request<GetStatusTreeRequest>,
        ) -> Result<Response<LoadBalancerTree>, Status> {
            self.tree(&request.get_ref().load_balancer_id).map(Response::new)
        }
        async fn list_events(
            &self,
            request: Request<ListEventsRequest>,
        ) -> Result<Response<ListEventsResponse>, Status> {
            self.tree(&request.get_ref().load_balancer_id)?;
            let since = Some(prost_types::Timestamp { seconds: 60, nanos: 0 });
            Ok(Response::new(ListEventsResponse { events: self.events(), since }))
        }

        /// Each listener has as many connections as its port has.
        async fn get_load_balancer_statistics(
            &self,
            request: Request<GetLoadBalancerStatisticsRequest>,
        ) -> Result<Response<LoadBalancerStatistics>, Status> {
            let load_balancer_id = request.into_inner().id;
            let tree = self.tree(&load_balancer_id)?;
            let traffic = |connections| Some(Traffic { connections_total: connections, ..Traffic::default() });
            let listeners = tree.listeners.iter().map(|listener| ListenerStatistics {
                listener_id: listener.id.clone(),
                counted: true,
                traffic: traffic(listener.port.into()),
            });
            let total = tree.listeners.iter().map(|listener| u64::from(listener.port)).sum();
            Ok(Response::new(LoadBalancerStatistics {
                load_balancer_id,
                traffic: traffic(total),
                listeners: listeners.collect(),
                backends: Vec::new(),
                pools: Vec::new(),
            }))
        }
    }
);
service!(
    listener_service_server::ListenerService, world::LISTENER, Listener, listeners,
    create_listener CreateListenerRequest, get_listener GetListenerRequest,
    list_listeners ListListenersRequest ListListenersResponse,
    update_listener UpdateListenerRequest, delete_listener DeleteListenerRequest, {
        async fn get_listener_statistics(
            &self,
            _: Request<GetListenerStatisticsRequest>,
        ) -> Result<Response<ListenerStatistics>, Status> {
            Err(Status::unimplemented("the command asks for whole load balancers"))
        }

        type StreamAccessLogStream = ReceiverStream<Result<StreamAccessLogResponse, Status>>;

        /// Two connections and an omission, and then the stream breaks.
        async fn stream_access_log(
            &self,
            request: Request<StreamAccessLogRequest>,
        ) -> Result<Response<Self::StreamAccessLogStream>, Status> {
            let id = request.into_inner().id;
            self.get(world::LISTENER, &id)?;
            let (sender, events) = tokio::sync::mpsc::channel(2);
            let entry = |reason: &str| AccessLogEntry {
                listener_id: id.clone(),
                reason: reason.to_owned(),
                ..AccessLogEntry::default()
            };
            let entries = vec![entry("closed"), entry("no_backend")];
            sender.send(Ok(StreamAccessLogResponse { entries, omitted: 7 })).await.unwrap();
            sender.send(Err(Status::unavailable("another plugin leads"))).await.unwrap();
            Ok(Response::new(ReceiverStream::new(events)))
        }
    }
);
service!(
    pool_service_server::PoolService, world::POOL, Pool, pools,
    create_pool CreatePoolRequest, get_pool GetPoolRequest,
    list_pools ListPoolsRequest ListPoolsResponse,
    update_pool UpdatePoolRequest, delete_pool DeletePoolRequest
);
service!(
    backend_service_server::BackendService, world::BACKEND, Backend, backends,
    create_backend CreateBackendRequest, get_backend GetBackendRequest,
    list_backends ListBackendsRequest ListBackendsResponse,
    update_backend UpdateBackendRequest, delete_backend DeleteBackendRequest, {
        async fn get_backend_health(
            &self,
            request: Request<GetBackendHealthRequest>,
        ) -> Result<Response<BackendHealth>, Status> {
            let id = &request.get_ref().id;
            self.get(world::BACKEND, id)?;
            Ok(Response::new(self.health(id)))
        }
    }
);
service!(
    health_check_service_server::HealthCheckService, world::HEALTH_CHECK, HealthCheck, health_checks,
    create_health_check CreateHealthCheckRequest, get_health_check GetHealthCheckRequest,
    list_health_checks ListHealthChecksRequest ListHealthChecksResponse,
    update_health_check UpdateHealthCheckRequest, delete_health_check DeleteHealthCheckRequest
);

#[async_trait]
impl node_service_server::NodeService for World {
    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        Ok(Response::new(ListNodesResponse { nodes: self.nodes() }))
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Result<Response<Node>, Status> {
        self.change_node(&request.get_ref().id, world::look_at_drain).map(Response::new)
    }

    async fn cordon_node(&self, request: Request<CordonNodeRequest>) -> Result<Response<Node>, Status> {
        self.change_node(&request.get_ref().id, |node| node.cordoned = true).map(Response::new)
    }

    async fn uncordon_node(&self, request: Request<UncordonNodeRequest>) -> Result<Response<Node>, Status> {
        let change = |node: &mut Node| (node.cordoned, node.draining) = (false, false);
        self.change_node(&request.get_ref().id, change).map(Response::new)
    }

    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Result<Response<Node>, Status> {
        let change = |node: &mut Node| (node.cordoned, node.draining) = (true, true);
        self.change_node(&request.get_ref().id, change).map(Response::new)
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        self.remove_node(&request.get_ref().id).map(|()| Response::new(RemoveNodeResponse {}))
    }
}

#[async_trait]
impl watch_service_server::WatchService for World {
    type WatchStream = Pin<Box<ReceiverStream<Result<WatchEvent, Status>>>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let id = &request.get_ref().load_balancer_id;
        if !id.is_empty() {
            self.get(world::LOAD_BALANCER, id)?;
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(World::watch(self)))))
    }
}

impl World {
    /// Stores a tree in place of the one of the same name. Objects with ids that are there already are unchanged.
    fn apply(&self, request: &ApplyLoadBalancerRequest) -> Result<ApplyLoadBalancerResponse, Status> {
        self.record(&self.dynamic("ApplyLoadBalancerRequest", request));
        let tree = request.tree.clone().unwrap_or_default();
        let mut counts = ApplyLoadBalancerResponse::default();
        if request.validate_only {
            let created = 1
                + tree.listeners.len()
                + tree.pools.iter().map(|pool| 1 + pool.backends.len()).sum::<usize>();
            return Ok(ApplyLoadBalancerResponse { tree: Some(tree), created: created as u32, ..counts });
        }
        let root = tree.load_balancer.unwrap_or_default();
        let root_id = self.upsert(world::LOAD_BALANCER, self.dynamic("LoadBalancer", &root), "", &mut counts);
        let mut pool_ids = Vec::new();
        for it in &tree.pools {
            let pool = it.pool.clone().unwrap_or_default();
            let id = self.upsert(world::POOL, self.dynamic("Pool", &pool), &root_id, &mut counts);
            for backend in &it.backends {
                self.upsert(world::BACKEND, self.dynamic("Backend", backend), &id, &mut counts);
            }
            if let Some(check) = &it.health_check {
                self.upsert(world::HEALTH_CHECK, self.dynamic("HealthCheck", check), &id, &mut counts);
            }
            pool_ids.push((pool.name, id));
        }
        for listener in &tree.listeners {
            let mut listener = listener.clone();
            if let Some((_, id)) = pool_ids.iter().find(|(name, _)| *name == listener.default_pool_id) {
                listener.default_pool_id.clone_from(id);
            }
            self.upsert(world::LISTENER, self.dynamic("Listener", &listener), &root_id, &mut counts);
        }
        Ok(ApplyLoadBalancerResponse { tree: Some(self.tree(&root_id)?), ..counts })
    }

    fn upsert(
        &self,
        kind: Kind,
        mut message: DynamicMessage,
        parent_id: &str,
        counts: &mut ApplyLoadBalancerResponse,
    ) -> String {
        if let Some(field) = kind.2 {
            message.set_field_by_name(field, Value::String(parent_id.to_owned()));
        }
        if let Ok(mut found) = self.get(kind, &text(&message, "id")) {
            found.clear_field_by_name("state");
            counts.unchanged += u32::from(found == message);
            counts.updated += u32::from(found != message);
            return text(&message, "id");
        }
        counts.created += 1;
        text(&self.insert(kind, message), "id")
    }

    fn tree(&self, id: &str) -> Result<LoadBalancerTree, Status> {
        let root: LoadBalancer = self.get(world::LOAD_BALANCER, id)?.transcode_to().unwrap();
        let below = |kind: Kind, id: &str| {
            let mut found = self.all(kind);
            found.retain(|message| text(message, kind.2.unwrap()) == id);
            found
        };
        let pools = below(world::POOL, id).into_iter().map(|pool| {
            let id = text(&pool, "id");
            let backends = below(world::BACKEND, &id);
            PoolTree {
                backends: backends.iter().map(|backend| backend.transcode_to().unwrap()).collect(),
                health_check: below(world::HEALTH_CHECK, &id)
                    .first()
                    .map(|check| check.transcode_to().unwrap()),
                pool: Some(pool.transcode_to().unwrap()),
            }
        });
        let listeners = below(world::LISTENER, id);
        Ok(LoadBalancerTree {
            load_balancer: Some(root),
            pools: pools.collect(),
            listeners: listeners.iter().map(|listener| listener.transcode_to().unwrap()).collect(),
            etag: "tree-1".to_owned(),
        })
    }
}
