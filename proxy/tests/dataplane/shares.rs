//! Shares of networks in the node's connections, and connections that come back to where they were made.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use fiberlb_proxy::{
    dataplane::{
        Dataplane, DataplaneOptions, ListenerCounters, ListenerSpec, NodeAddresses, PoolSpec, WeightedPool,
    },
    sockets::OwnNamespace,
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use uuid::Uuid;

use crate::{
    namespace::{in_namespace, ip},
    peers::{Server, echo, says_and_hears},
    world::{NETWORK, World, backend, listener, own_address, patiently, pool},
};

/// The network of another tenant.
const OTHER_NETWORK: Uuid = Uuid::from_u128(103);

/// A world for so many connections, with a second network.
fn world(workers: usize, max_connections: usize) -> World {
    let mut world = World::empty(workers, (own_address(), 8080).into());
    world.plane = Dataplane::start(DataplaneOptions { workers, max_connections }).unwrap();
    world.configuration.networks.insert(OTHER_NETWORK, Arc::new(OwnNamespace));
    world
}

/// A listener of a network, with a pool that has one backend.
fn served(number: u128, network: Uuid, address: SocketAddr, to: SocketAddr) -> (ListenerSpec, PoolSpec) {
    let pool = PoolSpec { id: Uuid::from_u128(200 + number), ..pool(vec![backend(number, to)]) };
    let id = Uuid::from_u128(100 + number);
    (ListenerSpec { id, network, pools: vec![WeightedPool::alone(pool.id)], ..listener(address) }, pool)
}

fn serve(world: &mut World, served: [(ListenerSpec, PoolSpec); 2]) {
    (world.configuration.listeners, world.configuration.pools) = served.into_iter().unzip();
}

fn counters(world: &World, number: u128) -> ListenerCounters {
    world.plane.counters().remove(&Uuid::from_u128(100 + number)).unwrap_or_default()
}

/// Waits until a listener's counters are as they should be.
async fn counted(world: &World, number: u128, wanted: impl Fn(&ListenerCounters) -> bool) {
    let waited = async {
        while !wanted(&counters(world, number)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    patiently(waited).await;
}

/// A client, unless it is reset: at once, or with its first byte.
async fn client(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = patiently(TcpStream::connect(address)).await?;
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"?").await?;
    patiently(stream.read_u8()).await?;
    Ok(stream)
}

#[tokio::test]
async fn a_network_leaves_the_others_what_they_need() {
    let server = Server::echo().await;
    let mut world = world(2, 40);
    let (hog, other) = (world.address, SocketAddr::from((own_address(), 8080)));
    serve(
        &mut world,
        [served(0, NETWORK, hog, server.address), served(1, OTHER_NETWORK, other, server.address)],
    );
    world.apply_all().await;
    let mut held = Vec::new();
    for _ in 0..60 {
        held.extend(client(hog).await.ok());
    }
    // Its guarantee of a quarter, and half of what may be borrowed.
    assert_eq!(held.len(), 10 + 10);
    let count = counters(&world, 0);
    assert_eq!((count.active, count.refused_by_share, count.failed()), (20, 40, 40));
    let mut others = Vec::new();
    for _ in 0..15 {
        others.push(client(other).await.unwrap());
    }
    assert_eq!(counters(&world, 1).refused_by_share, 0);
    held.truncate(19);
    counted(&world, 0, |counters| counters.active == 19).await;
    assert!(client(hog).await.is_err(), "the other one has borrowed since");
    drop(others);
    counted(&world, 1, |counters| counters.active == 0).await;
    client(hog).await.unwrap();
}

#[tokio::test]
async fn a_network_alone_has_all_that_there_is() {
    let server = Server::echo().await;
    let mut world = world(1, 12);
    let (first, second) = (world.address, SocketAddr::from((own_address(), 8080)));
    serve(
        &mut world,
        [served(0, NETWORK, first, server.address), served(1, NETWORK, second, server.address)],
    );
    world.apply_all().await;
    let mut held = Vec::new();
    for address in [first, second].repeat(6) {
        held.push(client(address).await.unwrap());
    }
    assert_eq!(counters(&world, 0).refused_by_share + counters(&world, 1).refused_by_share, 0);
}

/// Adds addresses to the loopback interface: a connection to one of them comes from the same address.
fn addresses<const N: usize>(own: [&str; N]) -> [SocketAddr; N] {
    own.map(|address| {
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        SocketAddr::new(address.parse().unwrap(), 80)
    })
}

#[test]
fn a_connection_of_a_node_to_itself_is_reset() {
    in_namespace("a_connection_of_a_node_to_itself_is_reset", async || {
        let [own, other] = addresses(["192.0.2.10", "192.0.2.20"]);
        let server = Server::on("127.0.0.1:80".parse().unwrap(), echo).await;
        let mut world = world(1, 64);
        serve(&mut world, [served(0, NETWORK, own, own), served(1, OTHER_NETWORK, other, server.address)]);
        let nodes = NodeAddresses { own: [own.ip()].into(), all: [own.ip()].into() };
        world.configuration.nodes.insert(NETWORK, nodes);
        world.apply_all().await;
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // The reset may be there before the client knows that it is connected.
        let end = match patiently(socket.connect(own)).await {
            Ok(mut client) => patiently(client.read_u8()).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        counted(&world, 0, |counters| counters.active == 0).await;
        let count = counters(&world, 0);
        assert_eq!((count.accepted, count.refused_loops), (2, 1));
    });
}

#[test]
fn a_loop_of_load_balancers_costs_no_other_tenant_and_ends_with_its_client() {
    in_namespace("a_loop_of_load_balancers_costs_no_other_tenant_and_ends_with_its_client", async || {
        let [first, second, other] = addresses(["192.0.2.10", "192.0.2.11", "192.0.2.20"]);
        let server = Server::on("127.0.0.1:80".parse().unwrap(), echo).await;
        let mut world = world(2, 200);
        serve(&mut world, [served(0, NETWORK, first, second), served(1, NETWORK, second, first)]);
        let (listener, pool) = served(2, OTHER_NETWORK, other, server.address);
        world.configuration.listeners.push(listener);
        world.configuration.pools.push(pool);
        // Those of two VIPs, which a node takes for its source when a connection comes back to it.
        let nodes = NodeAddresses { own: [].into(), all: [first.ip(), second.ip()].into() };
        world.configuration.nodes.insert(NETWORK, nodes);
        world.apply_all().await;
        for _ in 0..5 {
            let mut looping = Vec::new();
            for _ in 0..10 {
                looping.extend(TcpStream::connect(first).await.ok());
            }
            for _ in 0..10 {
                says_and_hears(&mut client(other).await.unwrap()).await;
            }
        }
        let looped = || counters(&world, 0).refused_by_share + counters(&world, 1).refused_by_share;
        assert!(looped() > 0);
        assert_eq!(counters(&world, 2).failed(), 0);
        counted(&world, 0, |counters| counters.active == 0).await;
        counted(&world, 1, |counters| counters.active == 0).await;
    });
}
