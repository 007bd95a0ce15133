//! Configurations of the data plane and of the health checker. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Configuration, Listener, Network, Pool};
use crate::dataplane::{
    BackendSpec, DataplaneSpec, ListenerSpec, NodeAddresses, PoolSpec, SourceIpPersistence,
};
use crate::health::{Target, TargetKey, Targets};
use crate::sockets::SocketFactory;

/// Socket factories of the networks, by network.
pub type Factories = HashMap<Uuid, Arc<dyn SocketFactory>>;

/// Configuration of the data plane. `in_rotation` is true for backends that take connections, as far as their
/// health goes.
#[must_use]
pub fn dataplane(
    configuration: &Configuration,
    networks: Factories,
    drain_timeout: Duration,
    in_rotation: impl Fn(Uuid) -> bool,
) -> DataplaneSpec {
    let listeners: Vec<ListenerSpec> =
        configuration.listeners.values().map(|item| listener(&item.value, configuration)).collect();
    // OVN balances over pools that are only checked.
    let used: BTreeSet<Uuid> = listeners.iter().filter_map(|listener| listener.pool).collect();
    let pools = used.iter().filter_map(|id| configuration.pools.get(id));
    DataplaneSpec {
        networks,
        nodes: nodes(configuration),
        pools: pools.map(|item| pool(&item.value, &in_rotation)).collect(),
        listeners,
        drain_timeout,
    }
}

/// Nodes on each network, and VIPs: a node that is its own backend has one for its source.
fn nodes(configuration: &Configuration) -> HashMap<Uuid, NodeAddresses> {
    let of_network = |network: &Network| {
        let own: HashSet<IpAddr> = network.addresses.iter().map(|address| address.ip()).collect();
        let direct = network.vips.iter().map(|vip| vip.address);
        let all = own.iter().copied().chain(network.nodes.iter().copied()).chain(direct).collect();
        NodeAddresses { own, all }
    };
    let networks = configuration.networks.values();
    let mut nodes: HashMap<Uuid, NodeAddresses> =
        networks.map(|item| (item.value.id, of_network(&item.value))).collect();
    for listener in configuration.listeners.values().map(|item| &item.value) {
        if let Some(nodes) = nodes.get_mut(&listener.network) {
            nodes.all.extend(&listener.vips);
        }
    }
    nodes
}

fn listener(listener: &Listener, configuration: &Configuration) -> ListenerSpec {
    let serves = |id: &Uuid| configuration.pools.get(id).is_some_and(|item| item.value.enabled);
    ListenerSpec {
        id: listener.id,
        name: format!("{} of load balancer {}", listener.id, listener.load_balancer),
        network: listener.network,
        protocol: listener.protocol,
        addresses: listener.addresses.clone(),
        pool: listener.pool.filter(serves),
        limits: listener.limits,
        enabled: listener.enabled,
    }
}

fn pool(pool: &Pool, in_rotation: impl Fn(Uuid) -> bool) -> PoolSpec {
    let backend = |backend: &super::Backend| BackendSpec {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
        backup: backend.backup,
        enabled: backend.enabled,
        starts_in_rotation: in_rotation(backend.id),
    };
    PoolSpec {
        id: pool.id,
        algorithm: pool.algorithm,
        persistence: pool.persistence.map(|timeout| SourceIpPersistence { timeout }),
        backends: pool.backends.iter().map(backend).collect(),
    }
}

/// Targets of the health checker, and the networks to probe them from.
#[must_use]
pub fn targets(configuration: &Configuration, networks: Factories) -> Targets {
    let of_pool = |pool: &Pool| -> Vec<Target> {
        let target = |(backend, check): (&super::Backend, &Arc<_>)| Target {
            key: TargetKey {
                network: pool.network,
                address: backend.monitor_address,
                check: Arc::clone(check),
            },
            backends: vec![backend.id],
        };
        pool.checked().map(target).collect()
    };
    let targets = configuration.pools.values().flat_map(|item| of_pool(&item.value)).collect();
    Targets { networks, targets }
}

/// Backends that take no connections before their first good probe.
pub fn in_probation(configuration: &Configuration) -> impl Iterator<Item = Uuid> {
    let pools = configuration.pools.values();
    let checked = pools.flat_map(|item| item.value.checked());
    checked.filter(|(backend, _)| backend.probation).map(|(backend, _)| backend.id)
}
