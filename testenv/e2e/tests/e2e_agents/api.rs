//! Calls of the API beside those about load balancers: nodes, health, statuses.

use std::time::{Duration, Instant};

use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::node_service_client::NodeServiceClient;
use tonic::Response;
use tonic::transport::Channel;

use crate::common::{PATIENCE, Tenant, until};

/// A client of the plugin.
#[derive(Clone)]
pub(crate) struct Operator {
    channel: Channel,
}

impl Operator {
    pub(crate) fn new(tenant: &Tenant) -> Operator {
        Operator { channel: tenant.plugin.channel().unwrap() }
    }

    /// All nodes; `None` while the plugin does not answer.
    pub(crate) async fn nodes(&self) -> Option<Vec<v1::Node>> {
        let mut client = NodeServiceClient::new(self.channel.clone());
        Some(client.list_nodes(v1::ListNodesRequest {}).await.ok()?.into_inner().nodes)
    }

    /// The status of a node.
    pub(crate) async fn node_status(&self, id: &str) -> Option<v1::NodeStatus> {
        self.nodes().await?.into_iter().find(|node| node.id == id).map(|node| node.status())
    }

    /// Health of a backend, as the API shows it.
    pub(crate) async fn health(&self, backend: &str) -> v1::BackendHealth {
        let request = v1::GetBackendHealthRequest { id: backend.to_owned() };
        BackendServiceClient::new(self.channel.clone())
            .get_backend_health(request)
            .await
            .unwrap()
            .into_inner()
    }
}

/// A tree as it is now.
pub(crate) async fn tree_now(tenant: &Tenant, id: &str) -> v1::LoadBalancerTree {
    let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
    tenant.client.clone().get_status_tree(request).await.unwrap().into_inner()
}

/// Waits until a tree is as wanted, and gives it.
pub(crate) async fn until_tree(
    tenant: &Tenant,
    id: &str,
    what: &str,
    wanted: impl Fn(&v1::LoadBalancerTree) -> bool,
) -> v1::LoadBalancerTree {
    let began = Instant::now();
    loop {
        let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
        let answer = tenant.client.clone().get_status_tree(request).await.map(Response::into_inner);
        if let Some(tree) = answer.as_ref().ok().filter(|tree| wanted(tree)) {
            return tree.clone();
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}; at last: {answer:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Applies a tree, and waits until all of it is in force and works: each backend found up by both nodes, each listener of
/// the proxies served by both.
pub(crate) async fn online(tenant: &Tenant, tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    let made = tenant.apply(tree).await;
    let operator = Operator::new(tenant);
    for backend in made.pools.iter().flat_map(|pool| &pool.backends) {
        until("two verdicts that a backend is up", async || {
            let health = operator.health(&backend.id).await;
            (health.verdicts.len() == 2 && health.verdicts.iter().all(|verdict| verdict.up)).then_some(())
        })
        .await;
    }
    until_tree(tenant, &id_of(&made), "a load balancer that is ONLINE", |tree| {
        let is_served = |listener: &v1::Listener| {
            let wanted = match (listener.datapath_in_force(), listener.exposure()) {
                (v1::Datapath::Proxy, v1::Exposure::Direct) => 1,
                (v1::Datapath::Proxy, _) => 2,
                _ => 0,
            };
            listener.proxy_node_ids.len() == wanted
        };
        let online =
            is(tree.load_balancer.as_ref().and_then(|it| it.state.as_ref()), v1::OperatingStatus::Online);
        online && tree.listeners.iter().all(is_served)
    })
    .await
}

/// Deletes a load balancer with all below it, and waits until it is gone.
pub(crate) async fn delete(tenant: &Tenant, id: &str) {
    let mut client = tenant.client.clone();
    let request = v1::DeleteLoadBalancerRequest { id: id.to_owned(), cascade: true, ..Default::default() };
    client.delete_load_balancer(request).await.unwrap();
    until("the end of a load balancer", async || {
        let request = v1::GetLoadBalancerRequest { id: id.to_owned() };
        let gone = tenant.client.clone().get_load_balancer(request).await;
        gone.is_err_and(|status| status.code() == tonic::Code::NotFound).then_some(())
    })
    .await;
}

/// The id of a tree.
pub(crate) fn id_of(tree: &v1::LoadBalancerTree) -> String {
    tree.load_balancer.as_ref().unwrap().id.clone()
}

/// True if a state has this operating status.
pub(crate) fn is(state: Option<&v1::ResourceState>, status: v1::OperatingStatus) -> bool {
    state.is_some_and(|state| state.operating_status() == status)
}

/// The backend of a tree with this address.
pub(crate) fn backend<'a>(tree: &'a v1::LoadBalancerTree, address: &str) -> &'a v1::Backend {
    let mut backends = tree.pools.iter().flat_map(|pool| &pool.backends);
    backends.find(|backend| backend.address == address).unwrap()
}

/// Operating status and reason of a backend.
pub(crate) fn fares(tree: &v1::LoadBalancerTree, address: &str) -> (v1::OperatingStatus, String) {
    let state = backend(tree, address).state.as_ref().unwrap();
    (state.operating_status(), state.reason.clone())
}

/// Operating status and reason of the load balancer, its listeners and its pools.
pub(crate) fn levels(tree: &v1::LoadBalancerTree) -> Vec<(v1::OperatingStatus, String)> {
    let root = tree.load_balancer.iter().map(|it| it.state.as_ref());
    let listeners = tree.listeners.iter().map(|it| it.state.as_ref());
    let pools = tree.pools.iter().filter_map(|it| it.pool.as_ref()).map(|it| it.state.as_ref());
    let states = root.chain(listeners).chain(pools).map(Option::unwrap);
    states.map(|state| (state.operating_status(), state.reason.clone())).collect()
}
