//! Large transfers arrive whole and in order, through the copying and the splicing path.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    peers::Server,
    world::{World, backend},
};

const LENGTH: usize = 24 * 1024 * 1024;

/// Eight bytes that tell their place, so that nothing can be lost, repeated or exchanged unseen.
fn word(seed: u64, index: usize) -> [u8; 8] {
    ((index as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
}

fn block(seed: u64, from: usize, length: usize) -> Vec<u8> {
    (from / 8..(from + length) / 8).flat_map(|index| word(seed, index)).collect()
}

async fn send(mut to: impl AsyncWrite + Unpin, seed: u64, length: usize, chunk: usize) {
    for at in (0..length).step_by(chunk) {
        to.write_all(&block(seed, at, chunk.min(length - at))).await.unwrap();
    }
    to.shutdown().await.unwrap();
}

/// Receives to the end and compares; rests after each chunk if asked to.
async fn receive(mut from: impl AsyncRead + Unpin, seed: u64, length: usize, rest: Option<Duration>) {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    while at < length {
        let wanted = buffer.len().min(length - at);
        from.read_exact(&mut buffer[..wanted]).await.unwrap();
        assert!(buffer[..wanted] == block(seed, at, wanted)[..], "other bytes than were sent, after {at}");
        at += wanted;
        if let Some(rest) = rest {
            tokio::time::sleep(rest).await;
        }
    }
    assert_eq!(from.read(&mut buffer).await.unwrap(), 0, "more bytes than were sent");
}

async fn serve(stream: TcpStream, length: usize) {
    let (reader, writer) = stream.into_split();
    tokio::join!(receive(reader, 1, length, None), send(writer, 2, length, 64 * 1024));
}

async fn both_ways(client: TcpStream, length: usize, chunk: usize, rest: Option<Duration>) {
    let (reader, writer) = client.into_split();
    let both = async { tokio::join!(send(writer, 1, length, chunk), receive(reader, 2, length, rest)) };
    tokio::time::timeout(Duration::from_secs(120), both).await.unwrap();
}

#[tokio::test]
async fn a_bulky_flow_arrives_whole_both_ways() {
    let server = Server::start(|stream| serve(stream, LENGTH)).await;
    let world = World::new(vec![backend(1, server.address)]).await;
    both_ways(world.connect().await, LENGTH, 64 * 1024, None).await;
    let counters = world.quiet().await;
    assert_eq!((counters.bytes_in, counters.bytes_out), (LENGTH as u64, LENGTH as u64));
    assert_eq!((counters.reset_by_client + counters.reset_by_backend, counters.timed_out), (0, 0));
}

#[tokio::test]
async fn a_slow_reader_gets_it_whole_and_in_order_too() {
    const SOME: usize = 8 * 1024 * 1024;
    let server = Server::start(|stream| serve(stream, SOME)).await;
    let world = World::new(vec![backend(1, server.address)]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let client = socket.connect(world.address).await.unwrap();
    both_ways(client, SOME, 64 * 1024, Some(Duration::from_millis(2))).await;
    assert_eq!(world.quiet().await.bytes_out, SOME as u64);
}

#[tokio::test]
async fn many_small_messages_arrive_whole() {
    const SOME: usize = 512 * 1024;
    let server = Server::start(|stream| serve(stream, SOME)).await;
    let world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    let clients = (0..8).map(async |_| both_ways(world.connect().await, SOME, 104, None).await);
    for client in clients.collect::<Vec<_>>() {
        client.await;
    }
    assert_eq!(world.quiet().await.bytes_in, 8 * SOME as u64);
}
