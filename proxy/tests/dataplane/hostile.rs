//! The worst that backends and clients do, each beside another tenant, who must not notice it.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use fiberlb_proxy::{
    dataplane::{Dataplane, DataplaneOptions, ListenerCounters, ListenerSpec, PoolSpec, WeightedPool},
    shortage::NodeResource,
    sockets::OwnNamespace,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use crate::{
    peers::{Server, is_reset, says_and_hears},
    traces::Log,
    world::{NETWORK, World, backend, listener, own_address, patiently, pool},
};

/// Number of the other tenant's listener, and the network that it is on.
const OTHER: u128 = 0;
const OTHER_NETWORK: Uuid = Uuid::from_u128(103);
/// Clients of each bad backend.
const CLIENTS: usize = 200;
/// Longest that the other tenant waits for an answer: CPU is shared with the tests' own clients.
const IMPATIENCE: Duration = Duration::from_secs(2);

fn id(number: u128) -> Uuid {
    Uuid::from_u128(100 + number)
}

/// A data plane for so many connections, with a listener for each of these backends, and one of the other tenant, whose
/// backend echoes. Gives their addresses, the other tenant's last.
async fn world(
    max_connections: usize,
    backends: &[SocketAddr],
    change: impl Fn(&mut ListenerSpec),
) -> (World, Server, Vec<SocketAddr>) {
    let mut world = World::empty(2, (own_address(), 8080).into());
    world.plane = Dataplane::start(DataplaneOptions { workers: 2, max_connections }).unwrap();
    world.configuration.networks.insert(OTHER_NETWORK, Arc::new(OwnNamespace));
    let echo = Server::echo().await;
    let bad = backends.iter().zip(1..).map(|(address, number)| (number, NETWORK, *address));
    let mut addresses = Vec::new();
    for (number, network, to) in bad.chain([(OTHER, OTHER_NETWORK, echo.address)]) {
        let address: SocketAddr = (own_address(), 8080).into();
        let pool = PoolSpec { id: Uuid::from_u128(200 + number), ..pool(vec![backend(number, to)]) };
        let mut listener = ListenerSpec {
            id: id(number),
            network,
            pools: vec![WeightedPool::alone(pool.id)],
            ..listener(address)
        };
        if number != OTHER {
            change(&mut listener);
        }
        world.configuration.listeners.push(listener);
        world.configuration.pools.push(pool);
        addresses.push(address);
    }
    world.apply_all().await;
    (world, echo, addresses)
}

fn counters(world: &World, number: u128) -> ListenerCounters {
    world.plane.counters().remove(&id(number)).unwrap()
}

async fn counted(
    world: &World,
    number: u128,
    wanted: impl Fn(&ListenerCounters) -> bool,
) -> ListenerCounters {
    let waited = async {
        while !wanted(&counters(world, number)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(waited).await;
    counters(world, number)
}

/// The other tenant connects, and is answered, for as long as something else goes on; gives the longest that it waited.
async fn is_served_while<T>(address: SocketAddr, body: impl Future<Output = T>) -> (T, Duration) {
    let mut longest = Duration::ZERO;
    let serve = async {
        loop {
            let began = Instant::now();
            says_and_hears(&mut patiently(TcpStream::connect(address)).await.unwrap()).await;
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        done = body => (done, longest),
        () = serve => unreachable!(),
    }
}

/// A backend that takes connections and does nothing, one that says a byte long after its timeout, and one that resets in
/// mid-stream.
#[tokio::test]
#[ignore = "slow: make test-hostile"]
async fn hostile_backends_that_stall_trickle_and_reset_cost_their_own_clients_alone() {
    let silent = Server::start(|stream| async move {
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        drop(stream);
    })
    .await;
    let trickling = Server::start(|mut stream| async move {
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    })
    .await;
    let resetting = Server::start(|mut stream| async move {
        let _ = stream.read_u8().await;
        let _ = stream.write_all(&[7; 64 * 1024]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let backends = [silent.address, trickling.address, resetting.address];
    let (world, _echo, addresses) = world(4_000, &backends, |listener| {
        listener.limits.backend_data = Some(Duration::from_secs(1));
    })
    .await;
    let attack = async {
        let mut clients = Vec::new();
        for number in 0..3 * CLIENTS {
            let mut client = patiently(TcpStream::connect(addresses[number % 3])).await.unwrap();
            // Half of them have much to say, and nobody takes it.
            let words = vec![1; if number % 2 == 0 { 1 } else { 4 << 20 }];
            clients.push(tokio::spawn(async move {
                match patiently(client.write_all(&words)).await {
                    Ok(()) => is_reset(&mut client).await,
                    Err(error) => assert!(is_broken(&error), "{error}"),
                }
            }));
        }
        for client in clients {
            client.await.unwrap();
        }
    };
    let ((), longest) = is_served_while(addresses[3], attack).await;
    println!("the other tenant waited {longest:?} at most");
    assert!(longest < IMPATIENCE, "{longest:?}");
    let clients = CLIENTS as u64;
    for number in [1, 2] {
        let counters = counted(&world, number, |it| it.active == 0).await;
        assert_eq!((counters.timed_out, counters.failed()), (clients, 0), "{number}: {counters:?}");
    }
    let counters = counted(&world, 3, |it| it.active == 0).await;
    assert_eq!((counters.reset_by_backend, counters.failed()), (clients, 0), "{counters:?}");
    assert_eq!(counters.timed_out, 0, "{counters:?}");
    assert_eq!(self::counters(&world, OTHER).failed(), 0);
}

fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Limit of the process on its descriptors, until it is dropped.
struct Descriptors(Rlimit);

impl Descriptors {
    fn limit(most: u64) -> Self {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..before }).unwrap();
        Self(before)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

/// Each takes four descriptors of this process, which is the machine of everybody.
#[tokio::test]
#[ignore = "slow: make test-hostile"]
async fn hostile_clients_that_send_nothing_by_the_thousand_end_and_cost_nobody_else() {
    let possible = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let _descriptors = Descriptors::limit(possible.min(50_000));
    let count = usize::try_from(possible.min(50_000)).unwrap().saturating_sub(2_000) / 4;
    let count = count.min(10_000);
    println!("{count} clients, since there may be {possible} descriptors");
    let silent = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let timeout = Duration::from_secs(6);
    // Half of the node is shared out at once, and of the other half a network takes what it leaves free.
    let (world, _echo, addresses) = world(2 * count, &[silent.address], |listener| {
        listener.limits.client_data = Some(timeout);
    })
    .await;
    let attack = async {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(patiently(TcpStream::connect(addresses[0])).await.unwrap());
        }
        counted(&world, 1, |it| it.accepted == count as u64).await;
        let counters = counters(&world, 1);
        println!("{} of {count} are open at a time", counters.active);
        let ended = counted(&world, 1, |it| it.active == 0).await;
        for client in &mut clients {
            is_reset(client).await;
        }
        ended
    };
    let (counters, longest) = is_served_while(addresses[1], attack).await;
    println!("the other tenant waited {longest:?} at most");
    assert!(longest < IMPATIENCE, "{longest:?}");
    assert_eq!((counters.timed_out, counters.failed()), (count as u64, 0), "{counters:?}");
    assert_eq!(self::counters(&world, OTHER).failed(), 0);
}

/// Without a descriptor nobody new is accepted, there is one line, and all goes on by itself when there are some again.
#[tokio::test]
#[ignore = "slow: make test-hostile"]
async fn hostile_want_of_descriptors_is_told_once_and_passes_by_itself() {
    let log = Log::start("info");
    let held = std::net::TcpListener::bind((own_address(), 80)).unwrap();
    let (world, _echo, addresses) = world(1_000, &[held.local_addr().unwrap()], |_| {}).await;
    let mut other = patiently(TcpStream::connect(addresses[1])).await.unwrap();
    says_and_hears(&mut other).await;
    // Clients have their descriptors already; a connection then needs one of its own and one towards its backend, which
    // the kernel accepts.
    let sockets: Vec<TcpSocket> = (0..40).map(|_| TcpSocket::new_v4().unwrap()).collect();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let limit = Descriptors::limit(open as u64 + 20);
    let mut clients = Vec::new();
    for socket in sockets {
        // One that is reset at once may learn it as soon.
        clients.extend(patiently(socket.connect(addresses[0])).await.ok());
    }
    let short = || {
        let shortages = world.plane.shortages();
        shortages.totals().find(|(resource, _)| *resource == NodeResource::Descriptors).unwrap().1
    };
    patiently(async {
        while short() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    says_and_hears(&mut other).await;
    // Either a client could not be accepted, or its backend not be connected to.
    let text = log.text();
    let told = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    let lines = ["accepting is paused", "cannot make another connection"].map(told);
    assert!(lines.iter().all(|count| *count <= 2), "one of each kind and worker at most: {text}");
    assert!(lines.iter().sum::<usize>() > 0 && text.contains("Too many open files"), "{text}");

    // With an ordinary end their backends would be left half a connection each, and keep the descriptors.
    clients.drain(..).for_each(|client| client.set_zero_linger().unwrap());
    let recovered = async {
        loop {
            if let Ok(mut client) = client(addresses[1]).await {
                break says_and_hears(&mut client).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(recovered).await;
    drop(limit);
    assert_eq!(counters(&world, OTHER).no_backend, 0);
}

async fn client(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = patiently(TcpStream::connect(address)).await?;
    stream.write_all(b"?").await?;
    patiently(stream.read_u8()).await?;
    Ok(stream)
}
