//! What is in force, and what a new configuration changes about it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::TcpListener,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    bind,
    configuration::{Configuration, Listener, Pool},
    counters::{Counters, ListenerCounters},
    error::Refusal,
    pool::PoolSnapshot,
    rotation::Rotation,
    service::{Claims, Endpoint, Service, check},
    worker::{Failure, Order},
};
use crate::sockets::SocketFactory;

/// New listening sockets of one worker.
pub(super) type Sockets = Vec<(Endpoint, TcpListener)>;

/// A configuration, ready for the workers.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) order: Order,
    /// For each worker its own.
    pub(super) sockets: Vec<Sockets>,
    pub(super) refusals: Refusals,
}

/// What is wrong with each listener of the configuration, in its order.
pub(super) type Refusals = Vec<Option<Refusal>>;

/// What is in force.
#[derive(Debug, Default)]
pub(super) struct Installed {
    networks: HashMap<Uuid, Network>,
    incarnations: u64,
    pools: HashMap<Uuid, (Pool, Arc<PoolSnapshot>)>,
    listeners: HashMap<Uuid, (Listener, Arc<Service>)>,
    owners: HashMap<Endpoint, Uuid>,
    counters: HashMap<Uuid, Arc<Counters>>,
}

/// A network's factory, and its number.
struct Network {
    factory: Arc<dyn SocketFactory>,
    incarnation: u64,
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

impl Installed {
    /// Takes over a configuration: decides who has which address, makes the sockets that are missing, and says what the workers are
    /// to serve.
    pub(super) fn prepare(
        &mut self,
        configuration: &Configuration,
        rotation: &Rotation,
        workers: usize,
    ) -> Prepared {
        self.renew_networks(configuration);
        self.renew_pools(configuration, rotation);
        let (mut owners, mut refusals) = self.claim(configuration);
        let mut sockets: Vec<Sockets> = (0..workers).map(|_| Vec::new()).collect();
        let mut missing = self.missing(&owners);
        for (listener, refusal) in
            configuration.listeners.iter().zip(&mut refusals).filter(|(_, refusal)| refusal.is_none())
        {
            let missing = missing.remove(&listener.id).unwrap_or_default();
            if let Err(error) = self.listen(&missing, &mut sockets) {
                owners.retain(|endpoint, _| !missing.contains(endpoint));
                *refusal = Some(error);
            }
            self.renew_listener(listener);
        }
        self.owners = owners;
        self.forget_idle_listeners();
        let services = self.listeners.iter().map(|(id, (_, service))| (*id, Arc::clone(service))).collect();
        let order = Order { services, owners: self.owners.clone(), drain: configuration.drain_timeout };
        Prepared { order, sockets, refusals }
    }

    fn renew_networks(&mut self, configuration: &Configuration) {
        self.networks.retain(|id, _| configuration.networks.contains_key(id));
        for (id, factory) in &configuration.networks {
            if self.networks.get(id).is_some_and(|network| Arc::ptr_eq(&network.factory, factory)) {
                continue;
            }
            self.incarnations += 1;
            let network = Network { factory: Arc::clone(factory), incarnation: self.incarnations };
            self.networks.insert(*id, network);
        }
    }

    fn renew_pools(&mut self, configuration: &Configuration, rotation: &Rotation) {
        let mut old = std::mem::take(&mut self.pools);
        for pool in &configuration.pools {
            let renewed = match old.remove(&pool.id) {
                Some(unchanged) if unchanged.0 == *pool => unchanged,
                older => {
                    let older = older.as_ref().map(|(_, snapshot)| &**snapshot);
                    (pool.clone(), Arc::new(PoolSnapshot::new(pool, rotation, older)))
                }
            };
            self.pools.insert(pool.id, renewed);
        }
    }

    /// Who has which address, and what is wrong with the listeners.
    fn claim(&self, configuration: &Configuration) -> (HashMap<Endpoint, Uuid>, Refusals) {
        let pools = configuration.pools.iter().map(|pool| (pool.id, pool)).collect();
        let mut claims = Claims::default();
        let listeners = configuration.listeners.iter();
        let refusals: Refusals =
            listeners.map(|listener| self.claim_one(listener, &pools, &mut claims).err()).collect();
        let refused = configuration.listeners.iter().zip(&refusals).filter(|(_, refusal)| refusal.is_some());
        let refused: HashSet<Uuid> = refused.map(|(listener, _)| listener.id).collect();
        for (endpoint, owner) in &self.owners {
            if refused.contains(owner) && self.is_live(endpoint) {
                claims.take_free(*owner, *endpoint);
            }
        }
        (claims.owners(), refusals)
    }

    /// The endpoints that nobody listens on yet, for each listener.
    fn missing(&self, owners: &HashMap<Endpoint, Uuid>) -> HashMap<Uuid, Vec<Endpoint>> {
        let mut missing: HashMap<Uuid, Vec<Endpoint>> = HashMap::new();
        for (endpoint, owner) in owners.iter().filter(|(endpoint, _)| !self.owners.contains_key(endpoint)) {
            missing.entry(*owner).or_default().push(*endpoint);
        }
        missing
    }

    fn claim_one(
        &self,
        listener: &Listener,
        pools: &HashMap<Uuid, &Pool>,
        claims: &mut Claims,
    ) -> Result<(), Refusal> {
        claims.enter(listener.id)?;
        if !listener.enabled {
            return Ok(());
        }
        check(listener, pools)?;
        let network =
            self.networks.get(&listener.network).ok_or(Refusal::UnknownNetwork(listener.network))?;
        let endpoints = listener.addresses.iter().map(|address| Endpoint {
            network: listener.network,
            incarnation: network.incarnation,
            address: *address,
        });
        claims.take(listener.id, &endpoints.collect::<Vec<_>>())
    }

    fn is_live(&self, endpoint: &Endpoint) -> bool {
        self.networks
            .get(&endpoint.network)
            .is_some_and(|network| network.incarnation == endpoint.incarnation)
    }

    /// Makes the sockets of these endpoints for all workers, or none.
    fn listen(&self, endpoints: &[Endpoint], sockets: &mut [Sockets]) -> Result<(), Refusal> {
        let before: Vec<usize> = sockets.iter().map(Vec::len).collect();
        let made = endpoints.iter().try_for_each(|endpoint| self.listen_one(*endpoint, sockets));
        if made.is_err() {
            sockets.iter_mut().zip(before).for_each(|(sockets, length)| sockets.truncate(length));
        }
        made
    }

    fn listen_one(&self, endpoint: Endpoint, sockets: &mut [Sockets]) -> Result<(), Refusal> {
        let Endpoint { network, address, .. } = endpoint;
        let network = self.networks.get(&network).ok_or(Refusal::UnknownNetwork(network))?;
        for sockets in sockets {
            let socket = bind::listen(&*network.factory, address)
                .map_err(|source| Refusal::Bind { address, source })?;
            sockets.push((endpoint, socket));
        }
        Ok(())
    }

    /// Forgets the listeners that have no address, and the counters of those that have no connection either.
    fn forget_idle_listeners(&mut self) {
        let serving: HashSet<Uuid> = self.owners.values().copied().collect();
        self.listeners.retain(|id, _| serving.contains(id));
        self.counters.retain(|id, counters| serving.contains(id) || counters.read().active > 0);
    }

    fn renew_listener(&mut self, listener: &Listener) {
        let Some(network) = self.networks.get(&listener.network) else { return };
        let pool = listener.pool.and_then(|id| self.pools.get(&id)).map(|(_, snapshot)| Arc::clone(snapshot));
        let unchanged = self.listeners.get(&listener.id).is_some_and(|(old, service)| {
            old == listener
                && Arc::ptr_eq(&service.factory, &network.factory)
                && service.pool.as_ref().map(Arc::as_ptr) == pool.as_ref().map(Arc::as_ptr)
        });
        if unchanged {
            return;
        }
        let service = Service {
            id: listener.id,
            name: listener.name.clone(),
            factory: Arc::clone(&network.factory),
            pool,
            limits: listener.limits,
            counters: Arc::clone(self.counters.entry(listener.id).or_default()),
        };
        self.listeners.insert(listener.id, (listener.clone(), Arc::new(service)));
    }

    /// Forgets endpoints that a worker could not put to work, so that the next configuration makes them anew. Says whose they were.
    pub(super) fn forget_failed(&mut self, failed: Vec<Failure>) -> HashMap<Uuid, Refusal> {
        let owned = failed.into_iter().filter_map(|(endpoint, source)| {
            let owner = self.owners.remove(&endpoint)?;
            Some((owner, Refusal::Bind { address: endpoint.address, source }))
        });
        owned.collect()
    }

    /// What the listeners have counted.
    pub(super) fn counters(&self) -> HashMap<Uuid, ListenerCounters> {
        let read = self.counters.iter().map(|(id, counters)| (*id, counters.read()));
        read.filter(|(id, counters)| self.listeners.contains_key(id) || counters.active > 0).collect()
    }
}
