//! Ends of connections.

use std::time::{Duration, Instant};

use fiberlb_proxy::dataplane::{DataplaneSpec, ListenerCounters};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::{
    peers::{Server, is_reset, says_and_hears},
    world::{World, backend, patiently},
};

/// A server that hands its connections to the test.
async fn handed() -> (Server, mpsc::UnboundedReceiver<TcpStream>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = Server::start(move |stream| {
        sender.send(stream).unwrap();
        std::future::ready(())
    });
    (server.await, receiver)
}

/// A client and the backend's end of its connection.
async fn pair(change: impl FnOnce(&mut DataplaneSpec)) -> (World, Server, TcpStream, TcpStream) {
    let (server, mut connections) = handed().await;
    let world = World::with(1, vec![backend(1, server.address)], change).await;
    let mut client = world.connect().await;
    let mut accepted = patiently(connections.recv()).await.unwrap();
    // A byte that has come through says that the proxy is connected as well.
    accepted.write_all(b"!").await.unwrap();
    assert_eq!(patiently(client.read_u8()).await.unwrap(), b'!');
    (world, server, client, accepted)
}

/// Resets by the client, and by the backend.
fn resets(counters: &ListenerCounters) -> (u64, u64) {
    (counters.reset_by_client, counters.reset_by_backend)
}

#[tokio::test]
async fn a_client_that_has_said_its_last_still_hears_the_answer() {
    let (world, _server, mut client, mut server) = pair(|_| {}).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = Vec::new();
    patiently(server.read_to_end(&mut question)).await.unwrap();
    assert_eq!(question, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    patiently(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
    let counters = world.quiet().await;
    assert_eq!((counters.bytes_in, counters.bytes_out, resets(&counters)), (8, 1 + 6, (0, 0)));
}

#[tokio::test]
async fn a_backend_that_has_said_its_last_still_hears_the_client() {
    let (world, _server, mut client, mut server) = pair(|_| {}).await;
    server.write_all(b"welcome").await.unwrap();
    server.shutdown().await.unwrap();
    let mut welcome = Vec::new();
    patiently(client.read_to_end(&mut welcome)).await.unwrap();
    assert_eq!(welcome, b"welcome");
    client.write_all(b"late").await.unwrap();
    drop(client);
    let mut late = Vec::new();
    patiently(server.read_to_end(&mut late)).await.unwrap();
    assert_eq!(late, b"late");
    assert_eq!(resets(&world.quiet().await), (0, 0));
}

#[tokio::test]
async fn a_reset_reaches_the_other_side() {
    let (world, _server, client, mut server) = pair(|_| {}).await;
    client.set_zero_linger().unwrap();
    drop(client);
    is_reset(&mut server).await;
    assert_eq!(resets(&world.quiet().await), (1, 0));

    let (world, _server, mut client, server) = pair(|_| {}).await;
    server.set_zero_linger().unwrap();
    drop(server);
    is_reset(&mut client).await;
    assert_eq!(resets(&world.quiet().await), (0, 1));
}

/// Such as one that answers 413 and closes without reading on.
#[tokio::test]
async fn what_a_backend_said_before_it_reset_is_counted() {
    let (world, _server, mut client, mut server) = pair(|_| {}).await;
    server.write_all(b"too much").await.unwrap();
    // Both at once for the relay, as often as not.
    server.set_zero_linger().unwrap();
    drop(server);
    let mut heard = Vec::new();
    let _reset = patiently(client.read_to_end(&mut heard)).await;
    let counters = world.quiet().await;
    assert_eq!((counters.bytes_out, resets(&counters)), (1 + heard.len() as u64, (0, 1)), "{heard:?}");
}

#[tokio::test]
async fn what_a_backend_said_before_it_closed_early_arrives() {
    let (world, _server, mut client, mut server) = pair(|_| {}).await;
    client.write_all(b"more than is read").await.unwrap();
    let mut some = [0; 4];
    patiently(server.read_exact(&mut some)).await.unwrap();
    server.write_all(b"too large").await.unwrap();
    server.shutdown().await.unwrap();
    let mut answer = [0; 9];
    patiently(client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"too large");
    drop(server);
    // It goes on talking to a backend that has gone, and must learn it.
    patiently(async { while client.write_all(&[0; 4096]).await.is_ok() {} }).await;
    world.quiet().await;
}

#[tokio::test]
async fn silence_ends_a_connection_and_traffic_keeps_it() {
    let server = Server::echo().await;
    let timeout = Duration::from_millis(400);
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_data = Some(timeout);
    })
    .await;
    let (mut lively, mut silent) = (world.connect().await, world.connect().await);
    says_and_hears(&mut silent).await;
    let started = Instant::now();
    let silence = async {
        is_reset(&mut silent).await;
        started.elapsed()
    };
    let life = async {
        while started.elapsed() < 3 * timeout {
            says_and_hears(&mut lively).await;
            tokio::time::sleep(timeout / 8).await;
        }
    };
    let (silence, ()) = tokio::join!(silence, life);
    assert!(silence >= timeout && silence < 3 * timeout, "{silence:?}");
    says_and_hears(&mut lively).await;
    assert_eq!(world.counted(|counters| counters.active == 1).await.timed_out, 1);
}

#[tokio::test]
async fn a_half_closed_connection_has_the_timeout_of_the_side_that_is_left() {
    let (world, _server, mut client, mut server) = pair(|configuration| {
        configuration.listeners[0].limits.backend_data = Some(Duration::from_millis(300));
    })
    .await;
    client.shutdown().await.unwrap();
    assert_eq!(patiently(server.read(&mut [0; 8])).await.unwrap(), 0);
    is_reset(&mut client).await;
    assert_eq!(world.quiet().await.timed_out, 1);
}

/// The setting holds where the data timeouts are longer, and where they are shorter.
#[tokio::test]
async fn a_half_closed_connection_ends_by_a_timeout_of_its_own() {
    let set = |half_close, data| {
        move |configuration: &mut DataplaneSpec| {
            let limits = &mut configuration.listeners[0].limits;
            (limits.half_close, limits.backend_data) = (Some(half_close), Some(data));
        }
    };
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(3_600));
    let (world, _server, mut client, mut server) = pair(set(short, long)).await;
    server.shutdown().await.unwrap();
    assert_eq!(patiently(client.read(&mut [0; 8])).await.unwrap(), 0);
    is_reset(&mut server).await;
    let counters = world.quiet().await;
    assert_eq!((counters.half_closed, counters.timed_out, resets(&counters)), (1, 0, (0, 0)));

    let (world, _server, mut client, mut server) = pair(set(long, short)).await;
    client.shutdown().await.unwrap();
    assert_eq!(patiently(server.read(&mut [0; 8])).await.unwrap(), 0);
    tokio::time::sleep(2 * short).await;
    server.write_all(b"late").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    patiently(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!((answer.as_slice(), world.quiet().await.half_closed), (&b"late"[..], 0));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_its_backend_is_not_blamed() {
    let (server, mut connections) = handed().await;
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.client_data = Some(Duration::from_millis(500));
        configuration.listeners[0].limits.backend_data = None;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let _client = socket.connect(world.address).await.unwrap();
    let mut server = patiently(connections.recv()).await.unwrap();
    // The bytes fill the client's and the proxy's buffers, and then the proxy takes no more.
    patiently(async { while server.write_all(&[0; 65536]).await.is_ok() {} }).await;
    let counters = world.quiet().await;
    assert_eq!(counters.timed_out, 1, "{counters:?}");
}

#[tokio::test]
async fn a_backend_that_speaks_first_does_so_at_once_though_clients_before_spoke_first() {
    let server = Server::named(b'!').await;
    let world = World::new(vec![backend(1, server.address)]).await;
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let speaking = (0..16).map(async |_| {
            let mut client = world.connect().await;
            client.write_all(b"hello").await.unwrap();
            assert_eq!(patiently(client.read_u8()).await.unwrap(), b'!');
        });
        for client in speaking {
            client.await;
        }
        let started = Instant::now();
        assert_eq!(patiently(world.connect().await.read_u8()).await.unwrap(), b'!');
        least = least.min(started.elapsed());
    }
    // The kernel keeps an acknowledgement for 200 ms at most.
    assert!(least < Duration::from_millis(150), "{least:?}");
}
