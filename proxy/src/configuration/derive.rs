//! What a configuration asks of the data plane and of the health checker. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Configuration, Listener, Pool};
use crate::dataplane::{self, SourceIpPersistence};
use crate::health::{Key, Target, Targets};
use crate::sockets::SocketFactory;

/// Networks that sockets can be made in.
pub type Factories = HashMap<Uuid, Arc<dyn SocketFactory>>;

/// What the data plane is to serve. `in_rotation` says whether a backend takes connections, as far as its health goes.
#[must_use]
pub fn dataplane(
    configuration: &Configuration,
    networks: Factories,
    drain_timeout: Duration,
    in_rotation: impl Fn(Uuid) -> bool,
) -> dataplane::Configuration {
    let listeners: Vec<dataplane::Listener> =
        configuration.listeners.values().map(|item| listener(&item.value, configuration)).collect();
    // Pools that are only checked are OVN's to balance.
    let used: BTreeSet<Uuid> = listeners.iter().filter_map(|listener| listener.pool).collect();
    let pools = used.iter().filter_map(|id| configuration.pools.get(id));
    dataplane::Configuration {
        networks,
        pools: pools.map(|item| pool(&item.value, &in_rotation)).collect(),
        listeners,
        drain_timeout,
    }
}

fn listener(listener: &Listener, configuration: &Configuration) -> dataplane::Listener {
    let serves = |id: &Uuid| configuration.pools.get(id).is_some_and(|item| item.value.enabled);
    dataplane::Listener {
        id: listener.id,
        name: format!("{} of load balancer {}", listener.id, listener.load_balancer),
        network: listener.network,
        addresses: listener.addresses.clone(),
        pool: listener.pool.filter(serves),
        limits: listener.limits,
        enabled: listener.enabled,
    }
}

fn pool(pool: &Pool, in_rotation: impl Fn(Uuid) -> bool) -> dataplane::Pool {
    let backend = |backend: &super::Backend| dataplane::Backend {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
        backup: backend.backup,
        enabled: backend.enabled,
        starts_in_rotation: in_rotation(backend.id),
    };
    dataplane::Pool {
        id: pool.id,
        algorithm: pool.algorithm,
        persistence: pool.persistence.map(|timeout| SourceIpPersistence { timeout }),
        backends: pool.backends.iter().map(backend).collect(),
    }
}

/// What the health checker is to probe, and from where.
#[must_use]
pub fn targets(configuration: &Configuration, networks: Factories) -> Targets {
    let of_pool = |pool: &Pool| -> Vec<Target> {
        let target = |(backend, check): (&super::Backend, &Arc<_>)| Target {
            key: Key { network: pool.network, address: backend.monitor_address, check: Arc::clone(check) },
            backends: vec![backend.id],
        };
        pool.checked().map(target).collect()
    };
    let targets = configuration.pools.values().flat_map(|item| of_pool(&item.value)).collect();
    Targets { networks, targets }
}

/// The backends that take no connections before their first good probe.
pub fn in_probation(configuration: &Configuration) -> impl Iterator<Item = Uuid> {
    let pools = configuration.pools.values();
    let checked = pools.flat_map(|item| item.value.checked());
    checked.filter(|(backend, _)| backend.probation).map(|(backend, _)| backend.id)
}
