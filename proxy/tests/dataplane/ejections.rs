//! Passive health checks: backends that fail connections are left out, and come back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fiberlb_proxy::dataplane::{BackendSpec, DataplaneSpec, Ejection, PassiveHealthSpec};
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use crate::{
    datagrams::{UdpServer, client, udp},
    peers::{Server, is_turned_away, name, names, refusing, silent, times},
    world::{World, backend, own_address, patiently},
};

/// An ejection that outlasts the test.
const LONG: Duration = Duration::from_secs(3_600);

/// Milliseconds by which rounded times may differ.
const ROUNDED: u64 = 2;

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

/// Three failures in a row, and half of the pool.
fn passive(ejection: Duration) -> PassiveHealthSpec {
    PassiveHealthSpec {
        consecutive_failures: 3,
        ejection,
        max_ejection: ejection * 2,
        max_ejected_percent: 50,
    }
}

async fn world(workers: usize, backends: Vec<BackendSpec>, rules: PassiveHealthSpec) -> World {
    World::with(workers, backends, |configuration| {
        configuration.pools[0].passive_health = Some(rules);
    })
    .await
}

fn ejections(world: &World) -> Vec<(Uuid, Ejection)> {
    world.plane.rotation().ejections(Instant::now()).into_iter().collect()
}

async fn says(mut stream: tokio::net::TcpStream, name: u8) {
    let _ = stream.write_all(&[name]).await;
}

/// A server on an address that has refused connections until now.
async fn starts(address: SocketAddr, held: tokio::net::TcpSocket, name: u8) -> Server {
    drop(held);
    Server::on(address, move |stream| says(stream, name)).await
}

#[tokio::test]
async fn a_backend_that_fails_in_a_row_is_left_out_and_clients_do_not_notice() {
    let (refused, _held) = refusing();
    let works = Server::named(2).await;
    let backends = vec![backend(1, refused), backend(2, works.address)];
    let id = backends[0].id;
    let mut world = world(2, backends, passive(LONG)).await;
    assert_eq!(names(&world, 40).await, [2; 40]);
    let counters = world.quiet().await;
    assert_eq!((counters.connect_failures, counters.ejections, counters.ejections_withheld), (3, 1, 0));
    let [(ejected, Ejection { until_ms, reason })] = ejections(&world).try_into().unwrap();
    assert_eq!((ejected, reason.as_str()), (id, "connection refused"));
    let left = Duration::from_millis(until_ms.saturating_sub(now_ms()));
    assert!(left <= LONG && left > LONG - Duration::from_secs(60), "{left:?}");

    // It stays out through a change of the pool, and is retried once there is no such check.
    world.configuration.pools[0].backends[1].weight = 2;
    world.apply_all().await;
    assert_eq!(names(&world, 10).await, [2; 10]);
    assert_eq!(world.quiet().await.connect_failures, 3);
    world.configuration.pools[0].passive_health = None;
    world.apply_all().await;
    assert_eq!(names(&world, 10).await, [2; 10]);
    let counters = world.quiet().await;
    assert!(counters.connect_failures > 3 && counters.ejections == 1, "{counters:?}");
    assert!(ejections(&world).is_empty());
}

#[tokio::test]
async fn a_backend_comes_back_after_its_time_and_is_left_out_for_longer_if_it_fails_again() {
    let (refused, held) = refusing();
    let works = Server::named(2).await;
    let first = Duration::from_millis(500);
    let world = world(1, vec![backend(1, refused), backend(2, works.address)], passive(first)).await;
    let began = now_ms();
    // A test that is late misses an ejection, and sees the next one, which takes no less.
    let until = patiently(async {
        loop {
            assert_eq!(name(&world).await.unwrap(), 2);
            let ejection = ejections(&world).pop().filter(|_| world.counters().ejections >= 2);
            if let Some((_, ejection)) = ejection {
                break ejection.until_ms;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let first = u64::try_from(first.as_millis()).unwrap();
    assert!(until + ROUNDED >= began + first * 3, "the second time in a row is longer: {began} {until}");
    let _back = starts(refused, held, 1).await;
    patiently(async {
        while name(&world).await.unwrap() != 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(now_ms() + ROUNDED >= until, "{until}");
    assert_eq!(times(&names(&world, 20).await, 1), 10);
    assert!(ejections(&world).is_empty());
}

#[tokio::test]
async fn no_more_than_a_share_of_the_pool_is_left_out() {
    let refused = [refusing(), refusing(), refusing()];
    let works = Server::named(9).await;
    let mut backends: Vec<_> =
        refused.iter().zip(1..).map(|((address, _), number)| backend(number, *address)).collect();
    backends.push(backend(9, works.address));
    let world = world(2, backends, passive(LONG)).await;
    assert_eq!(names(&world, 60).await, [9; 60]);
    let counters = world.quiet().await;
    assert_eq!((counters.ejections, ejections(&world).len()), (2, 2), "half of four");
    assert!(counters.ejections_withheld > 0, "{counters:?}");
}

#[tokio::test]
async fn the_only_backend_is_never_left_out_and_the_last_ones_are_tried_all_the_same() {
    let (refused, held) = refusing();
    let mut off = backend(2, refused);
    off.weight = 0;
    let all = PassiveHealthSpec { max_ejected_percent: 100, ..passive(LONG) };
    let alone = world(1, vec![backend(1, refused), off], all).await;
    for _ in 0..10 {
        is_turned_away(&alone).await;
    }
    let counters = alone.quiet().await;
    assert_eq!((counters.connect_failures, counters.ejections), (10, 0), "{counters:?}");

    let (also, _also_held) = refusing();
    let both = world(1, vec![backend(1, refused), backend(2, also)], all).await;
    for _ in 0..10 {
        is_turned_away(&both).await;
    }
    assert_eq!((both.quiet().await.ejections, ejections(&both).len()), (2, 2));
    let _back = starts(refused, held, 1).await;
    assert_eq!(names(&both, 10).await, [1; 10]);
}

#[tokio::test]
async fn silence_says_nothing_while_the_neighbour_tables_overflow() {
    let (quiet, _queued) = silent();
    let works = Server::named(2).await;
    let mut world = world(1, vec![backend(1, quiet), backend(2, works.address)], passive(LONG)).await;
    world.configuration.listeners[0].limits.backend_connect = Some(Duration::from_millis(30));
    world.apply_all().await;
    world.plane.shortages().set_neighbours_full(true);
    assert_eq!(names(&world, 16).await, [2; 16]);
    assert_eq!(world.quiet().await.ejections, 0);
    world.plane.shortages().set_neighbours_full(false);
    assert_eq!(names(&world, 16).await, [2; 16]);
    assert_eq!(world.quiet().await.ejections, 1);
    assert_eq!(ejections(&world)[0].1.reason, "no answer in time");
}

#[tokio::test]
async fn a_backend_that_refuses_datagrams_is_left_out_too() {
    let nobody: SocketAddr = (own_address(), 53).into();
    let works = UdpServer::named(2).await;
    let backends = vec![backend(1, nobody), backend(2, works.address)];
    let configure = |configuration: &mut DataplaneSpec| {
        udp(configuration);
        configuration.pools[0].passive_health = Some(passive(LONG));
    };
    let world = World::with(1, backends, configure).await;
    let mut asked = 0;
    while world.counters().ejections == 0 {
        let client = client(world.address).await;
        let mut answer = [0; 64];
        // The first datagram of a session may be the one that is refused.
        patiently(async {
            loop {
                client.send(b"hello").await.unwrap();
                let heard = client.recv(&mut answer);
                if tokio::time::timeout(Duration::from_millis(200), heard).await.is_ok_and(|it| it.is_ok()) {
                    break;
                }
            }
        })
        .await;
        assert_eq!(answer[0], 2);
        asked += 1;
        assert!(asked < 50, "{:?}", world.counters());
    }
    assert_eq!(ejections(&world)[0].1.reason, "connection refused");
    let before = world.counters().connect_failures;
    for _ in 0..6 {
        let client = client(world.address).await;
        assert_eq!(crate::datagrams::name(&client).await, 2);
    }
    assert_eq!(world.counters().connect_failures, before);
}

#[tokio::test]
async fn a_port_of_a_range_where_nobody_listens_leaves_no_backend_out() {
    let addresses = [own_address(), own_address()].map(|host| SocketAddr::from((host, 9_000)));
    let mut servers = Vec::new();
    for (name, address) in (1..).zip(addresses) {
        servers.push(Server::on(address, move |stream| says(stream, name)).await);
    }
    // At the second port, the first backend has nobody.
    let second = SocketAddr::new(addresses[1].ip(), 9_001);
    servers.push(Server::on(second, |stream| says(stream, 2)).await);
    let backends = vec![backend(1, addresses[0]), backend(2, addresses[1])];
    let mut world = World::with(1, backends, |configuration| {
        configuration.listeners[0].ports = 2;
        configuration.pools[0].passive_health = Some(passive(LONG));
    })
    .await;
    world.address.set_port(8_081);
    assert_eq!(names(&world, 20).await, [2; 20]);
    assert_eq!(world.quiet().await.connect_failures, 10);
    assert!(ejections(&world).is_empty());
    world.address.set_port(8_080);
    assert_eq!(times(&names(&world, 20).await, 1), 10, "it serves its own port as before");
}
