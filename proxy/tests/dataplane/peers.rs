//! Backends, and what clients do.

use std::{future::Future, io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use fiberlb_proxy::dataplane::PassiveHealthSpec;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::world::{World, own_address, patiently};

/// A passive health check that leaves a backend out for long at its first failure, as far as there are others.
pub(crate) const ONE_FAILURE: PassiveHealthSpec = PassiveHealthSpec {
    consecutive_failures: 1,
    ejection: Duration::from_secs(3_600),
    max_ejection: Duration::from_secs(3_600),
    max_ejected_percent: 50,
};

/// A server that does the same with every connection, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on((own_address(), 80).into(), serve).await
    }

    pub(crate) async fn on<F>(address: SocketAddr, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Self { address, task }
    }

    /// Says its name and closes.
    pub(crate) async fn named(name: u8) -> Self {
        Self::start(move |mut stream| async move {
            let _ = stream.write_all(&[name]).await;
        })
        .await
    }

    /// Sends back what comes, and ends when the client does.
    pub(crate) async fn echo() -> Self {
        Self::start(echo).await
    }
}

pub(crate) async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// An address that refuses every connection: its port is taken, and nobody listens.
pub(crate) fn refusing() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    let address: SocketAddr = (own_address(), 80).into();
    socket.bind(address).unwrap();
    (address, socket)
}

/// An address that answers no SYN, while what is beside it is held.
pub(crate) fn silent() -> (SocketAddr, [OwnedFd; 2]) {
    let listener = std::net::TcpListener::bind((own_address(), 80)).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    // A queue of nought takes one: from then on the kernel answers no SYN.
    let queued = std::net::TcpStream::connect(address).unwrap();
    (address, [listener.into(), queued.into()])
}

/// The name of the backend that a new connection gets.
pub(crate) async fn name(world: &World) -> io::Result<u8> {
    patiently(world.connect().await.read_u8()).await
}

/// The names of the backends that so many connections get, one after the other.
pub(crate) async fn names(world: &World, connections: usize) -> Vec<u8> {
    let mut names = Vec::new();
    for _ in 0..connections {
        names.push(name(world).await.unwrap());
    }
    names
}

pub(crate) fn times(names: &[u8], name: u8) -> usize {
    names.iter().filter(|one| **one == name).count()
}

/// Sends something and receives the echo.
pub(crate) async fn says_and_hears(client: &mut TcpStream) {
    client.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    patiently(client.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

/// A new connection that is turned away must end in a reset; it may be there before the client knows that it is connected.
pub(crate) async fn is_turned_away(world: &World) {
    match patiently(TcpStream::connect(world.address)).await {
        Ok(mut client) => is_reset(&mut client).await,
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Waits for the end of a connection that must be a reset.
pub(crate) async fn is_reset(stream: &mut TcpStream) {
    let error = patiently(async {
        loop {
            match stream.read(&mut [0; 1024]).await {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        }
    });
    assert_eq!(error.await, Some(io::ErrorKind::ConnectionReset));
}
