//! Local ports of the node, in a namespace with few of them.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::WeightedPool,
    shortage::NodeResource,
    sockets::{OwnNamespace, SocketFactory},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncReadExt,
    io::AsyncWriteExt,
    net::{TcpSocket, UdpSocket},
};
use uuid::Uuid;

use crate::{
    datagrams::{UdpServer, name_at_last, udp},
    namespace::{in_namespace, ip},
    peers::{Server, echo, says_and_hears},
    world::{LISTENER, NETWORK, World, backend, listener, patiently, pool},
};

const VIP: &str = "192.0.2.10:80";

fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// A world in a namespace of its own, whose backends are at these addresses.
async fn world(backends: &[SocketAddr]) -> World {
    ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]);
    let mut world = World::empty(1, VIP.parse().unwrap());
    world.configuration.listeners = vec![listener(world.address)];
    world.configuration.pools =
        vec![pool(backends.iter().zip(1..).map(|(address, number)| backend(number, *address)).collect())];
    world.apply_all().await;
    world
}

/// A client that has a port which the node would not take.
async fn client(world: &World, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], port).into()).unwrap();
    let mut stream = patiently(socket.connect(world.address)).await?;
    stream.write_all(b"?").await?;
    patiently(stream.read_u8()).await?;
    Ok(stream)
}

fn short_of_ports(world: &World) -> u64 {
    let shortages = world.plane.shortages();
    shortages.totals().find(|(resource, _)| *resource == NodeResource::Ports).unwrap().1
}

/// Sockets towards this port that the kernel keeps in TIME_WAIT.
fn time_waits(port: u16) -> usize {
    let filter = format!("( dport = :{port} )");
    let output = Command::new("ss").args(["-Htn", "state", "time-wait", &filter]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn the_want_of_ports_is_the_nodes_and_other_backends_serve() {
    in_namespace("the_want_of_ports_is_the_nodes_and_other_backends_serve", async || {
        sysctl("net.ipv4.ip_local_port_range", "40000 40019");
        let (one, two) = ("127.0.0.2:8080".parse().unwrap(), "127.0.0.3:8080".parse().unwrap());
        let _servers = [Server::on(one, echo).await, Server::on(two, echo).await];
        let mut world = world(&[one]).await;
        let mut ports = 50_000..;
        let mut held = Vec::new();
        for port in ports.by_ref().take(20) {
            held.push(client(&world, port).await.unwrap());
        }
        for port in ports.by_ref().take(3) {
            client(&world, port).await.unwrap_err();
        }
        let counters = world.counters();
        assert_eq!((short_of_ports(&world), counters.no_backend, counters.connect_failures), (3, 3, 0));

        world.configuration.pools[0].backends.push(backend(2, two));
        world.apply_all().await;
        for port in ports.by_ref().take(10) {
            held.push(client(&world, port).await.unwrap());
        }
        let counters = world.counters();
        assert!(short_of_ports(&world) > 3, "the first one is still tried");
        assert_eq!((counters.no_backend, counters.connect_failures), (3, 0));
        for client in &mut held {
            says_and_hears(client).await;
            client.set_zero_linger().unwrap();
        }
        drop(held);
        world.counted(|counters| counters.active == 0).await;
        let short_before = short_of_ports(&world);
        for port in ports.take(10) {
            says_and_hears(&mut client(&world, port).await.unwrap()).await;
        }
        assert_eq!(short_of_ports(&world), short_before, "it has passed by itself");
    });
}

#[test]
fn clients_that_close_first_leave_no_pile_of_ports_behind() {
    in_namespace("clients_that_close_first_leave_no_pile_of_ports_behind", async || {
        // The proportion that the agent sets, on a smaller scale.
        sysctl("net.ipv4.ip_local_port_range", "40000 40099");
        sysctl("net.ipv4.tcp_max_tw_buckets", "10");
        let one = "127.0.0.2:8080".parse().unwrap();
        let _server = Server::on(one, echo).await;
        let world = world(&[one]).await;
        for number in 0..400 {
            let mut client = client(&world, 50_000 + number).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(patiently(client.read(&mut [0])).await.unwrap(), 0);
        }
        let counters = world.quiet().await;
        assert_eq!((counters.accepted, counters.failed(), short_of_ports(&world)), (400, 0, 0));
        assert!(time_waits(8080) <= 10, "{}", time_waits(8080));
        world.plane.shutdown(Duration::ZERO).await;
    });
}

/// A client of UDP that has a port which the node would not take.
async fn datagram_client(of: SocketAddr, port: u16) -> UdpSocket {
    let own = if of.is_ipv4() { "127.0.0.1" } else { "::1" };
    let socket = UdpSocket::bind((own, port)).await.unwrap();
    socket.connect(of).await.unwrap();
    socket
}

#[test]
fn a_flood_of_datagrams_that_takes_all_ports_leaves_the_worker_to_others_and_ends() {
    let name_of_test = "a_flood_of_datagrams_that_takes_all_ports_leaves_the_worker_to_others_and_ends";
    in_namespace(name_of_test, async || {
        sysctl("net.ipv4.ip_local_port_range", "40000 40019");
        for vip in ["192.0.2.10/32", "2001:db8::10/128"] {
            ip(&["address", "add", vip, "dev", "lo", "nodad"]);
        }
        let [v4, v6]: [SocketAddr; 2] = ["192.0.2.10:80", "[2001:db8::10]:80"].map(|it| it.parse().unwrap());
        let streams = Server::on("127.0.0.2:8080".parse().unwrap(), echo).await;
        let [first, second] = ["127.0.0.3:53", "[::1]:53"].map(|it| it.parse().unwrap());
        let _servers = [UdpServer::on(first, 1, 1).await, UdpServer::on(second, 2, 1).await];
        let mut world = World::empty(1, v4);
        world.configuration.listeners = vec![listener(v4), listener(v6)];
        world.configuration.pools = vec![pool(vec![backend(1, first)]), pool(vec![backend(2, second)])];
        udp(&mut world.configuration);
        world.configuration.listeners.push(listener(v4));
        world.configuration.pools.push(pool(vec![backend(3, streams.address)]));
        for (number, listener) in (0..).zip(&mut world.configuration.listeners) {
            listener.id = Uuid::from_u128(LISTENER.as_u128() + 100 * number);
            listener.pools = vec![WeightedPool::alone(Uuid::from_u128(200 + number))];
            listener.limits.client_data = Some(Duration::from_secs(2));
        }
        for (number, pool) in (0..).zip(&mut world.configuration.pools) {
            pool.id = Uuid::from_u128(200 + number);
        }
        world.apply_all().await;
        let mut flood = Vec::new();
        for port in 50_000..50_200 {
            let client = datagram_client(v4, port).await;
            client.send(b"hello").await.unwrap();
            flood.push(client);
        }
        let counters = world.counted(|it| it.accepted == 200 && it.no_backend >= 180).await;
        assert_eq!(counters.connect_failures, 0, "no fault of a backend");
        assert!((1..=counters.no_backend).contains(&short_of_ports(&world)));
        says_and_hears(&mut client(&world, 50_000).await.unwrap()).await;
        assert_eq!(name_at_last(&datagram_client(v6, 50_000).await).await, 2, "IPv6 has ports of its own");
        world.quiet().await;
        assert_eq!(name_at_last(&datagram_client(v4, 51_000).await).await, 1);
    });
}

/// Makes sockets with two source addresses in turn.
#[derive(Default)]
struct TwoSources(AtomicUsize);

impl SocketFactory for TwoSources {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> std::io::Result<Socket> {
        OwnNamespace.socket(domain, kind, protocol)
    }

    fn source(&self, _to: IpAddr) -> Option<IpAddr> {
        // Mostly the first one: it runs out of ports early.
        let is_second = self.0.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        Some([127, 0, 0, if is_second { 9 } else { 8 }].into())
    }
}

#[test]
fn an_address_without_a_port_left_is_replaced_by_another_one() {
    in_namespace("an_address_without_a_port_left_is_replaced_by_another_one", async || {
        sysctl("net.ipv4.ip_local_port_range", "40000 40009");
        ip(&["address", "add", "192.0.2.10/32", "dev", "lo"]);
        let address: SocketAddr = "127.0.0.3:53".parse().unwrap();
        let _server = UdpServer::on(address, 1, 1).await;
        let mut world = World::empty(1, VIP.parse().unwrap());
        world.configuration.networks.insert(NETWORK, Arc::<TwoSources>::default());
        world.configuration.listeners = vec![listener(world.address)];
        world.configuration.pools = vec![pool(vec![backend(1, address)])];
        udp(&mut world.configuration);
        world.apply_all().await;
        for port in 50_000..50_020 {
            let client = datagram_client(world.address, port).await;
            client.send(b"hello").await.unwrap();
            let mut answer = [0; 6];
            patiently(client.recv(&mut answer)).await.unwrap();
        }
        assert_eq!((world.counters().active, short_of_ports(&world)), (20, 0));
    });
}
