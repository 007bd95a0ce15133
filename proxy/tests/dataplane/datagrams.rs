//! UDP: sessions, and their backends.

use std::{collections::HashSet, io, net::SocketAddr, time::Duration};

use fiberlb_proxy::dataplane::{Algorithm, DataplaneSpec, Protocol, SourceIpPersistence, WeightedPool};
use tokio::{net::UdpSocket, task::JoinHandle};
use uuid::Uuid;

use crate::{
    namespace::{in_namespace, ip},
    peers::{Server, says_and_hears},
    world::{PATIENCE, World, backend, listener, own_address, patiently, pool},
};

/// A backend that answers each datagram with its name and the datagram, until it is dropped.
pub(crate) struct UdpServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UdpServer {
    pub(crate) async fn named(name: u8) -> Self {
        Self::on((own_address(), 53).into(), name, 1).await
    }

    /// One that sends so many answers to each datagram.
    pub(crate) async fn on(address: SocketAddr, name: u8, answers: usize) -> Self {
        let socket = UdpSocket::bind(address).await.unwrap();
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            // An error is that of a client which has gone.
            loop {
                let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
                let answer = if length > 60_000 || length == 0 {
                    buffer[..length].to_vec()
                } else {
                    [&[name], &buffer[..length]].concat()
                };
                for _ in 0..answers {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Self { address, task }
    }

    /// Stops, and closes its socket.
    async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

pub(crate) fn udp(spec: &mut DataplaneSpec) {
    for listener in &mut spec.listeners {
        listener.protocol = Protocol::Udp;
    }
}

async fn world(backends: &[&UdpServer]) -> World {
    let backends = backends.iter().zip(1..).map(|(server, number)| backend(number, server.address));
    World::with(2, backends.collect(), udp).await
}

/// A client, which takes answers from the address alone that it has asked.
pub(crate) async fn client(of: SocketAddr) -> UdpSocket {
    let own: SocketAddr = if of.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(own).await.unwrap();
    socket.connect(of).await.unwrap();
    socket
}

async fn hears(client: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    let length = patiently(client.recv(&mut buffer)).await?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The name of the backend that answers a client.
pub(crate) async fn name(client: &UdpSocket) -> u8 {
    client.send(b"hello").await.unwrap();
    let heard = hears(client).await.unwrap();
    assert_eq!(&heard[1..], b"hello");
    heard[0]
}

/// The same, asking again while there is no answer.
pub(crate) async fn name_at_last(client: &UdpSocket) -> u8 {
    patiently(async {
        loop {
            client.send(b"hello").await.unwrap();
            let mut buffer = [0; 6];
            let heard = tokio::time::timeout(Duration::from_millis(50), client.recv(&mut buffer)).await;
            if let Ok(Ok(6)) = heard {
                return buffer[0];
            }
        }
    })
    .await
}

async fn clients(world: &World, number: usize) -> Vec<UdpSocket> {
    let mut clients = Vec::new();
    for _ in 0..number {
        clients.push(client(world.address).await);
    }
    clients
}

async fn names(clients: &[UdpSocket]) -> Vec<u8> {
    let mut names = Vec::new();
    for client in clients {
        names.push(name(client).await);
    }
    names
}

#[tokio::test]
async fn each_client_has_a_session_with_one_backend() {
    let servers = [UdpServer::named(1).await, UdpServer::named(2).await];
    let world = world(&[&servers[0], &servers[1]]).await;
    let clients = clients(&world, 12).await;
    let first = names(&clients).await;
    assert_eq!(first.iter().copied().collect::<HashSet<_>>(), HashSet::from([1, 2]));
    for _ in 0..3 {
        assert_eq!(names(&clients).await, first);
    }
    let counters = world.counters();
    assert_eq!((counters.accepted, counters.active, counters.failed()), (12, 12, 0), "{counters:?}");
    world.plane.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn the_empty_and_the_largest_datagram_pass_whole() {
    let server = UdpServer::named(1).await;
    let mut world = World::with(1, vec![backend(1, server.address)], udp).await;
    let client = client(world.address).await;
    for length in [0, 65_507, 0, 1] {
        let datagram: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
        client.send(&datagram).await.unwrap();
        let heard = hears(&client).await.unwrap();
        assert!(heard == datagram || heard[1..] == datagram, "{length}: {}", heard.len());
    }
    world.configuration.listeners.clear();
    world.apply_all().await;
    let counters = world.plane.counters();
    assert!(counters.is_empty(), "{counters:?}");
}

#[tokio::test]
async fn datagrams_and_bytes_are_counted_whole_when_a_session_has_ended() {
    let server = UdpServer::on((own_address(), 53).into(), 1, 100).await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        udp(spec);
        spec.listeners[0].limits.client_data = Some(Duration::from_millis(100));
    })
    .await;
    let client = client(world.address).await;
    client.send(b"hello").await.unwrap();
    for _ in 0..100 {
        hears(&client).await.unwrap();
    }
    let counters = world.quiet().await;
    assert_eq!((counters.datagrams_in, counters.datagrams_out, counters.datagrams_dropped), (1, 100, 0));
    assert_eq!((counters.bytes_in, counters.bytes_out), (5, 600));
    assert_eq!(
        (counters.accepted, counters.timed_out, counters.reset_by_client + counters.reset_by_backend),
        (1, 0, 0),
        "its ordinary end"
    );
    assert_eq!(name(&client).await, 1, "another session");
    assert_eq!(world.counters().accepted, 2);
}

#[tokio::test]
async fn a_session_that_is_used_outlives_its_timeout() {
    let server = UdpServer::named(1).await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        udp(spec);
        spec.listeners[0].limits.client_data = Some(Duration::from_secs(2));
    })
    .await;
    let [used, idle] = [client(world.address).await, client(world.address).await];
    assert_eq!((name(&used).await, name(&idle).await), (1, 1));
    patiently(async {
        while world.counters().closed == 0 {
            assert_eq!(name(&used).await, 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let counters = world.counters();
    assert_eq!((counters.accepted, counters.active), (2, 1));
}

#[tokio::test]
async fn a_backend_that_refuses_is_left_and_each_client_finds_another() {
    let (dead, alive) = (own_address(), UdpServer::named(2).await);
    let backends = vec![backend(1, (dead, 53).into()), backend(2, alive.address)];
    let world = World::with(1, backends, udp).await;
    for client in clients(&world, 6).await {
        assert_eq!(name_at_last(&client).await, 2);
        assert_eq!(name(&client).await, 2);
    }
    let counters = world.counters();
    assert_eq!(
        (counters.accepted, counters.connect_failures),
        (6, 3),
        "each second one met the dead one once"
    );
}

#[tokio::test]
async fn two_dead_backends_hold_up_no_client_by_any_algorithm() {
    let algorithms =
        [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::SourceIp, Algorithm::SourceIpPort];
    for (algorithm, persists) in algorithms.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let alive = UdpServer::named(3).await;
        let backends = vec![
            backend(1, (own_address(), 53).into()),
            backend(2, (own_address(), 53).into()),
            backend(3, alive.address),
        ];
        let world = World::with(1, backends, |spec| {
            udp(spec);
            spec.pools[0].algorithm = algorithm;
            spec.pools[0].persistence = persists.then_some(SourceIpPersistence { timeout: PATIENCE });
        })
        .await;
        for client in clients(&world, 6).await {
            assert_eq!(name_at_last(&client).await, 3, "{algorithm:?}");
            assert_eq!(name(&client).await, 3, "{algorithm:?}");
        }
        assert_eq!(world.counters().accepted, 6, "{algorithm:?}: the sessions are the same");
    }
}

#[tokio::test]
async fn the_only_backend_is_tried_again_and_serves_when_it_is_back() {
    let server = UdpServer::named(1).await;
    let address = server.address;
    let world = world(&[&server]).await;
    let client = client(world.address).await;
    assert_eq!(name(&client).await, 1);
    server.stop().await;
    for failures in 1..3 {
        client.send(b"hello").await.unwrap();
        world.counted(|counters| counters.connect_failures >= failures).await;
    }
    let _server = UdpServer::on(address, 2, 1).await;
    assert_eq!(name_at_last(&client).await, 2);
    assert_eq!(world.counters().accepted, 1, "the session is the same");
}

#[tokio::test]
async fn sessions_leave_a_backend_that_fails_is_down_switched_off_or_removed() {
    type Change = fn(&mut World);
    let changes: [Change; 4] = [
        |world| world.plane.set_health(backend(1, world.address).id, false),
        |world| world.configuration.pools[0].backends[0].enabled = false,
        |world| {
            world.configuration.pools[0].backends.remove(0);
        },
        |world| world.configuration.pools[0].backends[0].address.set_port(54),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let servers = [UdpServer::named(1).await, UdpServer::named(2).await];
        let mut world = world(&[&servers[0], &servers[1]]).await;
        let clients = clients(&world, 8).await;
        let before = names(&clients).await;
        assert!(before.contains(&1));
        change(&mut world);
        world.apply_all().await;
        if number < 3 {
            assert_eq!(names(&clients).await, [2; 8], "change {number}");
        } else {
            for client in &clients {
                assert_eq!(name_at_last(client).await, 2);
            }
        }
        assert_eq!(world.counters().accepted, 8, "change {number}: the sessions are the same");
    }
}

/// Sends a datagram of a client, and receives it as its backend does, with the address to answer to.
async fn asks(client: &UdpSocket, backend: &UdpSocket) -> SocketAddr {
    client.send(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    patiently(backend.recv_from(&mut buffer)).await.unwrap().1
}

#[tokio::test]
async fn answers_under_way_from_a_removed_backend_come_for_a_while_and_nothing_else_does() {
    let old = UdpSocket::bind((own_address(), 53)).await.unwrap();
    let new = UdpServer::named(2).await;
    let mut world = World::with(1, vec![backend(1, old.local_addr().unwrap())], udp).await;
    let [waiting, answered] = [client(world.address).await, client(world.address).await];
    let [to_waiting, to_answered] = [asks(&waiting, &old).await, asks(&answered, &old).await];
    old.send_to(b"now", to_answered).await.unwrap();
    assert_eq!(hears(&answered).await.unwrap(), b"now");
    world.configuration.pools[0].backends = vec![backend(2, new.address)];
    world.apply_all().await;
    let sessions = async |number: u32| {
        let left =
            || world.plane.rotation().counters().get(&Uuid::from_u128(0x1001)).map_or(0, |it| it.active);
        patiently(async {
            while left() != number {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    sessions(1).await;
    old.send_to(b"unasked", to_answered).await.unwrap();
    assert_eq!(name(&answered).await, 2);
    old.send_to(b"late", to_waiting).await.unwrap();
    assert_eq!(hears(&waiting).await.unwrap(), b"late");
    assert_eq!(name(&waiting).await, 2, "what it asks from then on goes to another one");
    old.send_to(b"later", to_waiting).await.unwrap();
    assert_eq!(hears(&waiting).await.unwrap(), b"later");
    sessions(0).await;
    old.send_to(b"too late", to_waiting).await.unwrap();
    assert_eq!(name(&waiting).await, 2);
    assert_eq!(world.counters().accepted, 2, "the sessions are the same");
}

#[tokio::test]
async fn sessions_stay_on_a_backend_that_drains() {
    let servers = [UdpServer::named(1).await, UdpServer::named(2).await];
    let mut world = world(&[&servers[0], &servers[1]]).await;
    let old = clients(&world, 8).await;
    let before = names(&old).await;
    world.configuration.pools[0].backends[0].weight = 0;
    world.apply_all().await;
    assert_eq!(names(&old).await, before);
    assert_eq!(names(&clients(&world, 4).await).await, [2; 4]);
}

#[tokio::test]
async fn without_a_backend_datagrams_are_dropped_and_no_session_is_kept() {
    let server = UdpServer::named(1).await;
    let world = world(&[&server]).await;
    let clients = clients(&world, 2).await;
    assert_eq!(name(&clients[0]).await, 1);
    world.plane.set_health(backend(1, server.address).id, false);
    for client in &clients {
        client.send(b"hello").await.unwrap();
    }
    let counters = world.counted(|counters| counters.no_backend == 2 && counters.active == 0).await;
    assert_eq!((counters.accepted, counters.datagrams_dropped), (2, 1), "{counters:?}");
    world.plane.set_health(backend(1, server.address).id, true);
    assert_eq!(names(&clients).await, [1, 1]);
}

#[tokio::test]
async fn changes_of_the_configuration_keep_sessions() {
    let servers = [UdpServer::named(1).await, UdpServer::named(2).await, UdpServer::named(3).await];
    let mut world = world(&[&servers[0], &servers[1]]).await;
    let clients = clients(&world, 20).await;
    let before = names(&clients).await;
    for round in 0..10 {
        world.configuration.listeners[0].limits.connections = Some(100 + round);
        world.configuration.listeners[0].limits.client_data =
            Some(Duration::from_secs(50 + u64::from(round)));
        world.configuration.pools[0].backends.truncate(2);
        if round % 2 == 0 {
            world.configuration.pools[0].backends.push(backend(3, servers[2].address));
        }
        world.apply_all().await;
        assert_eq!(names(&clients).await, before);
    }
    assert_eq!(world.counters().accepted, 20);
}

#[tokio::test]
async fn a_listener_that_goes_ends_its_sessions_and_refuses() {
    let server = UdpServer::named(1).await;
    let mut world = world(&[&server]).await;
    let client = client(world.address).await;
    assert_eq!(name(&client).await, 1);
    let listeners = std::mem::take(&mut world.configuration.listeners);
    world.apply_all().await;
    assert!(world.plane.counters().is_empty(), "nothing to drain");
    client.send(b"hello").await.unwrap();
    assert_eq!(hears(&client).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    world.configuration.listeners = listeners;
    world.apply_all().await;
    assert_eq!(name(&client).await, 1);
}

#[tokio::test]
async fn an_address_moves_to_another_listener_and_clients_with_it() {
    let servers = [UdpServer::named(1).await, UdpServer::named(2).await];
    let mut world = world(&[&servers[0]]).await;
    let client = client(world.address).await;
    assert_eq!(name(&client).await, 1);
    let other = uuid::Uuid::from_u128(77);
    world.configuration.listeners[0].id = other;
    world.configuration.pools[0].backends = vec![backend(2, servers[1].address)];
    world.apply_all().await;
    assert_eq!(name(&client).await, 2);
    assert_eq!(world.plane.counters()[&other].accepted, 1);
}

#[tokio::test]
async fn a_network_that_was_made_anew_gets_new_sockets_and_sessions() {
    let server = UdpServer::named(1).await;
    let mut world = world(&[&server]).await;
    let clients = clients(&world, 6).await;
    assert_eq!(names(&clients).await, [1; 6]);
    let anew = std::sync::Arc::new(fiberlb_proxy::sockets::OwnNamespace);
    world.configuration.networks.insert(crate::world::NETWORK, anew);
    world.apply_all().await;
    world.quiet().await;
    assert_eq!(names(&clients).await, [1; 6]);
    assert_eq!(world.counters().active, 6);
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_number() {
    let (datagrams, streams) = (UdpServer::named(1).await, Server::echo().await);
    let mut world = world(&[&datagrams]).await;
    let mut other = listener(world.address);
    (other.id, other.pools) =
        (uuid::Uuid::from_u128(77), vec![WeightedPool::alone(uuid::Uuid::from_u128(78))]);
    let mut other_pool = pool(vec![backend(7, streams.address)]);
    other_pool.id = uuid::Uuid::from_u128(78);
    world.configuration.listeners.push(other);
    world.configuration.pools.push(other_pool);
    world.apply_all().await;
    says_and_hears(&mut world.connect().await).await;
    assert_eq!(name(&client(world.address).await).await, 1);
}

#[test]
fn ipv6_clients_are_served_by_ipv6_and_ipv4_backends_and_an_address_may_come_later() {
    let name_of_test = "ipv6_clients_are_served_by_ipv6_and_ipv4_backends_and_an_address_may_come_later";
    in_namespace(name_of_test, async || {
        let families = [("[::1]:53", "[::1]:53"), ("127.0.0.1:54", "127.0.0.1:54")];
        let mapped = ("127.0.0.1:55", "[::ffff:127.0.0.1]:55");
        for (number, (server, address)) in (10..).zip(families.into_iter().chain([mapped])) {
            let _server = UdpServer::on(server.parse().unwrap(), 1, 1).await;
            let vip = format!("2001:db8::{number}");
            let mut world = World::empty(2, format!("[{vip}]:53").parse().unwrap());
            world.configuration.listeners = vec![listener(world.address)];
            world.configuration.pools = vec![pool(vec![backend(1, address.parse().unwrap())])];
            udp(&mut world.configuration);
            world.apply_all().await;
            ip(&["address", "add", &format!("{vip}/128"), "dev", "lo", "nodad"]);
            // The kernel makes the route a little later, and a socket keeps the one that it has found.
            let client = patiently(async {
                loop {
                    let client = UdpSocket::bind("[::]:0").await.unwrap();
                    if client.connect(world.address).await.is_err() || client.send(b"hello").await.is_err() {
                        continue;
                    }
                    let heard = tokio::time::timeout(Duration::from_millis(200), hears(&client)).await;
                    if heard.is_ok_and(|heard| heard.is_ok()) {
                        return client;
                    }
                }
            })
            .await;
            let datagram = vec![9; 65_000];
            client.send(&datagram).await.unwrap();
            assert_eq!(hears(&client).await.unwrap(), datagram);
        }
    });
}

#[test]
fn backends_that_a_firewall_rejects_are_left_whatever_it_answers() {
    in_namespace("backends_that_a_firewall_rejects_are_left_whatever_it_answers", async || {
        for vip in ["192.0.2.10/32", "2001:db8::10/128"] {
            ip(&["address", "add", vip, "dev", "lo", "nodad"]);
        }
        let families = [
            ("192.0.2.10", "127.0.1", "icmp", ["host-prohibited", "net-prohibited", "admin-prohibited"]),
            ("2001:db8::10", "2001:db8:", "icmpv6", ["no-route", "admin-prohibited", "addr-unreachable"]),
        ];
        for (vip, net, icmp, rejects) in families {
            let is_v4 = icmp == "icmp";
            let at = |last: usize| if is_v4 { format!("{net}.{last}") } else { format!("{net}:{last}") };
            let mut backends = Vec::new();
            for (number, reject) in (1..).zip(rejects) {
                let address = at(number);
                ip(&["address", "replace", &address, "dev", "lo", "nodad"]);
                backends.push(backend(number as u128, SocketAddr::new(address.parse().unwrap(), 53)));
                let (family, kind) = if is_v4 { ("ip", "icmp") } else { ("ip6", "icmpv6") };
                let rule = format!("{family} daddr {address} udp dport 53 reject with {kind} type {reject}");
                if !nft(&format!(
                    "add table inet t; add chain inet t i {{ type filter hook input priority 0; }}; add rule inet t i {rule}"
                )) {
                    println!("SKIPPED: no firewall can be made");
                    return;
                }
            }
            ip(&["address", "replace", &at(9), "dev", "lo", "nodad"]);
            let alive = UdpServer::on(SocketAddr::new(at(9).parse().unwrap(), 53), 9, 1).await;
            backends.push(backend(9, alive.address));
            let mut world = World::empty(1, SocketAddr::new(vip.parse().unwrap(), 53));
            world.configuration.listeners = vec![listener(world.address)];
            world.configuration.pools = vec![pool(backends)];
            udp(&mut world.configuration);
            world.apply_all().await;
            for client in clients(&world, 4).await {
                assert_eq!(name_at_last(&client).await, 9, "{icmp}");
            }
            let counters = world.counters();
            assert!(counters.connect_failures >= 3, "{counters:?}");
        }
    });
}

/// Runs commands of nft; false if it cannot.
fn nft(commands: &str) -> bool {
    std::process::Command::new("nft").arg(commands).status().is_ok_and(|status| status.success())
}

#[test]
fn a_backend_whose_host_is_gone_is_left() {
    in_namespace("a_backend_whose_host_is_gone_is_left", async || {
        // No route at all: that fails at once. A prohibited one: the kernel answers each datagram by ICMP.
        ip(&["route", "add", "unreachable", "192.0.2.1/32"]);
        let alive = UdpServer::on("127.0.0.1:53".parse().unwrap(), 2, 1).await;
        let mut world = World::empty(1, "127.0.0.2:5353".parse().unwrap());
        world.configuration.listeners = vec![listener(world.address)];
        let unreachable = ["192.0.2.1:53", "198.51.100.1:53"].map(|address| address.parse().unwrap());
        world.configuration.pools = vec![pool(vec![
            backend(1, unreachable[0]),
            backend(2, unreachable[1]),
            backend(3, alive.address),
        ])];
        udp(&mut world.configuration);
        world.apply_all().await;
        for client in clients(&world, 3).await {
            assert_eq!(name_at_last(&client).await, 2);
        }
        assert!(world.counters().connect_failures >= 2);
    });
}
