//! A data plane with one listener and one pool, on a loopback address of its own.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::{
        Algorithm, BackendSpec, Dataplane, DataplaneOptions, DataplaneSpec, Limits, ListenerCounters,
        ListenerOutcome, ListenerSpec, PoolSpec, Protocol, WeightedPool,
    },
    sockets::{OwnNamespace, SocketFactory},
};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Longest duration of any single step of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The listener, the pool and the network of every world.
pub(crate) const LISTENER: Uuid = Uuid::from_u128(1);
pub(crate) const POOL: Uuid = Uuid::from_u128(2);
pub(crate) const NETWORK: Uuid = Uuid::from_u128(3);

/// An address that no other test uses, of this process or of another one: all of 127.0.0.0/8 is on the loopback interface.
pub(crate) fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::from_bits(0x7f00_0000 | 0x40_0000 | (std::process::id() % 0x4000) << 8 | number)
}

pub(crate) fn backend(number: u128, address: SocketAddr) -> BackendSpec {
    BackendSpec {
        id: Uuid::from_u128(0x1000 + number),
        address,
        weight: 1,
        backup: false,
        enabled: true,
        connection_limit: None,
        starts_in_rotation: true,
    }
}

pub(crate) fn listener(address: SocketAddr) -> ListenerSpec {
    ListenerSpec {
        id: LISTENER,
        name: "test".to_owned(),
        load_balancer: Uuid::nil(),
        project: String::new(),
        network: NETWORK,
        protocol: Protocol::Tcp,
        addresses: vec![address],
        ports: 1,
        pools: vec![WeightedPool::alone(POOL)],
        limits: Limits {
            client_data: Some(PATIENCE),
            backend_connect: Some(Duration::from_secs(5)),
            backend_data: Some(PATIENCE),
            ..Limits::default()
        },
        allowed_cidrs: Vec::new(),
        trusted_proxies: Vec::new(),
        frontends: Vec::new(),
        enabled: true,
    }
}

pub(crate) fn pool(backends: Vec<BackendSpec>) -> PoolSpec {
    PoolSpec {
        id: POOL,
        algorithm: Algorithm::RoundRobin,
        persistence: None,
        header: None,
        drain_timeout: None,
        slow_start: None,
        passive_health: None,
        queue: None,
        backends,
    }
}

/// A data plane and what it is configured with.
pub(crate) struct World {
    pub(crate) plane: Dataplane,
    pub(crate) configuration: DataplaneSpec,
    pub(crate) address: SocketAddr,
}

impl World {
    /// One worker, a listener, and these backends.
    pub(crate) async fn new(backends: Vec<BackendSpec>) -> Self {
        Self::with(1, backends, |_| {}).await
    }

    pub(crate) async fn with(
        workers: usize,
        backends: Vec<BackendSpec>,
        change: impl FnOnce(&mut DataplaneSpec),
    ) -> Self {
        let mut world = Self::empty(workers, (own_address(), 8080).into());
        world.configuration.listeners = vec![listener(world.address)];
        world.configuration.pools = vec![pool(backends)];
        change(&mut world.configuration);
        world.apply_all().await;
        world
    }

    pub(crate) fn empty(workers: usize, address: SocketAddr) -> Self {
        let plane = Dataplane::start(DataplaneOptions::for_this_process(workers)).unwrap();
        let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
        let configuration = DataplaneSpec {
            networks: HashMap::from([(NETWORK, factory)]),
            drain_timeout: PATIENCE,
            ..DataplaneSpec::default()
        };
        Self { plane, configuration, address }
    }

    pub(crate) async fn apply(&mut self) -> Vec<ListenerOutcome> {
        self.plane.apply(&self.configuration).await
    }

    /// Applies, and no listener may be refused.
    pub(crate) async fn apply_all(&mut self) {
        for outcome in self.apply().await {
            outcome.result.unwrap();
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        patiently(TcpStream::connect(self.address)).await.unwrap()
    }

    pub(crate) fn counters(&self) -> ListenerCounters {
        self.plane.counters().remove(&LISTENER).unwrap_or_default()
    }

    /// Waits until the counters are as they should be.
    pub(crate) async fn counted(&self, wanted: impl Fn(&ListenerCounters) -> bool) -> ListenerCounters {
        let mut counters = self.counters();
        let waited = tokio::time::timeout(PATIENCE, async {
            while !wanted(&counters) {
                tokio::time::sleep(Duration::from_millis(2)).await;
                counters = self.counters();
            }
        });
        let in_time = waited.await.is_ok();
        assert!(in_time, "{counters:?}");
        counters
    }

    /// Waits until no connection is left; then all that were accepted must have been closed.
    pub(crate) async fn quiet(&self) -> ListenerCounters {
        let counters = self.counted(|counters| counters.active == 0).await;
        assert_eq!(counters.accepted, counters.closed, "{counters:?}");
        counters
    }
}

/// Gives up on what takes too long.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}
