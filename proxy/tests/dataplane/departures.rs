//! Established connections of backends that go: by the drain timeout of their pool.

use std::time::Duration;

use fiberlb_proxy::dataplane::{PoolSpec, WeightedPool};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::{
    peers::{Server, is_reset, says_and_hears, silent},
    world::{LISTENER, POOL, World, backend, listener, own_address, patiently, pool},
};

/// A timeout that is over soon, and one that no test waits for.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3600);

/// Delay of a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The other listener and its pool, in which is the backend that stays.
const OTHER: Uuid = Uuid::from_u128(0x77);

/// The backend that goes.
const LEAVING: Uuid = Uuid::from_u128(0x1001);

/// Connections to each backend.
const CLIENTS: u32 = 6;

type Change = fn(&mut World);

/// Events that make the backend go. The configuration is applied after each.
const EVENTS: [(&str, Change); 7] = [
    ("down", |world| world.plane.set_health(LEAVING, false)),
    ("weight 0", |world| world.configuration.pools[0].backends[0].weight = 0),
    ("disabled", |world| world.configuration.pools[0].backends[0].enabled = false),
    ("removed", |world| world.configuration.pools[0].backends.clear()),
    ("another pool", |world| world.configuration.listeners[0].pools = vec![WeightedPool::alone(OTHER)]),
    ("the pool at weight 0", |world| {
        let leaving = WeightedPool { id: POOL, weight: 0 };
        world.configuration.listeners[0].pools = vec![leaving, WeightedPool::alone(OTHER)];
    }),
    ("no pool", |world| world.configuration.listeners[0].pools = vec![]),
];

/// Two listeners on two workers, each with a pool of one backend and with connections; the first backend is to leave.
struct Shop {
    world: World,
    _servers: [Server; 2],
    leaving: Vec<TcpStream>,
    staying: Vec<TcpStream>,
}

impl Shop {
    async fn new(drain_timeout: Option<Duration>) -> Self {
        let servers = [Server::echo().await, Server::echo().await];
        let backends = vec![backend(1, servers[0].address)];
        let beside = own_address();
        let mut world = World::with(2, backends, |spec| {
            spec.pools[0].drain_timeout = drain_timeout;
            let backends = vec![backend(2, servers[1].address)];
            spec.pools.push(PoolSpec { id: OTHER, drain_timeout, ..pool(backends) });
            let mut other = listener((beside, 8080).into());
            (other.id, other.pools) = (OTHER, vec![WeightedPool::alone(OTHER)]);
            spec.listeners.push(other);
        })
        .await;
        let first = world.address;
        let leaving = clients(&world).await;
        world.address = (beside, 8080).into();
        let staying = clients(&world).await;
        world.address = first;
        Self { world, _servers: servers, leaving, staying }
    }

    /// Lets the backend go, or return.
    async fn change(&mut self, change: Change) {
        change(&mut self.world);
        self.world.apply_all().await;
    }

    /// All connections of the backend that goes are reset, and no other one is.
    async fn is_cut(&mut self, what: &str) {
        for client in &mut self.leaving {
            is_reset(client).await;
        }
        let counters = self.world.quiet().await;
        assert_eq!(
            (counters.backend_gone, counters.reset_by_client + counters.reset_by_backend),
            (u64::from(CLIENTS), 0),
            "{what}"
        );
        all_hear(&mut self.staying).await;
        assert_eq!(self.world.plane.counters()[&OTHER].backend_gone, 0, "{what}");
    }

    async fn all_go_on(&mut self, what: &str) {
        all_hear(&mut self.leaving).await;
        all_hear(&mut self.staying).await;
        let counters = self.world.plane.counters()[&LISTENER];
        assert_eq!((counters.active, counters.backend_gone), (CLIENTS, 0), "{what}");
    }
}

impl Shop {
    /// Waits until the leaving backend is told to drain with this timeout, or not to drain.
    async fn is_told(&self, drain: Option<Option<Duration>>, what: &str) {
        let now = std::time::Instant::now();
        let told = || self.world.plane.rotation().counters()[&LEAVING];
        let has_deadline = || told().drain.map(|drain| drain.deadline.is_some());
        patiently(async {
            while has_deadline() != drain.map(|timeout| timeout.is_some()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(told().active, CLIENTS, "{what}");
        if let (Some(told), Some(Some(timeout))) = (told().drain, drain) {
            let left = told.deadline.unwrap().saturating_duration_since(now);
            assert!(left <= timeout + PATIENCE && left > timeout / 2, "{what}: {left:?}");
        }
    }
}

async fn clients(world: &World) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = world.connect().await;
        says_and_hears(&mut client).await;
        clients.push(client);
    }
    clients
}

async fn all_hear(clients: &mut [TcpStream]) {
    for client in clients {
        says_and_hears(client).await;
    }
}

#[tokio::test]
async fn whatever_makes_a_backend_go_its_connections_are_cut_at_once_if_they_are_to_be() {
    for (what, event) in EVENTS {
        let mut shop = Shop::new(Some(Duration::ZERO)).await;
        shop.change(event).await;
        shop.is_cut(what).await;
    }
}

#[tokio::test]
async fn they_are_cut_after_the_timeout_and_serve_until_then() {
    for (what, event) in EVENTS {
        let mut shop = Shop::new(Some(SHORT)).await;
        let began = std::time::Instant::now();
        shop.change(event).await;
        shop.is_cut(what).await;
        assert!(began.elapsed() >= SHORT, "{what}");
    }
}

#[tokio::test]
async fn they_go_on_without_a_timeout_and_before_it_is_over() {
    for (what, event) in EVENTS {
        for timeout in [None, Some(LONG)] {
            let mut shop = Shop::new(timeout).await;
            shop.change(event).await;
            shop.all_go_on(what).await;
            shop.is_told(Some(timeout), what).await;
        }
    }
}

#[tokio::test]
async fn a_change_of_health_is_enough() {
    let mut shop = Shop::new(Some(Duration::ZERO)).await;
    shop.world.plane.rotation().set_health(LEAVING, false);
    shop.is_cut("down").await;
}

#[tokio::test]
async fn a_backend_that_returns_in_time_keeps_its_connections() {
    let timeout = Duration::from_secs(2);
    let mut shop = Shop::new(Some(timeout)).await;
    for (_, event) in EVENTS {
        let before = shop.world.configuration.clone();
        shop.change(event).await;
        shop.world.configuration = before;
        shop.change(|world| world.plane.set_health(LEAVING, true)).await;
        shop.is_told(None, "back").await;
    }
    tokio::time::sleep(2 * timeout).await; // past the time at which they would have been cut
    shop.all_go_on("all of them").await;
    // The time counts anew.
    shop.change(EVENTS[1].1).await;
    shop.is_cut("weight 0").await;
}

#[tokio::test]
async fn a_timeout_holds_for_connections_that_are_older_and_one_that_is_taken_back_does_not() {
    let mut shop = Shop::new(None).await;
    shop.change(|world| {
        world.configuration.pools[0].drain_timeout = Some(LONG);
        world.configuration.pools[0].backends[0].weight = 0;
    })
    .await;
    shop.all_go_on("a new timeout").await;
    shop.is_told(Some(Some(LONG)), "a new timeout").await;
    shop.change(|world| world.configuration.pools[0].drain_timeout = None).await;
    shop.all_go_on("no timeout").await;
    shop.is_told(Some(None), "no timeout").await;
    shop.change(|world| world.configuration.pools[0].drain_timeout = Some(Duration::ZERO)).await;
    shop.is_cut("a shorter timeout").await;
}

#[tokio::test]
async fn a_timeout_that_changes_while_the_pool_is_away_holds_when_it_is_back() {
    for before in [None, Some(LONG)] {
        let mut shop = Shop::new(before).await;
        shop.change(EVENTS[4].1).await;
        shop.change(|world| world.configuration.pools[0].drain_timeout = Some(Duration::ZERO)).await;
        shop.change(|world| world.configuration.listeners[0].pools = vec![WeightedPool::alone(POOL)]).await;
        shop.all_go_on("the pool is back").await;
        shop.change(EVENTS[1].1).await;
        shop.is_cut("weight 0").await;
    }
}

#[tokio::test]
async fn a_connection_that_a_backend_accepts_when_it_is_gone_is_cut_too() {
    let (address, queue) = silent();
    let mut world = World::with(1, vec![backend(1, address)], |spec| {
        spec.pools[0].drain_timeout = Some(Duration::ZERO);
    })
    .await;
    let mut client = world.connect().await;
    world.counted(|counters| counters.active == 1).await;
    world.configuration.pools[0].backends[0].weight = 0;
    world.apply_all().await;
    // The backend's queue has room now: the kernel's next SYN is answered.
    let [listener, queued] = queue;
    drop(queued);
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(false).unwrap();
    let accepted =
        tokio::task::spawn_blocking(move || [listener.accept().unwrap(), listener.accept().unwrap()]);
    is_reset(&mut client).await;
    drop(patiently(accepted).await.unwrap());
    assert_eq!(world.quiet().await.backend_gone, 1);
}

#[tokio::test]
async fn connections_of_a_listener_that_drains_are_cut_with_their_backend() {
    let mut shop = Shop::new(Some(Duration::ZERO)).await;
    let listener = shop.world.configuration.listeners[0].clone();
    shop.change(|world| drop(world.configuration.listeners.remove(0))).await;
    all_hear(&mut shop.leaving).await;
    let drain = shop.world.plane.counters()[&LISTENER].drain.unwrap();
    assert!(drain.deadline > std::time::Instant::now() && drain.load_balancer == listener.load_balancer);
    shop.world.plane.set_health(LEAVING, false);
    for client in &mut shop.leaving {
        is_reset(client).await;
    }
    all_hear(&mut shop.staying).await;
}
