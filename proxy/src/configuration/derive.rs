//! Configurations of the data plane and of the health checker. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Configuration, Listener, Pool};
use crate::dataplane::{BackendSpec, DataplaneSpec, ListenerSpec, PoolSpec, SourceIpPersistence};
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
        pools: pools.map(|item| pool(&item.value, &in_rotation)).collect(),
        listeners,
        drain_timeout,
    }
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
