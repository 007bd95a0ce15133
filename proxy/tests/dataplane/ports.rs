//! Local ports of the node, in a namespace with few of them.

use std::{net::SocketAddr, process::Command, time::Duration};

use fiberlb_proxy::shortage::NodeResource;
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpSocket};

use crate::{
    namespace::{in_namespace, ip},
    peers::{Server, echo, says_and_hears},
    world::{World, backend, listener, patiently, pool},
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
        }
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
