//! Memory of an idle connection, alone in its process: everything that is allocated is counted.
#![cfg(test)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::{
        Algorithm, BackendSpec, Dataplane, DataplaneOptions, DataplaneSpec, Limits, ListenerSpec, PoolSpec,
        Protocol, WeightedPool,
    },
    sockets::{OwnNamespace, SocketFactory},
};
use uuid::Uuid;

/// Counts the bytes that are allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
#[expect(unsafe_code, reason = "the trait is unsafe")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const CONNECTIONS: usize = 400;

/// Bytes that each connection moves before it idles: enough to be spliced.
const BULK: usize = 2 * 1024 * 1024;

/// Most bytes of heap of an idle connection. Its two sockets' registrations with tokio are most of it.
const BYTES_PER_CONNECTION: usize = 2_048;

/// The same of an idle session of UDP, with its part of the tables.
const BYTES_PER_SESSION: usize = 1_280;

/// The pipes that a worker keeps for the next flow, with two descriptors each.
const SPARE_PIPE_ENDS: usize = 2 * 32;

fn configuration(address: SocketAddr, backend: SocketAddr) -> DataplaneSpec {
    let (network, pool) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
    let listener = ListenerSpec {
        id: Uuid::from_u128(3),
        name: "memory".to_owned(),
        load_balancer: Uuid::nil(),
        project: String::new(),
        network,
        protocol: Protocol::Tcp,
        addresses: vec![address],
        ports: 1,
        pools: vec![WeightedPool::alone(pool)],
        limits: Limits {
            client_data: Some(Duration::from_secs(600)),
            backend_connect: Some(Duration::from_secs(5)),
            backend_data: Some(Duration::from_secs(600)),
            ..Limits::default()
        },
        allowed_cidrs: Vec::new(),
        trusted_proxies: Vec::new(),
        frontends: Vec::new(),
        enabled: true,
    };
    let backend = BackendSpec {
        id: Uuid::from_u128(4),
        address: backend,
        weight: 1,
        backup: false,
        enabled: true,
        connection_limit: None,
        starts_in_rotation: true,
    };
    DataplaneSpec {
        networks: HashMap::from([(network, factory)]),
        listeners: vec![listener],
        pools: vec![PoolSpec {
            id: pool,
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            header: None,
            drain_timeout: None,
            slow_start: None,
            passive_health: None,
            queue: None,
            backends: vec![backend],
        }],
        drain_timeout: Duration::ZERO,
        ..DataplaneSpec::default()
    }
}

/// A connection that has moved a lot and then falls silent.
fn connection(address: SocketAddr, backend: &TcpListener, bytes: &mut [u8]) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    for _ in 0..BULK / bytes.len() {
        server.write_all(bytes).unwrap();
        client.read_exact(bytes).unwrap();
    }
    (client, server)
}

fn pipe_ends() -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn an_idle_connection_holds_no_buffer_and_no_pipe() {
    let own = Ipv4Addr::from_bits(0x7f20_0001 | (std::process::id() % 0x4000) << 8);
    let address = (own, 8080).into();
    let backend = TcpListener::bind((own, 80)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let pipes_before = pipe_ends();
    let mut plane = Dataplane::start(DataplaneOptions { workers: 1, max_connections: 10_000 }).unwrap();
    let configuration = configuration(address, backend.local_addr().unwrap());
    let outcomes = runtime.block_on(plane.apply(&configuration));
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    let mut bytes = vec![7; 128 * 1024];
    let warm = connection(address, &backend, &mut bytes);
    let mut connections = Vec::with_capacity(CONNECTIONS);
    let before = ALLOCATED.load(Relaxed);
    for _ in 0..CONNECTIONS {
        connections.push(connection(address, &backend, &mut bytes));
    }
    let each = (ALLOCATED.load(Relaxed) - before) / CONNECTIONS;
    println!("{each} bytes of heap for an idle connection");
    assert!(each < BYTES_PER_CONNECTION, "{each} bytes for an idle connection");
    let pipes = pipe_ends() - pipes_before;
    assert!(
        (1..=SPARE_PIPE_ENDS).contains(&pipes),
        "{pipes} ends of pipes for {CONNECTIONS} idle connections"
    );
    assert_eq!(plane.counters()[&Uuid::from_u128(3)].active as usize, CONNECTIONS + 1);
    drop((warm, connections));
    let mut udp = configuration;
    udp.listeners[0].protocol = Protocol::Udp;
    udp.listeners[0].id = Uuid::from_u128(5);
    runtime.block_on(plane.apply(&udp));
    let each = session_memory(address, (own, 80).into());
    println!("{each} bytes of heap for an idle session of UDP");
    assert!(each < BYTES_PER_SESSION, "{each} bytes for an idle session of UDP");
    runtime.block_on(plane.shutdown(Duration::from_secs(20)));
}

/// Bytes of heap that each of many sessions holds after one exchange.
fn session_memory(address: SocketAddr, backend: SocketAddr) -> usize {
    let backend = UdpSocket::bind(backend).unwrap();
    let mut buffer = [0; 16];
    let mut session = || {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(address).unwrap();
        client.send(b"hello").unwrap();
        let (length, from) = backend.recv_from(&mut buffer).unwrap();
        backend.send_to(&buffer[..length], from).unwrap();
        client.recv(&mut buffer).unwrap();
        client
    };
    let _warm = session();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let before = ALLOCATED.load(Relaxed);
    for _ in 0..CONNECTIONS {
        clients.push(session());
    }
    (ALLOCATED.load(Relaxed) - before) / CONNECTIONS
}
