//! A tree for tests: one listener, one pool, three backends and a check, of which each test changes one part.

use uuid::Uuid;

use super::{
    Algorithm, AllowedCidrs, Backend, Common, Datapath, Exposure, HealthCheck, HealthCheckType, Identity,
    Kind, Listener, ListenerProtocol, LoadBalancer, PassiveHealthCheck, Pool, PoolProtocol, ProxyLimits,
    Record, Resource, Tree, TrustedProxies, WeightedPools,
};

/// The load balancer.
pub(crate) const LOAD_BALANCER: Uuid = Uuid::from_u128(1);
/// Its network.
pub(crate) const NETWORK: Uuid = Uuid::from_u128(2);
/// Its listener, on TCP port 80.
pub(crate) const LISTENER: Uuid = Uuid::from_u128(3);
/// The listener's pool.
pub(crate) const POOL: Uuid = Uuid::from_u128(4);
/// The pool's check: every 5 s, 2 s for a probe.
pub(crate) const CHECK: Uuid = Uuid::from_u128(5);
/// The pool's backends: 10.0.0.11:8080 to 10.0.0.13:8080.
pub(crate) const BACKENDS: [Uuid; 3] = [Uuid::from_u128(11), Uuid::from_u128(12), Uuid::from_u128(13)];

/// A passive health check with all defaults, for a pool that is changed.
pub(crate) const PASSIVE: PassiveHealthCheck = PassiveHealthCheck {
    consecutive_failures: 5,
    ejection_ms: 30_000,
    max_ejection_ms: 300_000,
    max_ejected_percent: 50,
};

/// The tree, with the VIP 10.0.0.100.
pub(crate) fn tree() -> Tree {
    let root = LoadBalancer {
        common: Common::default(),
        org_id: "o".to_owned(),
        project_id: "p".to_owned(),
        network: NETWORK,
        vips: vec!["10.0.0.100".parse().unwrap()],
        admin_state_up: true,
    };
    let mut tree = Tree::new(Record::new(LOAD_BALANCER, Identity::default(), root));
    put(&mut tree, LISTENER, listener());
    put(&mut tree, POOL, pool());
    put(&mut tree, CHECK, check());
    for (number, id) in (11..).zip(BACKENDS) {
        put(&mut tree, id, backend(number));
    }
    tree
}

/// Adds or replaces a resource.
pub(crate) fn put<T: Resource>(tree: &mut Tree, id: Uuid, spec: T) {
    T::put(tree, Record::new(id, Identity::default(), spec));
}

/// Changes a resource.
pub(crate) fn change<T: Resource>(tree: &mut Tree, id: Uuid, edit: impl FnOnce(&mut T)) {
    let mut spec = T::find(tree, id).unwrap().spec.clone();
    edit(&mut spec);
    put(tree, id, spec);
}

/// The listener.
pub(crate) fn listener() -> Listener {
    Listener {
        common: Common::default(),
        load_balancer_id: LOAD_BALANCER,
        protocol: ListenerProtocol::Tcp,
        port: 80,
        port_end: None,
        default_pool_id: Some(POOL),
        weighted_pools: WeightedPools::default(),
        datapath: Datapath::Auto,
        exposure: Exposure::Auto,
        limits: ProxyLimits::default(),
        allowed_cidrs: AllowedCidrs::default(),
        trusted_proxies: TrustedProxies::default(),
        admin_state_up: true,
    }
}

/// The pool.
pub(crate) fn pool() -> Pool {
    Pool {
        common: Common::default(),
        load_balancer_id: LOAD_BALANCER,
        protocol: PoolProtocol::Tcp,
        algorithm: Algorithm::RoundRobin,
        persistence: None,
        drain_timeout_ms: None,
        slow_start_ms: None,
        passive_health_check: None,
        queue_limit: 0,
        queue_timeout_ms: None,
        admin_state_up: true,
    }
}

/// The check.
pub(crate) fn check() -> HealthCheck {
    HealthCheck {
        common: Common::default(),
        pool_id: POOL,
        check_type: HealthCheckType::Tcp,
        delay_ms: 5000,
        timeout_ms: 2000,
        rise: 2,
        fall: 3,
        http: None,
        admin_state_up: true,
    }
}

/// The backend with the address 10.0.0.NUMBER.
pub(crate) fn backend(number: u8) -> Backend {
    Backend {
        common: Common::default(),
        pool_id: POOL,
        address: ([10, 0, 0, number], 8080).into(),
        weight: 1,
        backup: false,
        monitor_address: None,
        monitor_port: None,
        connection_limit: 0,
        admin_state_up: true,
    }
}

/// The tree with all its records marked as deleted.
pub(crate) fn deleted(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.delete(Kind::LoadBalancer, tree.id());
    tree
}
