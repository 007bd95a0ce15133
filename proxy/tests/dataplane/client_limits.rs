//! Limits of single clients, and rates of connections.

use std::{net::SocketAddr, time::Duration};

use fiberlb_proxy::dataplane::{Limits, ListenerCounters, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    time::Instant,
};

use crate::{
    peers::{Server, is_reset, is_turned_away, says_and_hears},
    world::{World, backend, own_address, patiently},
};

/// A new connection of the client at this address.
async fn connect_from(world: &World, client: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(client).unwrap();
    patiently(socket.connect(world.address)).await.ok()
}

/// True if a connection is served, which it may have been reset instead of before it was known to be there.
async fn is_served(stream: &mut TcpStream) -> bool {
    let mut heard = [0; 5];
    stream.write_all(b"hello").await.is_ok() && patiently(stream.read_exact(&mut heard)).await.is_ok()
}

#[tokio::test]
async fn a_client_has_its_connections_whatever_others_have() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_connections = Some(2);
    })
    .await;
    let [one, other] = [own_address(), own_address()].map(|address| SocketAddr::from((address, 0)));
    let mut open = Vec::new();
    for client in [one, one, other, other] {
        let mut stream = connect_from(&world, client).await.unwrap();
        says_and_hears(&mut stream).await;
        open.push(stream);
    }
    for client in [one, other, one] {
        if let Some(mut stream) = connect_from(&world, client).await {
            is_reset(&mut stream).await;
        }
    }
    open.remove(0);
    world.counted(|counters| counters.active == 3).await;
    let mut stream = connect_from(&world, one).await.unwrap();
    says_and_hears(&mut stream).await;
    drop((open, stream));
    let counters = world.quiet().await;
    assert_eq!((counters.refused_by_client_limit, counters.failed(), counters.accepted), (3, 3, 8));
}

#[tokio::test]
async fn a_limit_that_changes_holds_for_those_that_come() {
    let server = Server::echo().await;
    let mut world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_connections = Some(3);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = world.connect().await;
        says_and_hears(&mut stream).await;
        open.push(stream);
    }
    world.configuration.listeners[0].limits.client_connections = Some(1);
    world.apply_all().await;
    is_turned_away(&world).await;
    open.truncate(1);
    world.counted(|counters| counters.active == 1).await;
    is_turned_away(&world).await;
    says_and_hears(&mut open[0]).await;
    world.configuration.listeners[0].limits.client_connections = None;
    world.apply_all().await;
    says_and_hears(&mut world.connect().await).await;
    assert_eq!(world.counters().refused_by_client_limit, 2);
}

#[tokio::test]
async fn clients_connect_as_often_as_the_rates_allow_and_no_more() {
    let server = Server::echo().await;
    for (of_client, rate) in [(true, 5), (false, 8)] {
        let world = World::with(2, vec![backend(1, server.address)], |configuration| {
            let limits = &mut configuration.listeners[0].limits;
            (limits.client_connection_rate, limits.connection_rate) =
                if of_client { (Some(rate), None) } else { (None, Some(rate)) };
        })
        .await;
        let (started, mut served) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(2) {
            if let Ok(mut stream) = patiently(TcpStream::connect(world.address)).await {
                served += u32::from(is_served(&mut stream).await);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let most = f64::from(rate) * (1.0 + seconds);
        assert!(served >= rate && f64::from(served) <= most, "{served} of {most}");
        let counters = world.quiet().await;
        let refused = [counters.refused_by_client_rate, counters.refused_by_rate];
        assert_eq!(refused[usize::from(of_client)], 0);
        let refused = refused[usize::from(!of_client)];
        assert!(refused > 0 && refused + u64::from(served) == counters.accepted, "{counters:?}");
    }
}

#[tokio::test]
async fn who_a_trusted_proxy_states_is_the_client() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_connections = Some(1);
        configuration.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let stating = async |client: &str| {
        let mut stream = world.connect().await;
        let header = format!("PROXY TCP4 {client} 192.0.2.100 5000 80\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        stream
    };
    let mut first = stating("192.0.2.1").await;
    says_and_hears(&mut first).await;
    let mut other = stating("192.0.2.2").await;
    says_and_hears(&mut other).await;
    is_reset(&mut stating("192.0.2.1").await).await;
    drop(first);
    world.counted(|counters| counters.active == 1).await;
    says_and_hears(&mut stating("192.0.2.1").await).await;
    assert_eq!(world.counters().refused_by_client_limit, 1);
}

#[tokio::test]
async fn a_trusted_proxys_own_connections_are_no_clients() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_connections = Some(1);
        configuration.listeners[0].limits.connection_rate = Some(1);
        configuration.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let mut open = Vec::new();
    for header in [local, local, local, &b"PROXY UNKNOWN\r\n"[..]] {
        let mut stream = world.connect().await;
        stream.write_all(header).await.unwrap();
        says_and_hears(&mut stream).await;
        open.push(stream);
    }
    let mut unknown = world.connect().await;
    unknown.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    is_reset(&mut unknown).await;
    assert_eq!(world.counters().refused_by_client_limit, 1, "it counts as the proxy itself");
}

#[tokio::test]
async fn connections_stay_counted_while_a_limit_or_the_listener_is_gone() {
    let server = Server::echo().await;
    let mut world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_connections = Some(1);
    })
    .await;
    let mut first = world.connect().await;
    says_and_hears(&mut first).await;
    for is_there in [false, true] {
        world.configuration.listeners[0].enabled = is_there;
        world.apply_all().await;
    }
    is_turned_away(&world).await;
    for limit in [None, Some(1)] {
        world.configuration.listeners[0].limits.client_connections = limit;
        world.apply_all().await;
    }
    is_turned_away(&world).await;
    says_and_hears(&mut first).await;
    drop(first);
    world.counted(|counters| counters.active == 0).await;
    says_and_hears(&mut world.connect().await).await;
    assert_eq!(world.counters().refused_by_client_limit, 2);
}

/// Sockets of one client, each of which has sent a datagram.
async fn sessions(world: &World, client: std::net::Ipv4Addr, number: usize) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..number {
        let socket = UdpSocket::bind((client, 0)).await.unwrap();
        socket.send_to(b"hello", world.address).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

async fn udp_world(server: &UdpSocket, limits: impl Fn(&mut Limits)) -> World {
    World::with(2, vec![backend(1, server.local_addr().unwrap())], |configuration| {
        configuration.listeners[0].protocol = Protocol::Udp;
        limits(&mut configuration.listeners[0].limits);
    })
    .await
}

#[tokio::test]
async fn sessions_of_a_client_are_its_connections() {
    let server = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let world = udp_world(&server, |limits| limits.client_connections = Some(2)).await;
    let sockets = sessions(&world, own_address(), 5).await;
    let counters = world.counted(|counters| counters.accepted == 5 && counters.active == 2).await;
    assert_eq!((counters.refused_by_client_limit, counters.failed()), (3, 3));
    let mut buffer = [0; 16];
    for _ in 0..2 {
        patiently(server.recv_from(&mut buffer)).await.unwrap();
    }
    // Which two there are, workers that take the first datagrams at the same time decide.
    for socket in &sockets {
        socket.send_to(b"again", world.address).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(
            patiently(server.recv_from(&mut buffer)).await.unwrap().0,
            5,
            "of a session that is there"
        );
    }
}

#[tokio::test]
async fn sessions_of_a_client_begin_as_often_as_its_rate_allows_and_those_of_others_too() {
    let server = UdpSocket::bind((own_address(), 0)).await.unwrap();
    let world = udp_world(&server, |limits| limits.client_connection_rate = Some(3)).await;
    let started = Instant::now();
    let sockets = sessions(&world, own_address(), 40).await;
    let is_settled = |number| {
        move |counters: &ListenerCounters| {
            counters.accepted == number && counters.closed == counters.refused_by_client_rate
        }
    };
    let counters = world.counted(is_settled(40)).await;
    let served = 40 - counters.refused_by_client_rate;
    let most = 3.0 * (1.0 + started.elapsed().as_secs_f64());
    assert!(served >= 3 && served as f64 <= most && served < 40, "{served} of {most}: {counters:?}");
    let others = sessions(&world, own_address(), 3).await;
    let counters = world.counted(is_settled(43)).await;
    assert_eq!(40 - served, counters.refused_by_client_rate, "{counters:?}");
    drop((sockets, others));
}
