//! Life of a connection: deadlines, age, stop.

use std::time::Duration;

use fiberlb_daemon::listen::{ConnectionSettings, RefusedReason, Socket};
use fiberlb_daemon::testing::{Opening, PATIENCE, connect_from, get, open};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::world::{ATTACKER, Client, HONEST, World, client, patient};

/// Waits until the other side has closed.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
}

#[tokio::test]
async fn both_versions_of_http_are_served_and_know_their_peer() {
    let world = World::start(patient(), |listener| listener);
    assert_eq!(get(HONEST, world.address(), "/peer").await.unwrap(), (200, "127.0.0.3 0".to_owned()));
    let mut client = client(HONEST, &world).await;
    assert_eq!(client.get("/peer").await.unwrap(), "127.0.0.3 0");
    assert_eq!(client.get("/").await.unwrap(), "hello");
    assert!(world.listeners.obstacles().is_empty());
    world.until("one connection is open", |world| world.connections() == 1).await;
    drop(client);
    world.until("none is", |world| world.connections() == 0).await;
}

#[tokio::test]
async fn a_socket_file_serves_its_owner() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.sock");
    let socket = Socket::unix(&path).unwrap();
    let world = World::start_on(socket, patient(), |listener| listener.http2_only());
    let mut client = Client::on(UnixStream::connect(&path).await.unwrap()).await;
    assert_eq!(client.get("/peer").await.unwrap(), "unix 0");
    drop(client);
    world.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn who_says_nothing_in_time_is_closed() {
    let settings = ConnectionSettings { first_byte_ms: 50, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut silent = connect_from(ATTACKER, world.address()).await.unwrap();
    closed(&mut silent).await;
    world.until("it is counted", |world| world.refused(RefusedReason::Silent) == 1).await;
    // Who closes by himself is not refused: probes do so.
    drop(connect_from(ATTACKER, world.address()).await.unwrap());
    world.until("both are gone", |world| world.connections() == 0).await;
    assert_eq!(world.refused(RefusedReason::Silent), 1);
}

#[tokio::test]
async fn who_never_completes_a_request_is_closed_in_either_version() {
    let settings = ConnectionSettings { request_ms: 100, ..patient() };
    let world = World::start(settings, |listener| listener);
    let halves: [&[u8]; 3] =
        [b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nHost: x", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    for half in halves {
        let mut stream = connect_from(ATTACKER, world.address()).await.unwrap();
        stream.write_all(half).await.unwrap();
        closed(&mut stream).await;
    }
    // A client that has completed the handshake learns that the connection takes no requests (GOAWAY).
    let mut late = client(ATTACKER, &world).await;
    let _ = timeout(PATIENCE, &mut late.ended).await.expect("it is closed");
    world.until("all are counted", |world| world.connections() == 0).await;
    assert!(world.refused(RefusedReason::NoRequest) >= 3, "a GOAWAY may end it in good order");
    assert!(client(HONEST, &world).await.get("/").await.is_ok());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_stream_keeps_it_open() {
    let settings = ConnectionSettings { idle_s: 1, ..patient() };
    let world = World::start(settings, |listener| listener);
    let (mut idle, mut streaming) = (client(HONEST, &world).await, client(HONEST, &world).await);
    assert_eq!(idle.get("/").await.unwrap(), "hello");
    let stream = streaming.begin("/stream").await.unwrap();
    let _ = timeout(PATIENCE, &mut idle.ended).await.expect("it is closed");
    assert!(!streaming.ended.is_finished());
    assert_eq!(streaming.get("/").await.unwrap(), "hello");
    world.streams.send_replace(false);
    timeout(PATIENCE, stream.into_body().collect()).await.unwrap().unwrap();
    let _ = timeout(PATIENCE, &mut streaming.ended).await.expect("it is closed too");
}

#[tokio::test]
async fn an_old_connection_takes_no_more_requests_and_its_streams_go_on() {
    let settings = ConnectionSettings { age_s: 1, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut old = client(HONEST, &world).await;
    let stream = old.begin("/stream").await.unwrap();
    let refuses = async {
        while old.get("/").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refuses).await.expect("it takes no more requests at last");
    assert_eq!(world.connections(), 1, "the stream goes on");
    world.streams.send_replace(false);
    let text = timeout(PATIENCE, stream.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(text, "begun");
    world.until("the connection ends with its last stream", |world| world.connections() == 0).await;
}

#[tokio::test]
async fn a_stop_waits_for_requests_in_progress_and_for_nobody_else() {
    let world = World::start(patient(), |listener| listener.with_drain(PATIENCE));
    let _silent = open(5, 0, Opening::Silent, ATTACKER, world.address()).await;
    let _half = open(5, 0, Opening::HalfPreface, ATTACKER, world.address()).await;
    let mut idle = client(HONEST, &world).await;
    idle.get("/").await.unwrap();
    let mut streaming = client(HONEST, &world).await;
    let stream = streaming.begin("/stream").await.unwrap();
    let (streams, listeners) = (world.streams.clone(), world.listeners.clone());
    let stopping = tokio::spawn(world.stop());
    let _ = timeout(PATIENCE, idle.ended).await.expect("an idle one is closed");
    assert!(!stopping.is_finished());
    streams.send_replace(false);
    timeout(PATIENCE, stream.into_body().collect()).await.unwrap().unwrap();
    assert!(stopping.await.unwrap() < PATIENCE);
    assert_eq!(listeners.obstacles(), [("test", "it has stopped".to_owned())]);
}

#[tokio::test]
async fn a_stop_cuts_what_goes_on_after_the_drain_deadline() {
    let world = World::start(patient(), |listener| listener.with_drain(Duration::from_millis(200)));
    let mut streaming = client(HONEST, &world).await;
    let stream = streaming.begin("/stream").await.unwrap();
    assert!(world.stop().await < PATIENCE / 2);
    assert!(timeout(PATIENCE, stream.into_body().collect()).await.unwrap().is_err());
}

#[tokio::test]
async fn headers_and_streams_are_bounded() {
    let settings = ConnectionSettings { header_bytes: 8192, streams: 2, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut stream = connect_from(HONEST, world.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));

    let mut client = client(HONEST, &world).await;
    let first = client.begin("/stream").await.unwrap();
    let _second = client.begin("/stream").await.unwrap();
    let third = tokio::time::timeout(Duration::from_millis(300), client.begin("/"));
    assert!(third.await.is_err(), "the client keeps to the limit that it was told");
    drop(first);
    assert!(client.begin("/").await.is_ok());
}
