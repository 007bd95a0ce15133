//! The configuration in force, and the difference that a new one makes.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::worker::{ActivationFailure, WorkerSpec};
use crate::{
    dataplane::{
        account::{AtomicCounters, ListenerCounters, ListenerDrain},
        balance::{PoolSnapshot, Rotation},
        error::ListenerError,
        listen::{
            AddressSet, AllowedClients, Bandwidth, ClientGate, ClientTables, ConnectionBudget, Endpoint,
            EndpointClaims, ListenerLog, ListenerPorts, ListeningSocket, SharedListener, bind,
        },
        record::{ConnectionLog, RecordLabels},
        spec::{DataplaneSpec, ListenerSpec, MAX_WEIGHT, NodeAddresses, PoolSpec, WeightedPool},
    },
    shortage::Shortages,
    sockets::SocketFactory,
};

/// New listening sockets of one worker.
pub(super) type WorkerSockets = Vec<(Endpoint, ListeningSocket)>;

/// Errors of the listeners of a configuration, in its order.
pub(super) type ListenerErrors = Vec<Option<ListenerError>>;

/// A configuration, ready for the workers.
#[derive(Debug)]
pub(super) struct PreparedSpec {
    pub(super) worker_spec: WorkerSpec,
    /// Sockets of each worker.
    pub(super) sockets: Vec<WorkerSockets>,
    pub(super) errors: ListenerErrors,
}

/// The configuration in force.
pub(super) struct Installed {
    budget: Arc<ConnectionBudget>,
    tables: Arc<ClientTables>,
    shortages: Arc<Shortages>,
    networks: HashMap<Uuid, InstalledNetwork>,
    incarnations: u64,
    pools: HashMap<Uuid, (PoolSpec, Arc<PoolSnapshot>)>,
    listeners: HashMap<Uuid, (ListenerSpec, Arc<SharedListener>)>,
    owners: HashMap<Endpoint, Uuid>,
    states: HashMap<Uuid, ListenerState>,
    log: Arc<dyn ConnectionLog>,
}

/// State of a listener that changes from one connection to the next. It outlives changes of the listener, also that it is
/// gone for a while, as long as it has connections.
#[derive(Default)]
struct ListenerState {
    counters: Arc<AtomicCounters>,
    load_balancer: Uuid,
    /// Instant at which its connections are reset; None: it is there.
    drain_deadline: Option<Instant>,
    /// Clients and rates. None: no limit has needed them yet.
    gate: Option<Arc<ClientGate>>,
    /// None: there was no limit yet.
    bandwidth: Option<Arc<Bandwidth>>,
}

/// Socket factory of a network, the number of its incarnation, and the nodes on it.
struct InstalledNetwork {
    factory: Arc<dyn SocketFactory>,
    incarnation: u64,
    nodes: Arc<NodeAddresses>,
}

impl fmt::Debug for InstalledNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("InstalledNetwork")
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Installed").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

impl Installed {
    /// Nothing yet, for workers with this budget.
    pub(super) fn new(
        budget: Arc<ConnectionBudget>,
        tables: Arc<ClientTables>,
        shortages: Arc<Shortages>,
        log: Arc<dyn ConnectionLog>,
    ) -> Self {
        Self {
            budget,
            tables,
            shortages,
            networks: HashMap::new(),
            incarnations: 0,
            pools: HashMap::new(),
            listeners: HashMap::new(),
            owners: HashMap::new(),
            states: HashMap::new(),
            log,
        }
    }

    /// Installs a configuration: decides on the owners of endpoints, binds the sockets that are missing, and
    /// returns the configuration of the workers.
    pub(super) fn prepare(
        &mut self,
        spec: &DataplaneSpec,
        rotation: &Rotation,
        workers: usize,
        now: Instant,
    ) -> PreparedSpec {
        self.renew_networks(spec);
        self.renew_pools(spec, rotation, now);
        let (mut owners, mut errors) = self.claim(spec);
        self.budget.divide(&owners.keys().map(|endpoint| endpoint.network).collect());
        let mut sockets: Vec<WorkerSockets> = (0..workers).map(|_| Vec::new()).collect();
        let mut missing = self.missing(&owners);
        for (listener, error) in spec.listeners.iter().zip(&mut errors).filter(|(_, error)| error.is_none()) {
            let missing = missing.remove(&listener.id).unwrap_or_default();
            if let Err(refused) = self.bind_all(&missing, &mut sockets) {
                owners.retain(|endpoint, _| !missing.contains(endpoint));
                *error = Some(refused);
            }
            self.renew_listener(listener);
        }
        self.owners = owners;
        self.forget_idle_listeners(now, spec.drain_timeout);
        self.log.settle();
        let listeners = self.listeners.iter().map(|(id, (_, shared))| (*id, Arc::clone(shared))).collect();
        let worker_spec = WorkerSpec {
            listeners,
            owners: self.owners.clone(),
            leaving: spec.leaving.clone(),
            cut_log: Arc::default(),
            drain: spec.drain_timeout,
        };
        PreparedSpec { worker_spec, sockets, errors }
    }

    fn renew_networks(&mut self, spec: &DataplaneSpec) {
        self.networks.retain(|id, _| spec.networks.contains_key(id));
        for (id, factory) in &spec.networks {
            let nodes = spec.nodes.get(id).cloned().unwrap_or_default();
            let before = self.networks.get_mut(id).filter(|before| Arc::ptr_eq(&before.factory, factory));
            if let Some(before) = before {
                if *before.nodes != nodes {
                    before.nodes = Arc::new(nodes);
                }
                continue;
            }
            self.incarnations += 1;
            let (factory, nodes) = (Arc::clone(factory), Arc::new(nodes));
            let network = InstalledNetwork { factory, incarnation: self.incarnations, nodes };
            self.networks.insert(*id, network);
        }
    }

    fn renew_pools(&mut self, spec: &DataplaneSpec, rotation: &Rotation, now: Instant) {
        let mut old = std::mem::take(&mut self.pools);
        for pool in &spec.pools {
            let renewed = match old.remove(&pool.id) {
                Some(unchanged) if unchanged.0 == *pool => unchanged,
                older => {
                    let older = older.as_ref().map(|(_, snapshot)| &**snapshot);
                    (pool.clone(), Arc::new(PoolSnapshot::new(pool, rotation, older, now)))
                }
            };
            self.pools.insert(pool.id, renewed);
        }
    }

    /// Owners of the endpoints, and the errors of the listeners.
    fn claim(&self, spec: &DataplaneSpec) -> (HashMap<Endpoint, Uuid>, ListenerErrors) {
        let pools = spec.pools.iter().map(|pool| (pool.id, pool)).collect();
        let mut claims = EndpointClaims::default();
        let listeners = spec.listeners.iter();
        let errors: ListenerErrors =
            listeners.map(|listener| self.claim_one(listener, &pools, &mut claims).err()).collect();
        let refused = spec.listeners.iter().zip(&errors).filter(|(_, error)| error.is_some());
        let refused: HashSet<Uuid> = refused.map(|(listener, _)| listener.id).collect();
        for (endpoint, owner) in &self.owners {
            if refused.contains(owner) && self.is_live(endpoint) {
                claims.claim_free(*owner, *endpoint);
            }
        }
        (claims.into_owners(), errors)
    }

    /// Endpoints without a socket, by listener.
    fn missing(&self, owners: &HashMap<Endpoint, Uuid>) -> HashMap<Uuid, Vec<Endpoint>> {
        let mut missing: HashMap<Uuid, Vec<Endpoint>> = HashMap::new();
        for (endpoint, owner) in owners.iter().filter(|(endpoint, _)| !self.owners.contains_key(endpoint)) {
            missing.entry(*owner).or_default().push(*endpoint);
        }
        missing
    }

    fn claim_one(
        &self,
        listener: &ListenerSpec,
        pools: &HashMap<Uuid, &PoolSpec>,
        claims: &mut EndpointClaims,
    ) -> Result<(), ListenerError> {
        claims.register(listener.id)?;
        if !listener.enabled {
            return Ok(());
        }
        let ports = check(listener, pools)?;
        let network =
            self.networks.get(&listener.network).ok_or(ListenerError::UnknownNetwork(listener.network))?;
        let endpoints = ports.addresses().map(|address| Endpoint {
            network: listener.network,
            incarnation: network.incarnation,
            transport: listener.protocol.transport(),
            address,
        });
        claims.claim(listener.id, &endpoints.collect::<Vec<_>>())
    }

    fn is_live(&self, endpoint: &Endpoint) -> bool {
        self.networks
            .get(&endpoint.network)
            .is_some_and(|network| network.incarnation == endpoint.incarnation)
    }

    /// Binds the sockets of these endpoints for all workers, or none.
    fn bind_all(&self, endpoints: &[Endpoint], sockets: &mut [WorkerSockets]) -> Result<(), ListenerError> {
        let before: Vec<usize> = sockets.iter().map(Vec::len).collect();
        let bound = endpoints.iter().try_for_each(|endpoint| self.bind_one(*endpoint, sockets));
        if bound.is_err() {
            sockets.iter_mut().zip(before).for_each(|(sockets, length)| sockets.truncate(length));
        }
        bound
    }

    fn bind_one(&self, endpoint: Endpoint, sockets: &mut [WorkerSockets]) -> Result<(), ListenerError> {
        let Endpoint { network, transport, address, .. } = endpoint;
        let network = self.networks.get(&network).ok_or(ListenerError::UnknownNetwork(network))?;
        for sockets in sockets {
            let socket = bind(&*network.factory, transport, address)
                .map_err(|source| ListenerError::Bind { address, source })?;
            sockets.push((endpoint, socket));
        }
        Ok(())
    }

    /// Drops the listeners without an endpoint, and the state of those that have no connection either.
    fn forget_idle_listeners(&mut self, now: Instant, drain_timeout: Duration) {
        let serving: HashSet<Uuid> = self.owners.values().copied().collect();
        self.listeners.retain(|id, _| serving.contains(id));
        self.states.retain(|id, state| serving.contains(id) || state.counters.read().active > 0);
        for (id, state) in &mut self.states {
            let is_there = serving.contains(id);
            let deadline = || state.drain_deadline.or_else(|| now.checked_add(drain_timeout));
            state.drain_deadline = if is_there { None } else { deadline() };
        }
    }

    fn renew_listener(&mut self, listener: &ListenerSpec) {
        let Some(network) = self.networks.get(&listener.network) else { return };
        let Some(ports) = ListenerPorts::new(listener) else { return };
        let snapshot = |pool: &WeightedPool| Some((Arc::clone(&self.pools.get(&pool.id)?.1), pool.weight));
        let pools: Vec<(Arc<PoolSnapshot>, u16)> = listener.pools.iter().filter_map(snapshot).collect();
        let unchanged = self.listeners.get(&listener.id).is_some_and(|(old, shared)| {
            old == listener
                && Arc::ptr_eq(&shared.factory, &network.factory)
                && Arc::ptr_eq(&shared.nodes, &network.nodes)
                && shared.has_pools(&pools)
        });
        if unchanged {
            return;
        }
        let state = self.states.entry(listener.id).or_default();
        state.load_balancer = listener.load_balancer;
        let ListenerState { counters, gate, bandwidth, .. } = state;
        let gate = ClientGate::of(&listener.limits, gate, &self.tables);
        let bandwidth = Bandwidth::of(&listener.limits, bandwidth, counters);
        let log = log_of(listener, &*self.log);
        let shared = SharedListener {
            id: listener.id,
            name: listener.name.clone(),
            network: listener.network,
            protocol: listener.protocol,
            factory: Arc::clone(&network.factory),
            pools,
            limits: listener.limits,
            clients: AllowedClients::new(&listener.allowed_cidrs),
            gate,
            bandwidth,
            proxies: AddressSet::new(&listener.trusted_proxies),
            ports,
            frontends: listener.frontends.clone(),
            counters: Arc::clone(counters),
            log,
            share: self.budget.share(listener.network),
            nodes: Arc::clone(&network.nodes),
            shortages: Arc::clone(&self.shortages),
        };
        self.listeners.insert(listener.id, (listener.clone(), Arc::new(shared)));
    }

    /// Drops endpoints that a worker could not activate, so that the next configuration binds them anew.
    /// Returns the errors of their owners.
    pub(super) fn forget_failed(&mut self, failed: Vec<ActivationFailure>) -> HashMap<Uuid, ListenerError> {
        let owned = failed.into_iter().filter_map(|(endpoint, source)| {
            let owner = self.owners.remove(&endpoint)?;
            Some((owner, ListenerError::Bind { address: endpoint.address, source }))
        });
        owned.collect()
    }

    /// Counters of the listeners.
    pub(super) fn counters(&self) -> HashMap<Uuid, ListenerCounters> {
        let limit = |id: &Uuid| self.listeners.get(id).and_then(|(_, shared)| shared.limits.connections);
        let drain = |state: &ListenerState| {
            let load_balancer = state.load_balancer;
            state.drain_deadline.map(|deadline| ListenerDrain { load_balancer, deadline })
        };
        let read = |(id, state): (&Uuid, &ListenerState)| {
            (*id, ListenerCounters { limit: limit(id), drain: drain(state), ..state.counters.read() })
        };
        let read = self.states.iter().map(read);
        read.filter(|(id, counters)| self.listeners.contains_key(id) || counters.active > 0).collect()
    }

    /// Connections of listeners that are gone.
    pub(super) fn draining(&self) -> u64 {
        let gone = self.states.iter().filter(|(id, _)| !self.listeners.contains_key(id));
        gone.map(|(_, state)| u64::from(state.counters.read().active)).sum()
    }
}

/// Place of the records of a listener's connections.
fn log_of(listener: &ListenerSpec, log: &dyn ConnectionLog) -> Arc<ListenerLog> {
    let ListenerSpec { id, load_balancer, ref project, .. } = *listener;
    let labels = Arc::new(RecordLabels { listener: id, load_balancer, project: project.clone() });
    Arc::new(ListenerLog { sink: log.listener(&labels), labels })
}

/// Checks a listener by itself. Returns its ports.
fn check(listener: &ListenerSpec, pools: &HashMap<Uuid, &PoolSpec>) -> Result<ListenerPorts, ListenerError> {
    let first = *listener.addresses.first().ok_or(ListenerError::NoAddress)?;
    let without = listener.addresses.iter().find(|address| address.port() == 0);
    let ports = ListenerPorts::new(listener).ok_or(ListenerError::NoPort(*without.unwrap_or(&first)))?;
    for WeightedPool { id, .. } in &listener.pools {
        check_weights(pools.get(id).ok_or(ListenerError::UnknownPool(*id))?)?;
    }
    Ok(ports)
}

fn check_weights(pool: &PoolSpec) -> Result<(), ListenerError> {
    match pool.backends.iter().find(|backend| backend.weight > MAX_WEIGHT) {
        Some(backend) => Err(ListenerError::Weight { backend: backend.id, weight: backend.weight }),
        None => Ok(()),
    }
}
