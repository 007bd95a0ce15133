//! Connection limits of backends, and the queue of a pool.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use fiberlb_proxy::dataplane::{Algorithm, BackendSpec, Protocol, QueueSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    peers::{ONE_FAILURE, Server, is_reset, is_turned_away, refusing, says_and_hears},
    world::{PATIENCE, World, backend, listener, own_address, patiently},
};

/// A timeout that is over soon.
const SHORT: Duration = Duration::from_millis(300);

fn limited(number: u128, server: &Server, limit: u32) -> BackendSpec {
    BackendSpec { connection_limit: Some(limit), ..backend(number, server.address) }
}

async fn world(backends: Vec<BackendSpec>, queue: Option<QueueSpec>) -> World {
    World::with(2, backends, |configuration| configuration.pools[0].queue = queue).await
}

/// A client that has asked something, and waits for the answer.
async fn asking(world: &World) -> TcpStream {
    let mut stream = world.connect().await;
    stream.write_all(b"hello").await.unwrap();
    stream
}

async fn hears(stream: &mut TcpStream) {
    let mut heard = [0; 5];
    patiently(stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// True if nothing comes for a while.
async fn is_waiting(stream: &TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(100), stream.readable()).await.is_err()
}

#[tokio::test]
async fn a_backend_at_its_limit_is_not_chosen_and_without_a_queue_who_finds_no_place_is_reset() {
    let servers = [Server::echo().await, Server::echo().await, Server::echo().await];
    let backends = vec![limited(1, &servers[0], 1), limited(2, &servers[1], 2), limited(3, &servers[2], 0)];
    let world = world(backends, None).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = world.connect().await;
        says_and_hears(&mut stream).await;
        open.push(stream);
    }
    let active = |number: u128| {
        world.plane.rotation().counters().get(&Uuid::from_u128(0x1000 + number)).map(|it| it.active)
    };
    assert_eq!([1, 2, 3].map(active), [Some(1), Some(2), None]);
    is_turned_away(&world).await;
    drop(open.pop());
    world.counted(|counters| counters.active == 2).await;
    says_and_hears(&mut world.connect().await).await;
    let counters = world.counters();
    assert_eq!((counters.refused_by_backend_limit, counters.no_backend, counters.failed()), (1, 0, 1));
}

#[tokio::test]
async fn without_any_backend_nobody_waits() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let world = world(vec![limited(1, &server, 1)], Some(queue)).await;
    world.plane.set_health(Uuid::from_u128(0x1001), false);
    is_turned_away(&world).await;
    let counters = world.quiet().await;
    assert_eq!((counters.no_backend, counters.queued), (1, 0));
}

#[tokio::test]
async fn nobody_waits_for_a_backend_that_has_no_part_of_its_limit_here() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let mut world = world(vec![limited(1, &server, 0)], Some(queue)).await;
    is_turned_away(&world).await;
    let counters = world.quiet().await;
    assert_eq!((counters.refused_by_backend_limit, counters.queued), (1, 0));
    let (address, _held) = refusing();
    world.configuration.pools[0].backends.push(backend(2, address));
    world.apply_all().await;
    is_turned_away(&world).await;
    let counters = world.quiet().await;
    assert_eq!((counters.no_backend, counters.connect_failures, counters.queued), (1, 1, 0));
}

#[tokio::test]
async fn who_waits_is_served_in_the_order_of_coming_when_a_place_is_free() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 3, timeout: PATIENCE };
    let world = world(vec![limited(1, &server, 1)], Some(queue)).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let mut waiting = Vec::new();
    for number in 1..=3 {
        waiting.push(asking(&world).await);
        world.counted(|counters| counters.waiting == number).await;
    }
    is_turned_away(&world).await;
    for stream in &waiting {
        assert!(is_waiting(stream).await);
    }
    drop(first);
    for _ in 0..3 {
        let mut next = waiting.remove(0);
        hears(&mut next).await;
        for stream in &waiting {
            assert!(is_waiting(stream).await, "one place is for one");
        }
    }
    let counters = world.quiet().await;
    assert_eq!((counters.queued, counters.waiting, counters.refused_by_backend_limit), (3, 0, 1));
    assert_eq!((counters.failed(), counters.no_backend), (1, 0));
}

#[tokio::test]
async fn who_waits_too_long_is_reset_and_who_goes_leaves_its_place() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 2, timeout: 4 * SHORT };
    let world = world(vec![limited(1, &server, 1)], Some(queue)).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    // One that has said nothing, and one that has: by a reset, and in order.
    for (speaks, resets) in [(false, true), (false, false), (true, true), (true, false)] {
        let stream = if speaks { asking(&world).await } else { world.connect().await };
        world.counted(|counters| counters.waiting == 1).await;
        if resets {
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
        world.counted(|counters| counters.waiting == 0).await;
    }
    assert_eq!(world.counters().queue_timeouts, 0);
    let started = Instant::now();
    is_reset(&mut asking(&world).await).await;
    assert!(started.elapsed() >= 4 * SHORT);
    says_and_hears(&mut first).await;
    drop(first);
    let counters = world.quiet().await;
    assert_eq!((counters.queue_timeouts, counters.queued, counters.failed()), (1, 5, 1));
}

#[tokio::test]
async fn a_change_of_health_or_configuration_is_seen_by_those_who_wait() {
    let servers = [Server::echo().await, Server::echo().await];
    let queue = Some(QueueSpec { limit: 10, timeout: PATIENCE });
    let backends = vec![limited(1, &servers[0], 1), backend(2, servers[1].address)];
    let mut world = world(backends, queue).await;
    let other = Uuid::from_u128(0x1002);
    world.plane.set_health(other, false);
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;

    // Another backend comes up: all are served.
    let mut waiting = [asking(&world).await, asking(&world).await];
    world.counted(|counters| counters.waiting == 2).await;
    world.plane.set_health(other, true);
    for stream in &mut waiting {
        hears(stream).await;
    }
    world.plane.set_health(other, false);

    // A higher limit.
    let mut waiting = [asking(&world).await, asking(&world).await];
    world.counted(|counters| counters.waiting == 2).await;
    world.configuration.pools[0].backends[0].connection_limit = Some(3);
    world.apply_all().await;
    for stream in &mut waiting {
        hears(stream).await;
    }

    // A backend that is new.
    let mut waiting = asking(&world).await;
    world.counted(|counters| counters.waiting == 1).await;
    world.configuration.pools[0].backends.push(backend(3, servers[1].address));
    world.apply_all().await;
    hears(&mut waiting).await;
    world.configuration.pools[0].backends.pop();
    world.apply_all().await;

    // No queue any more; no pool any more; no backend any more.
    for change in [0, 2, 1] {
        let mut waiting = [asking(&world).await, asking(&world).await];
        world.counted(|counters| counters.waiting == 2).await;
        let before = world.configuration.clone();
        match change {
            0 => world.configuration.pools[0].queue = None,
            1 => world.configuration.pools[0].backends.clear(),
            _ => world.configuration.listeners[0].pools = vec![],
        }
        world.apply_all().await;
        for stream in &mut waiting {
            is_reset(stream).await;
        }
        world.counted(|counters| counters.waiting == 0).await;
        world.configuration = before;
        world.apply_all().await;
    }
    says_and_hears(&mut first).await;
    let counters = world.counters();
    let reset = (counters.refused_by_backend_limit, counters.no_backend, counters.queue_timeouts);
    assert_eq!(reset, (2, 4, 0), "{counters:?}");
}

#[tokio::test]
async fn a_place_that_a_refusing_backend_did_not_need_is_the_next_ones() {
    let (address, _held) = refusing();
    let refusing = BackendSpec { connection_limit: Some(1), ..backend(1, address) };
    let world = world(vec![refusing], Some(QueueSpec { limit: 10, timeout: PATIENCE })).await;
    for _ in 0..5 {
        is_turned_away(&world).await;
    }
    let counters = world.quiet().await;
    assert_eq!((counters.no_backend, counters.waiting, counters.queue_timeouts), (5, 0, 0));
}

/// The other one is left out: where clients may wait, it is no alternative to waiting.
#[tokio::test]
async fn beside_a_queue_a_backend_that_fails_is_not_tried_while_another_one_is_only_full() {
    let server = Server::echo().await;
    let (address, _held) = refusing();
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let world = World::with(1, vec![limited(1, &server, 1), backend(2, address)], |configuration| {
        configuration.pools[0].queue = Some(queue);
        configuration.pools[0].passive_health = Some(ONE_FAILURE);
    })
    .await;
    let mut first = Vec::new();
    while world.counters().ejections == 0 {
        first.clear();
        world.counted(|counters| counters.active == 0).await;
        let mut stream = world.connect().await;
        says_and_hears(&mut stream).await;
        first.push(stream);
    }
    let failures = world.counters().connect_failures;
    let mut waiting = [asking(&world).await, asking(&world).await];
    world.counted(|counters| counters.waiting == 2).await;
    assert!(is_waiting(&waiting[0]).await);
    first.clear();
    hears(&mut waiting[0]).await;
    let [one, mut other] = waiting;
    drop(one);
    hears(&mut other).await;
    drop(other);
    let counters = world.quiet().await;
    assert_eq!((counters.connect_failures, counters.no_backend), (failures, 0), "{counters:?}");
}

#[tokio::test]
async fn who_was_refused_by_one_backend_waits_for_another_one_that_is_full() {
    let server = Server::echo().await;
    let (address, _held) = refusing();
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let mut world = world(vec![limited(1, &server, 1), backend(2, address)], Some(queue)).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let mut waiting = asking(&world).await;
    let counters = world.counted(|counters| counters.waiting == 1).await;
    assert!(counters.connect_failures >= 1, "it was refused before: {counters:?}");
    // The one that has refused it is not retried, also under another configuration.
    world.configuration.pools[0].backends.swap(0, 1);
    world.apply_all().await;
    assert!(is_waiting(&waiting).await);
    drop(first);
    hears(&mut waiting).await;
    drop(waiting);
    let after = world.quiet().await;
    assert_eq!((after.connect_failures, after.no_backend), (counters.connect_failures, 0), "{after:?}");
}

/// Its snapshot of the pool is the newest one, though its listener has none any more.
#[tokio::test]
async fn who_waits_at_a_removed_listener_holds_up_nobody_else() {
    let servers = [Server::echo().await, Server::echo().await];
    let beside = own_address();
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let mut world = World::with(1, vec![limited(1, &servers[0], 1)], |configuration| {
        configuration.pools[0].queue = Some(queue);
        let mut other = listener((beside, 8080).into());
        other.id = Uuid::from_u128(0x77);
        configuration.listeners.push(other);
    })
    .await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let mut removed = asking(&world).await;
    world.counted(|counters| counters.waiting == 1).await;
    world.configuration.listeners.remove(0);
    world.apply_all().await;
    let mut behind = patiently(TcpStream::connect((beside, 8080))).await.unwrap();
    behind.write_all(b"hello").await.unwrap();
    patiently(async {
        while world.plane.counters()[&Uuid::from_u128(0x77)].waiting == 0 {
            sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    world.configuration.pools[0].backends.push(backend(2, servers[1].address));
    world.apply_all().await;
    hears(&mut behind).await;
    hears(&mut removed).await;
}

#[tokio::test]
async fn a_backend_that_leaves_and_returns_has_the_connections_that_it_still_has() {
    let server = Server::echo().await;
    let mut world = world(vec![limited(1, &server, 1)], None).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let before = world.configuration.clone();
    world.configuration.listeners[0].enabled = false;
    world.configuration.pools.clear();
    world.configuration.listeners[0].pools = vec![];
    world.apply_all().await;
    world.configuration = before;
    world.apply_all().await;
    is_turned_away(&world).await;
    says_and_hears(&mut first).await;
    drop(first);
    world.counted(|counters| counters.active == 0).await;
    says_and_hears(&mut world.connect().await).await;
    assert_eq!(world.counters().refused_by_backend_limit, 1);
}

/// It connects by the pool that is in force by then.
#[tokio::test]
async fn who_has_waited_is_served_by_the_pool_in_force() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let mut world = world(vec![limited(1, &server, 1)], Some(queue)).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let mut waiting = world.connect().await;
    world.counted(|counters| counters.waiting == 1).await;
    let pool = &mut world.configuration.pools[0];
    pool.drain_timeout = Some(Duration::ZERO);
    pool.header = Some(fiberlb_proxy::proxy_protocol::Version::V1);
    let headers = Server::start(|mut stream| async move {
        let mut start = [0; 6];
        let _ = stream.read_exact(&mut start).await;
        let _ = stream.write_all(&start).await;
        let _ = stream.read(&mut start).await;
    })
    .await;
    pool.backends.push(backend(2, headers.address));
    world.apply_all().await;
    let mut heard = [0; 6];
    patiently(waiting.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"PROXY ");
    // Its backend goes, and it has the drain timeout.
    world.configuration.pools[0].backends.pop();
    world.apply_all().await;
    is_reset(&mut waiting).await;
    says_and_hears(&mut first).await;
}

#[tokio::test]
async fn a_failure_after_a_wait_counts_for_the_check_in_force() {
    let server = Server::echo().await;
    let queue = QueueSpec { limit: 10, timeout: PATIENCE };
    let mut world = world(vec![limited(1, &server, 1)], Some(queue)).await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    let mut waiting = asking(&world).await;
    world.counted(|counters| counters.waiting == 1).await;
    let (address, _held) = refusing();
    world.configuration.pools[0].backends.push(backend(2, address));
    world.configuration.pools[0].passive_health = Some(ONE_FAILURE);
    world.apply_all().await;
    world.counted(|counters| counters.ejections == 1 && counters.waiting == 1).await;
    drop(first);
    hears(&mut waiting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_of_several_workers_never_exceed_the_limits_and_all_are_served() {
    const LIMIT: u32 = 3;
    let (now, most) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
    let (counted, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |mut stream| {
        let (counted, peak) = (Arc::clone(&counted), Arc::clone(&peak));
        async move {
            peak.fetch_max(counted.fetch_add(1, Relaxed) + 1, Relaxed);
            let mut buffer = [0; 5];
            let _ = stream.read_exact(&mut buffer).await;
            sleep(Duration::from_millis(2)).await;
            // Before the client can know that it is over.
            counted.fetch_sub(1, Relaxed);
            let _ = stream.write_all(&buffer).await;
            let _ = stream.read(&mut buffer).await;
        }
    })
    .await;
    for algorithm in [Algorithm::RoundRobin, Algorithm::SourceIp] {
        let world = World::with(4, vec![limited(1, &server, LIMIT)], |configuration| {
            configuration.pools[0].algorithm = algorithm;
            configuration.pools[0].queue = Some(QueueSpec { limit: 1_000, timeout: PATIENCE });
        })
        .await;
        let address = world.address;
        let client = move |_| {
            tokio::spawn(async move {
                for _ in 0..10 {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    stream.write_all(b"hello").await.unwrap();
                    hears(&mut stream).await;
                }
            })
        };
        for client in (0..40).map(client).collect::<Vec<_>>() {
            patiently(client).await.unwrap();
        }
        let counters = world.quiet().await;
        assert_eq!((counters.accepted, counters.failed(), counters.waiting), (400, 0, 0), "{counters:?}");
        assert!(counters.queued > 100, "{counters:?}");
        assert!((1..=LIMIT).contains(&most.load(Relaxed)), "{} at a time", most.load(Relaxed));
    }
}

#[tokio::test]
async fn sessions_are_connections_of_their_backend() {
    let servers = [(); 2].map(|()| std::net::UdpSocket::bind((own_address(), 0)).unwrap());
    let limited = |number, server: &std::net::UdpSocket| BackendSpec {
        connection_limit: Some(1),
        ..backend(number, server.local_addr().unwrap())
    };
    let world = World::with(2, vec![limited(1, &servers[0]), limited(2, &servers[1])], |configuration| {
        configuration.listeners[0].protocol = Protocol::Udp;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = UdpSocket::bind((own_address(), 0)).await.unwrap();
        client.send_to(b"hello", world.address).await.unwrap();
        clients.push(client);
    }
    let counters = world.counted(|counters| counters.accepted == 4 && counters.active == 2).await;
    assert_eq!((counters.refused_by_backend_limit, counters.no_backend, counters.failed()), (2, 0, 2));
    for server in &servers {
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(server.recv(&mut [0; 16]).unwrap(), 5);
    }
}
