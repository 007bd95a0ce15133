//! Use cases in process, over the memory store and networks of the tests'.

mod addresses;
mod apply_table;
mod creation;
mod networks;
mod tenancy;
mod trees;
mod watching;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::StreamExt as _;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::*;
use crate::auth::{Principal, Scope};
use crate::catalog::{Model, Writer};
use crate::resources::examples::{self, NETWORK};
use crate::resources::{
    Algorithm, Backend, Common, Datapath, Exposure, HealthCheck, HealthCheckType, Kind, Listener,
    ListenerProtocol, LoadBalancer, Pool, PoolProtocol, Violations, WeightedPool, WeightedPools,
};
use fiberlb_store::{MemoryStore, SharedStore, Store};

/// Networks of the tests: `NETWORK`, named "net", with 10.0.0.0/24 and fd00::/64, until changed.
struct Networks {
    unseen: Option<String>,
    networks: BTreeMap<Uuid, (&'static str, Vec<IpNetwork>)>,
    holders: BTreeSet<IpAddr>,
    nodes: BTreeSet<IpAddr>,
}

#[derive(Clone)]
struct Catalog(Arc<Mutex<Networks>>);

impl NetworkCatalog for Catalog {
    fn unseen(&self) -> Option<String> {
        self.0.lock().unwrap().unseen.clone()
    }

    fn exists(&self, network: Uuid) -> bool {
        self.0.lock().unwrap().networks.contains_key(&network)
    }

    fn name(&self, network: Uuid) -> Option<String> {
        self.0.lock().unwrap().networks.get(&network).map(|network| network.0.to_owned())
    }

    fn named(&self, name: &str) -> Vec<Uuid> {
        let networks = &self.0.lock().unwrap().networks;
        networks.iter().filter(|(_, network)| network.0 == name).map(|(id, _)| *id).collect()
    }

    fn subnets(&self, network: Uuid) -> Vec<IpNetwork> {
        self.0.lock().unwrap().networks.get(&network).map(|network| network.1.clone()).unwrap_or_default()
    }

    fn has_node(&self, _: Uuid, address: IpAddr) -> bool {
        self.0.lock().unwrap().nodes.contains(&address)
    }

    fn holder(&self, _: Uuid, address: IpAddr, _: Uuid) -> Option<String> {
        self.0.lock().unwrap().holders.contains(&address).then(|| "port vm-1".to_owned())
    }

    fn free_address(
        &self,
        network: Uuid,
        subnet: IpNetwork,
        load_balancer: Uuid,
        taken: &dyn Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let is_taken = |address| taken(address) || self.holder(network, address, load_balancer).is_some();
        fiberlb_northbound::plan::free_address(subnet, is_taken)
    }
}

/// A leader without proxy nodes, the keys that it waits for, and batches of an access log for the first reader.
#[derive(Default)]
struct Alone(Mutex<Option<String>>, Mutex<Option<tokio::sync::mpsc::Receiver<LogBatch>>>);

impl NodeDirectory for Alone {
    fn list(&self) -> Vec<NodeState> {
        Vec::new()
    }

    fn get<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        async move { Err(ApiError::new(ErrorReason::NotFound, format!("there is no node {id}"))) }.boxed()
    }

    fn set_duty<'a>(&'a self, id: &'a str, _: DutyChange) -> BoxFuture<'a, Result<NodeState, ApiError>> {
        self.get(id)
    }

    fn remove<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), ApiError>> {
        async move { self.get(id).await.map(drop) }.boxed()
    }
}

impl Reconciliation for Alone {
    fn waiting_for(&self) -> Option<String> {
        self.0.lock().unwrap().clone()
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verification, ApiError>> {
        async { Ok(Verification::default()) }.boxed()
    }
}

impl TrafficCounters for Alone {
    fn traffic(&self, _: Uuid) -> BoxFuture<'_, Result<BTreeMap<Uuid, Traffic>, ApiError>> {
        async { Ok(BTreeMap::new()) }.boxed()
    }
}

impl AccessLogs for Alone {
    /// The batches that there are, or two, and then no more.
    fn read(&self, _: Uuid) -> BoxFuture<'_, Result<LogStream, ApiError>> {
        if let Some(mut batches) = self.1.lock().unwrap().take() {
            let batches = futures_util::stream::poll_fn(move |context| batches.poll_recv(context));
            return async { Ok(batches.map(Ok).boxed()) }.boxed();
        }
        let batch = |omitted| Ok(LogBatch { connections: Vec::new(), omitted });
        let batches = futures_util::stream::iter([1, 2].map(batch));
        async { Ok(batches.chain(futures_util::stream::pending()).boxed()) }.boxed()
    }
}

/// Use cases on a store of their own.
struct World {
    cases: UseCases,
    model: Arc<Model>,
    networks: Arc<Mutex<Networks>>,
    alone: Arc<Alone>,
}

impl World {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        Self::on_store(Arc::new(MemoryStore::default()), limits, NetworkSettings::default()).await
    }

    /// A plugin on a store, with what is there already.
    async fn on_store(store: Arc<dyn Store>, limits: Limits, network_settings: NetworkSettings) -> Self {
        let model = Arc::new(Model::load(&*store).await.unwrap());
        let (followed, source) = (Arc::clone(&model), Arc::clone(&store));
        tokio::spawn(async move { followed.follow(&*source).await });
        let subnets = ["10.0.0.0/24", "fd00::/64"].map(|subnet| subnet.parse().unwrap()).to_vec();
        let networks = Arc::new(Mutex::new(Networks {
            unseen: None,
            networks: [(NETWORK, ("net", subnets))].into(),
            holders: BTreeSet::new(),
            nodes: BTreeSet::new(),
        }));
        let alone = Arc::<Alone>::default();
        let cases = UseCases::new(Dependencies {
            writer: Arc::new(Writer::new(Arc::clone(&model), store, Arc::default())),
            model: Arc::clone(&model),
            networks: Arc::new(Catalog(Arc::clone(&networks))),
            nodes: Arc::<Alone>::default(),
            traffic: Arc::<Alone>::default(),
            access_logs: alone.clone(),
            reconciliation: alone.clone(),
            metrics: Arc::default(),
            limits,
            network_settings,
            page_tokens: Arc::new(PageTokens::new(&[7; PageTokens::SECRET_BYTES]).unwrap()),
        });
        Self { cases, model, networks, alone }
    }

    /// Use cases on the same store, with other limits.
    fn with_limits(&self, limits: Limits) -> UseCases {
        let on = self.cases.on();
        UseCases::new(Dependencies {
            model: Arc::clone(&on.model),
            writer: Arc::clone(&on.writer),
            networks: Arc::clone(&on.networks),
            nodes: Arc::clone(&on.nodes),
            traffic: Arc::clone(&on.traffic),
            access_logs: Arc::clone(&on.access_logs),
            reconciliation: Arc::clone(&on.reconciliation),
            metrics: Arc::clone(&on.metrics),
            limits,
            network_settings: on.network_settings.clone(),
            page_tokens: Arc::clone(&on.page_tokens),
        })
    }

    async fn create<T: ApiKind>(&self, draft: T::Draft) -> Result<Observed<T>, ApiError> {
        self.create_as(&tenant(), ResourceDraft::alone(None, draft), None).await
    }

    async fn create_as<T: ApiKind>(
        &self,
        principal: &Principal,
        given: ResourceDraft<T>,
        request: Option<RequestId>,
    ) -> Result<Observed<T>, ApiError> {
        let request =
            CreateRequest { given, request, validate_only: false, violations: Violations::default() };
        self.cases.create(principal, request).await
    }

    /// Changes a resource.
    async fn update<T: ApiKind<Draft = T>>(
        &self,
        id: Uuid,
        change: impl Fn(&mut T) + Send + Sync,
    ) -> Result<Observed<T>, ApiError> {
        let patch = move |current: &T, _: &mut Violations| {
            let mut wanted = current.clone();
            change(&mut wanted);
            wanted
        };
        self.cases.update(&tenant(), id, patch, "").await
    }

    /// Removes a load balancer with all that is below it from the store, as is done once OVN has let go of it.
    async fn remove(&self, root: Uuid) {
        let gone = |_: Option<&crate::resources::Tree>| Ok::<_, crate::catalog::WriteError>((None, ()));
        self.cases.on().writer.write(root, gone).await.unwrap();
    }

    /// A load balancer with a listener, its pool, a backend and a check.
    async fn site(&self) -> Site {
        let root = self.create::<LoadBalancer>(load_balancer()).await.unwrap().record.id;
        let pool = self.create::<Pool>(pool(root)).await.unwrap().record.id;
        let listener = Listener { default_pool_id: Some(pool), ..listener(root) };
        let listener = self.create::<Listener>(listener).await.unwrap().record.id;
        let backend = self.create::<Backend>(backend(pool, 11)).await.unwrap().record.id;
        let check = self.create::<HealthCheck>(check(pool)).await.unwrap().record.id;
        Site { root, listener, pool, backend, check }
    }
}

/// Ids of a small tree.
#[derive(Clone, Copy)]
struct Site {
    root: Uuid,
    listener: Uuid,
    pool: Uuid,
    backend: Uuid,
    check: Uuid,
}

fn tenant() -> Principal {
    Principal::default()
}

fn stranger() -> Principal {
    Principal { project_id: "other".to_owned(), ..Principal::default() }
}

fn operator() -> Principal {
    Principal { scope: Scope::All, ..Principal::default() }
}

fn named(name: &str) -> Common {
    Common { name: name.to_owned(), ..Common::default() }
}

fn load_balancer() -> LoadBalancerDraft {
    LoadBalancerDraft {
        common: named("shop"),
        org_id: String::new(),
        project_id: String::new(),
        network: NETWORK.to_string(),
        vips: vec![VipDraft::default()],
        admin_state_up: true,
    }
}

fn listener(load_balancer_id: Uuid) -> Listener {
    let common = named("web");
    Listener { common, load_balancer_id, default_pool_id: None, ..examples::listener() }
}

fn pool(load_balancer_id: Uuid) -> Pool {
    Pool { common: named("servers"), load_balancer_id, ..examples::pool() }
}

fn backend(pool_id: Uuid, number: u8) -> Backend {
    Backend { pool_id, ..examples::backend(number) }
}

fn check(pool_id: Uuid) -> HealthCheck {
    HealthCheck { pool_id, ..examples::check() }
}

/// Fields of the violations of an error.
fn fields(error: &ApiError) -> Vec<&str> {
    error.violations.iter().map(|violation| violation.field.as_str()).collect()
}
