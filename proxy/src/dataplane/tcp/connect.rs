//! Connects to a backend for a client: one candidate after the other, until one accepts.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::{
    dataplane::{
        account::{Assignment, BackendLoad, increment},
        balance::{ClientKeys, WorkerPool},
        listen::{SharedListener, WorkerListener, set_keepalive},
    },
    sockets::SocketFactory,
};

/// A connection to a backend, counted as the backend's.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) assignment: Assignment,
    pub(super) backend: Uuid,
}

/// Reason why no backend was reached.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// No backend is eligible, or none of the eligible ones has accepted.
    NoBackend,
    /// This node has no descriptors, memory or ports left: another candidate would not help.
    Exhausted(io::Error),
}

/// Tries the candidates in turn, each at most once.
pub(super) async fn open(listener: &WorkerListener, client: SocketAddr) -> Result<Opened, ConnectError> {
    let Some(pool) = listener.pool.as_deref() else { return Err(ConnectError::NoBackend) };
    let keys = pool.keys_of_peer(client);
    let mut tried = Vec::new();
    loop {
        let Some(attempt) = next_attempt(pool, &keys, &tried) else { return Err(ConnectError::NoBackend) };
        let assignment = Assignment::new(&attempt.load);
        match connect(&listener.shared, attempt.address).await {
            Ok(stream) => {
                pool.remember(&keys, attempt.id, Instant::now());
                return Ok(Opened { stream, assignment, backend: attempt.id });
            }
            Err(error) if is_exhaustion(&error) => return Err(ConnectError::Exhausted(error)),
            Err(error) => record_failure(listener, &attempt, &error),
        }
        tried.push(attempt.place);
    }
}

/// A backend while it is tried.
struct ConnectAttempt {
    place: usize,
    id: Uuid,
    address: SocketAddr,
    load: Arc<BackendLoad>,
}

fn next_attempt(pool: &WorkerPool, keys: &ClientKeys, tried: &[usize]) -> Option<ConnectAttempt> {
    let (place, member) = pool.next(keys, tried, Instant::now())?;
    Some(ConnectAttempt {
        place,
        id: member.id(),
        address: member.address(),
        load: Arc::clone(member.load()),
    })
}

async fn connect(listener: &SharedListener, backend: SocketAddr) -> io::Result<TcpStream> {
    let keepalive = listener.limits.backend_data.is_none();
    let socket = TcpSocket::from_std_stream(outgoing(&*listener.factory, backend, keepalive)?.into());
    match listener.limits.backend_connect {
        Some(timeout) => tokio::time::timeout(timeout, socket.connect(backend)).await?,
        None => socket.connect(backend).await,
    }
}

/// Makes a socket that is ready to connect to a backend. `keepalive` makes the kernel probe an idle backend:
/// only worth its system calls where no data timeout ends the connection.
fn outgoing(factory: &dyn SocketFactory, backend: SocketAddr, keepalive: bool) -> io::Result<Socket> {
    let socket = factory.socket(Domain::for_address(backend), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if keepalive {
        set_keepalive(&socket)?;
    }
    Ok(socket)
}

fn record_failure(listener: &WorkerListener, attempt: &ConnectAttempt, error: &io::Error) {
    increment(&listener.shared.counters.connect_failures);
    if let Some(suppressed) = listener.throttles.connect.admit(Instant::now()) {
        tracing::info!(
            listener = %listener.shared.id,
            name = listener.shared.name,
            backend = %attempt.id,
            address = %attempt.address,
            %error,
            suppressed,
            "backend does not accept a connection; trying the next one"
        );
    }
}

/// True if the error is this node's, and not the backend's.
fn is_exhaustion(error: &io::Error) -> bool {
    let exhaustion = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhaustion.contains(&errno))
}
