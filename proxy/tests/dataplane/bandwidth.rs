//! Bandwidth of a listener: no more for many connections than for one, in each direction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fiberlb_proxy::dataplane::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep},
};

use crate::{
    peers::{Server, says_and_hears},
    world::{World, backend, own_address, patiently},
};

async fn send_forever(mut stream: TcpStream) {
    while stream.write_all(&[7; 64 * 1024]).await.is_ok() {}
}

async fn receive_forever(mut stream: TcpStream, received: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        received.fetch_add(bytes as u64, Relaxed);
    }
}

/// Time that passes until so many connections have received as many bytes as a second allows, from the backend or from the
/// clients.
async fn second_of(rate: u64, connections: usize, up: bool) -> Duration {
    let received = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&received);
    let server = Server::start(move |stream| {
        let counted = Arc::clone(&counted);
        async move { if up { receive_forever(stream, counted).await } else { send_forever(stream).await } }
    })
    .await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.bandwidth = Some(rate);
    })
    .await;
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (stream, received) = (world.connect().await, Arc::clone(&received));
        clients.push(tokio::spawn(async move {
            if up { send_forever(stream).await } else { receive_forever(stream, received).await }
        }));
    }
    patiently(async {
        while received.load(Relaxed) < rate {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let time = started.elapsed();
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    assert!(world.counters().bandwidth_waits > 0);
    time
}

/// Exactness and evenness are the bucket's own test: this machine may be late, and only what passes too soon is
/// wrong.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_and_fifty_get_no_more_than_the_limit_in_each_direction() {
    // The first one is copied, the second one spliced.
    for rate in [512 * 1024, 24 * 1024 * 1024] {
        for connections in [1, 50] {
            for up in [false, true] {
                let time = second_of(rate, connections, up).await;
                // All but the burst of a 16th of a second.
                let least = Duration::from_secs(1) * 15 / 16;
                assert!(time >= least, "{time:?} at {rate} bytes/s with {connections} connections, up: {up}");
            }
        }
    }
}

#[tokio::test]
async fn who_waits_for_bandwidth_is_not_idle() {
    const BYTES: usize = 1024;
    let server = Server::start(|mut stream| async move {
        let _ = stream.write_all(&[7; BYTES]).await;
        // Until the client closes.
        let _ = stream.read(&mut [0; 16]).await;
    })
    .await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        let limits = &mut configuration.listeners[0].limits;
        let timeout = Some(Duration::from_millis(400));
        // In grants of a quarter of a KiB, so that each connection waits longer than a timeout for each of its turns.
        (limits.bandwidth, limits.client_data, limits.backend_data) = (Some(4 * 1024), timeout, timeout);
    })
    .await;
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut stream = world.connect().await;
        clients.push(tokio::spawn(async move {
            let mut bytes = [0; BYTES];
            patiently(stream.read_exact(&mut bytes)).await.map(drop)
        }));
    }
    for client in clients {
        client.await.unwrap().unwrap();
    }
    assert!(started.elapsed() > Duration::from_millis(2_500), "{:?}", started.elapsed());
    let counters = world.quiet().await;
    assert_eq!((counters.timed_out, counters.failed()), (0, 0), "{counters:?}");
}

#[tokio::test]
async fn connections_follow_another_limit_and_its_end() {
    let server = Server::echo().await;
    let mut world = World::with(1, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.bandwidth = Some(1024);
    })
    .await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    let exchange = async |client: &mut TcpStream| {
        let started = Instant::now();
        client.write_all(&[7; 2048]).await.unwrap();
        patiently(client.read_exact(&mut [0; 2048])).await.unwrap();
        started.elapsed()
    };
    let exchanges = async |client: &mut TcpStream| {
        for _ in 0..100 {
            exchange(client).await;
        }
    };
    let slow = exchange(&mut client).await;
    assert!(slow > Duration::from_millis(1_000), "{slow:?}");
    world.configuration.listeners[0].limits.bandwidth = Some(100 * 1024 * 1024);
    world.apply_all().await;
    // At the limit before they would take minutes, and no test is so patient.
    patiently(exchanges(&mut client)).await;
    world.configuration.listeners[0].limits.bandwidth = None;
    world.apply_all().await;
    let waits = world.counters().bandwidth_waits;
    exchange(&mut client).await;
    assert_eq!(world.counters().bandwidth_waits, waits);

    // The limit returns, also while the listener is gone; both have it from the time before.
    world.configuration.listeners[0].limits.bandwidth = Some(1024);
    world.apply_all().await;
    let slow = exchange(&mut client).await;
    assert!(slow > Duration::from_millis(1_000), "{slow:?}");
    for is_there in [false, true] {
        world.configuration.listeners[0].enabled = is_there;
        world.apply_all().await;
    }
    world.configuration.listeners[0].limits.bandwidth = Some(100 * 1024 * 1024);
    world.apply_all().await;
    patiently(exchanges(&mut client)).await;
    drop(client);
    let counters = world.quiet().await;
    assert_eq!(counters.reset_by_client + counters.reset_by_backend, 0);
}

#[tokio::test]
async fn who_waits_follows_another_limit_and_the_end_of_a_stream_waits_behind_nobody() {
    const CLIENTS: u64 = 200;
    const BYTES: u64 = 1024;
    let received = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&received);
    let server = Server::start(move |stream| receive_forever(stream, Arc::clone(&counted))).await;
    let mut world = World::with(1, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.bandwidth = Some(1024);
    })
    .await;
    let quiet = world.connect().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = world.connect().await;
        client.write_all(&[7; BYTES as usize]).await.unwrap();
        clients.push(client);
    }
    // The last one of them waits for most of a minute.
    world.counted(|counters| counters.bandwidth_waits >= CLIENTS - 4).await;
    drop(quiet);
    world.counted(|counters| u64::from(counters.active) == CLIENTS).await;
    assert!(received.load(Relaxed) < CLIENTS * BYTES);
    world.configuration.listeners[0].limits.bandwidth = Some(100 * 1024 * 1024);
    world.apply_all().await;
    patiently(async {
        while received.load(Relaxed) < CLIENTS * BYTES {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn datagrams_above_the_bandwidth_are_dropped_both_ways() {
    const RATE: u64 = 100_000;
    const SIZE: usize = 1_000;
    let server = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let answered = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&answered);
    let echo = tokio::spawn(async move {
        let mut buffer = [0; SIZE];
        while let Ok((bytes, from)) = server.recv_from(&mut buffer).await {
            counted.fetch_add(1, Relaxed);
            for _ in 0..2 {
                let _ = server.send_to(&buffer[..bytes], from).await;
            }
        }
    });
    let world = World::with(2, vec![backend(1, address)], |configuration| {
        configuration.listeners[0].protocol = Protocol::Udp;
        configuration.listeners[0].limits.bandwidth = Some(RATE);
    })
    .await;
    let client = UdpSocket::bind((own_address(), 0)).await.unwrap();
    client.connect(world.address).await.unwrap();
    let (started, mut heard, mut sent) = (Instant::now(), 0_u64, 0_u64);
    while started.elapsed() < Duration::from_secs(3) {
        client.send(&[7; SIZE]).await.unwrap();
        sent += 1;
        while client.try_recv(&mut [0; SIZE]).is_ok() {
            heard += 1;
        }
        sleep(Duration::from_millis(2)).await;
    }
    let most = RATE as f64 * (started.elapsed().as_secs_f64() + 1.0 / 16.0) / SIZE as f64;
    for (way, passed) in [("up", answered.load(Relaxed)), ("down", heard)] {
        let passed = passed as f64;
        // At least a burst, and something afterwards.
        assert!(passed < most + 2.0 && passed > 10.0, "{way}: {passed} of {most}, {sent} sent");
    }
    let counters = world.counters();
    assert!(counters.datagrams_over_bandwidth > 0, "{counters:?}");
    assert_eq!(counters.failed(), 0);
    echo.abort();
}
