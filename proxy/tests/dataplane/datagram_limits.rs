//! UDP: limits of sessions.

use std::{io, os::fd::AsRawFd, sync::Arc, time::Duration};

use fiberlb_proxy::{
    dataplane::{Dataplane, DataplaneOptions, ListenerCounters, NodeAddresses, PoolSpec, WeightedPool},
    sockets::OwnNamespace,
};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt::Ipv4RecvTtl,
};
use tokio::net::UdpSocket;
use uuid::Uuid;

use crate::{
    datagrams::{UdpServer, client, name, udp},
    namespace::{in_namespace, ip},
    world::{NETWORK, PATIENCE, World, backend, listener, own_address, patiently, pool},
};

async fn send(world: &World, clients: usize) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..clients {
        let socket = client(world.address).await;
        socket.send(b"hello").await.unwrap();
        sockets.push(socket);
    }
    sockets
}

#[tokio::test]
async fn a_listener_has_no_more_sessions_than_its_limit_over_all_workers() {
    let server = UdpServer::named(1).await;
    let mut world = World::with(2, vec![backend(1, server.address)], |spec| {
        udp(spec);
        spec.listeners[0].limits.connections = Some(2);
    })
    .await;
    let held = [client(world.address).await, client(world.address).await];
    for client in &held {
        assert_eq!(name(client).await, 1);
    }
    let _more = send(&world, 5).await;
    let counters = world.counted(|counters| counters.refused_by_limit == 5 && counters.active == 2).await;
    assert_eq!((counters.accepted, counters.failed()), (7, 5));
    for client in &held {
        assert_eq!(name(client).await, 1, "those that have a session keep it");
    }
    world.configuration.listeners[0].limits.client_data = Some(Duration::from_millis(100));
    world.apply_all().await;
    world.quiet().await;
    assert_eq!(name(&client(world.address).await).await, 1);
}

#[tokio::test]
async fn clients_that_are_not_allowed_are_dropped_and_those_with_a_session_too() {
    let server = UdpServer::named(1).await;
    let mut world = World::with(2, vec![backend(1, server.address)], udp).await;
    let early = client(world.address).await;
    assert_eq!(name(&early).await, 1);
    let allow = |world: &mut World, cidr: &str| {
        world.configuration.listeners[0].allowed_cidrs = vec![cidr.parse().unwrap()];
    };
    allow(&mut world, "192.0.2.0/24");
    world.apply_all().await;
    // A session has no end of its own: the list holds for it, too.
    world.quiet().await;
    early.send(b"hello").await.unwrap();
    let _others = send(&world, 2).await;
    world.counted(|counters| counters.refused_by_cidr == 3).await;
    allow(&mut world, "127.0.0.0/8");
    world.apply_all().await;
    assert_eq!(name(&early).await, 1);
}

#[tokio::test]
async fn more_sessions_than_one_turn_drops_end_all_and_others_begin() {
    let server = UdpServer::named(1).await;
    let mut world = World::with(1, vec![backend(1, server.address)], udp).await;
    let sockets = own_address();
    let mut clients = Vec::new();
    for port in 10_000..10_600 {
        let client = UdpSocket::bind((sockets, port)).await.unwrap();
        client.connect(world.address).await.unwrap();
        assert_eq!(name(&client).await, 1);
        clients.push(client);
    }
    assert_eq!(world.counters().active, 600);
    let changes: [fn(&mut World); 4] = [
        |world| world.configuration.listeners[0].allowed_cidrs = vec!["192.0.2.0/24".parse().unwrap()],
        |world| world.configuration.listeners[0].allowed_cidrs.clear(),
        |world| world.configuration.pools[0].backends[0].enabled = false,
        |world| world.configuration.pools[0].backends[0].enabled = true,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change(&mut world);
        world.apply_all().await;
        match number {
            0 => {
                world.quiet().await;
            }
            2 => assert_eq!(world.counters().active, 600, "they are without a backend"),
            _ => {
                for client in &clients {
                    assert_eq!(name(client).await, 1, "change {number}");
                }
            }
        }
    }
    world.configuration.listeners[0].limits.client_data = Some(Duration::from_millis(50));
    world.apply_all().await;
    world.quiet().await;
    assert_eq!(name(&clients[0]).await, 1);
}

#[tokio::test]
async fn a_flood_of_clients_takes_no_more_than_the_share_of_its_network() {
    let server = UdpServer::named(1).await;
    let mut world = World::empty(1, (own_address(), 53).into());
    world.plane = Dataplane::start(DataplaneOptions { workers: 1, max_connections: 40 }).unwrap();
    let (other_network, other_pool) = (Uuid::from_u128(103), Uuid::from_u128(203));
    world.configuration.networks.insert(other_network, Arc::new(OwnNamespace));
    let mut other = listener((own_address(), 53).into());
    (other.id, other.network) = (Uuid::from_u128(77), other_network);
    other.pools = vec![WeightedPool::alone(other_pool)];
    let other_address = other.addresses[0];
    world.configuration.listeners = vec![listener(world.address), other];
    let pools = [pool(vec![backend(1, server.address)]), pool(vec![backend(2, server.address)])];
    let [first, second] = pools;
    world.configuration.pools = vec![first, PoolSpec { id: other_pool, ..second }];
    udp(&mut world.configuration);
    world.apply_all().await;
    let _flood = send(&world, 60).await;
    let counters = world.counted(|counters| counters.accepted == 60 && counters.active == 20).await;
    // Its guarantee of a quarter, and half of what may be borrowed.
    assert_eq!((counters.refused_by_share, counters.failed()), (40, 40));
    for _ in 0..15 {
        assert_eq!(name(&client(other_address).await).await, 1, "the other network has what it needs");
    }
}

#[tokio::test]
async fn a_network_alone_has_all_that_there_is_and_no_more() {
    let server = UdpServer::named(1).await;
    let mut world = World::empty(1, (own_address(), 53).into());
    world.plane = Dataplane::start(DataplaneOptions { workers: 1, max_connections: 3 }).unwrap();
    world.configuration.listeners = vec![listener(world.address)];
    world.configuration.pools = vec![pool(vec![backend(1, server.address)])];
    udp(&mut world.configuration);
    world.apply_all().await;
    let _held = send(&world, 6).await;
    world.counted(|counters| counters.active == 3 && counters.refused_by_share == 3).await;
}

#[test]
fn a_datagram_of_a_node_to_itself_is_dropped() {
    in_namespace("a_datagram_of_a_node_to_itself_is_dropped", async || {
        ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]);
        let own: std::net::SocketAddr = "192.0.2.10:53".parse().unwrap();
        let mut world = World::empty(1, own);
        world.configuration.listeners = vec![listener(own)];
        // It leads back to the listener.
        world.configuration.pools = vec![pool(vec![backend(1, own)])];
        let nodes = NodeAddresses { own: [own.ip()].into(), all: [own.ip()].into() };
        world.configuration.nodes.insert(NETWORK, nodes);
        udp(&mut world.configuration);
        world.apply_all().await;
        let _client = send(&world, 1).await;
        let counters = world.counted(|counters| counters.refused_loops == 1).await;
        assert_eq!(counters.active, 1, "the client's own");
    });
}

/// Hops that the next datagram of a socket had left.
fn hops_of_next(server: &std::net::UdpSocket) -> i32 {
    let mut bytes = [0; 16];
    let (mut parts, mut control) = ([io::IoSliceMut::new(&mut bytes)], nix::cmsg_space!(i32));
    let message =
        recvmsg::<SockaddrIn>(server.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let hops = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4Ttl(hops) => Some(hops),
        _ => None,
    });
    hops.unwrap()
}

#[tokio::test]
async fn datagrams_have_one_hop_less_behind_a_node_and_what_has_none_is_dropped() {
    let server = std::net::UdpSocket::bind((own_address(), 53)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    setsockopt(&server, Ipv4RecvTtl, &true).unwrap();
    let backends = vec![backend(1, server.local_addr().unwrap())];
    let node = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let world = World::with(1, backends, |spec| {
        udp(spec);
        let all = [node.local_addr().unwrap().ip()].into();
        spec.nodes.insert(NETWORK, NodeAddresses { own: [].into(), all });
    })
    .await;
    node.connect(world.address).await.unwrap();
    for (hops, seen) in [(200, 63), (64, 63), (40, 39), (64, 39), (2, 1)] {
        node.set_ttl(hops).unwrap();
        node.send(b"hello").await.unwrap();
        let server = server.try_clone().unwrap();
        let heard = tokio::task::spawn_blocking(move || hops_of_next(&server)).await.unwrap();
        assert_eq!(heard, seen, "{hops}");
    }
    node.set_ttl(1).unwrap();
    node.send(b"hello").await.unwrap();
    let counters = world.counted(|counters| counters.refused_loops == 1).await;
    assert_eq!((counters.accepted, counters.active), (1, 1), "the session stays");
}

#[test]
fn a_circle_of_load_balancers_ends_after_64_hops() {
    in_namespace("a_circle_of_load_balancers_ends_after_64_hops", async || {
        let [first, second] = ["192.0.2.10", "192.0.2.11"].map(|address| {
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
            std::net::SocketAddr::new(address.parse().unwrap(), 53)
        });
        let mut world = World::empty(1, first);
        world.plane = Dataplane::start(DataplaneOptions { workers: 1, max_connections: 10_000 }).unwrap();
        let (mut other, other_pool) = (listener(second), Uuid::from_u128(203));
        (other.id, other.pools) = (Uuid::from_u128(77), vec![WeightedPool::alone(other_pool)]);
        world.configuration.listeners = vec![listener(first), other];
        let back = PoolSpec { id: other_pool, ..pool(vec![backend(2, first)]) };
        world.configuration.pools = vec![pool(vec![backend(1, second)]), back];
        let nodes = NodeAddresses { own: [].into(), all: [first.ip(), second.ip()].into() };
        world.configuration.nodes.insert(NETWORK, nodes);
        udp(&mut world.configuration);
        world.apply_all().await;
        let clients = send(&world, 3).await;
        let all =
            |count: fn(&ListenerCounters) -> u64| world.plane.counters().values().map(count).sum::<u64>();
        for passes in 1..3 {
            patiently(async {
                // The session of the client, and 62 behind it.
                while all(|it| it.refused_loops) < passes * clients.len() as u64
                    || all(|it| it.active.into()) != 63 * clients.len() as u64
                {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
            .await;
            assert_eq!(all(|it| it.refused_by_share), 0, "clients have the rest of the share");
            for client in &clients {
                client.send(b"hello").await.unwrap();
            }
        }
        world.plane.shutdown(Duration::ZERO).await;
    });
}
