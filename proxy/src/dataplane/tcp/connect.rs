//! Connects to a backend for a client: one candidate after the other, until one accepts, the client is gone, or
//! the search has taken too much.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{TcpSocket, TcpStream},
};

use super::turn::{self, PlacedAttempt, Turn, TurnError};
use crate::{
    dataplane::{
        account::{Assignment, increment},
        listen::{self, SharedListener, WorkerListener, set_keepalive},
        record::ReachedBackend,
    },
    shortage::NodeResource,
    sockets::SocketFactory,
};

/// Most backends that are tried for one client. A client costs the network no more than so many SYNs, whatever
/// the pool.
const MAX_TRIES: usize = 16;

/// Longest time that a backend has while another one could be tried.
const MOST_FIRST_WAIT: Duration = Duration::from_millis(950);

/// Time after which no other backend is tried for a client. The one that is being tried then has all of its
/// time.
const MAX_SEARCH: Duration = Duration::from_secs(15);

/// A connection to a backend, counted as the backend's.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) assignment: Assignment,
    pub(super) backend: ReachedBackend,
}

/// Reason why no backend was reached.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// No backend is eligible, or none of those that were tried has accepted.
    NoBackend,
    /// All backends are at their limits, and there is no queue, or no place in it.
    Full,
    /// It has waited too long for a place at a backend.
    QueueTimeout,
    /// The client has reset its connection, or no longer answers.
    ClientGone,
    /// This node cannot connect, for want of ports, descriptors or memory of its own.
    Exhausted(io::Error),
}

impl From<TurnError> for ConnectError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::NoBackend => Self::NoBackend,
            TurnError::Full => Self::Full,
            TurnError::Timeout => Self::QueueTimeout,
            TurnError::ClientGone => Self::ClientGone,
        }
    }
}

/// Connects a client to a backend, and sends that one `header` first. `accepted`: when the client was.
pub(super) async fn open(
    listener: &WorkerListener,
    stream: &TcpStream,
    (client, accepted): (SocketAddr, Instant),
    header: &[u8],
) -> Result<Opened, ConnectError> {
    tokio::select! {
        biased;
        result = search(listener, stream, (client, accepted), header) => result,
        () = broken(stream) => Err(ConnectError::ClientGone),
    }
}

/// Waits until the connection is broken. One half that is closed does not break it: the client may be waiting
/// for an answer.
async fn broken(client: &TcpStream) {
    if client.ready(Interest::ERROR).await.is_err() {
        // The runtime ends.
        std::future::pending::<()>().await;
    }
}

/// Tries the candidates in turn, each at most once.
async fn search(
    listener: &WorkerListener,
    stream: &TcpStream,
    (client, accepted): (SocketAddr, Instant),
    header: &[u8],
) -> Result<Opened, ConnectError> {
    let Turn { pool, keys, attempt } = turn::take(listener, stream, client).await?;
    let started = Instant::now();
    let mut next = Some(attempt);
    let mut tried = Vec::new();
    let mut exhausted = None;
    while let Some(attempt) = next {
        let others = || pool.has_others(&tried, attempt.place, Instant::now());
        match connect(&listener.shared, attempt.address, header, others).await {
            Ok(stream) => {
                let connected = Instant::now();
                pool.remember(&keys, attempt.id, connected);
                listen::record_success(listener, attempt.id, &attempt.state);
                let backend = ReachedBackend {
                    id: attempt.id,
                    address: attempt.address,
                    selected: attempt.selected,
                    tries: u8::try_from(tried.len() + 1).unwrap_or(u8::MAX),
                    connected_after: connected.saturating_duration_since(accepted),
                };
                let assignment = attempt.assignment;
                return Ok(Opened { stream, assignment, backend });
            }
            Err(AttemptError::Backend(error)) => record_failure(listener, &attempt, &error),
            Err(AttemptError::Node(error)) => {
                let resource = NodeResource::of_error(&error);
                if let Some(resource) = resource {
                    listener.shared.shortages.record(resource);
                }
                // Ports are short towards one backend; all else is towards the others too.
                if resource != Some(NodeResource::Ports) {
                    return Err(ConnectError::Exhausted(error));
                }
                exhausted = Some(error);
            }
        }
        tried.push(attempt.place);
        // Its place is another one's before the next one is looked for.
        drop(attempt);
        let now = Instant::now();
        let may_go_on = may_try(tried.len(), now.saturating_duration_since(started));
        next = may_go_on.then(|| PlacedAttempt::next(&pool, &keys, &tried, now)).flatten();
    }
    Err(exhausted.map_or(ConnectError::NoBackend, ConnectError::Exhausted))
}

/// True if another backend may be tried for a client, after so many, and so long.
fn may_try(tried: usize, elapsed: Duration) -> bool {
    tried < MAX_TRIES && elapsed < MAX_SEARCH
}

/// Error of one attempt, by who is the cause of it.
#[derive(Debug)]
enum AttemptError {
    Backend(io::Error),
    Node(io::Error),
}

/// Time after which a backend that has not answered is given up for another one: a part of what it may take where there is
/// none, and less than the kernel waits before it asks again.
fn first_wait(timeout: Option<Duration>) -> Duration {
    timeout.map_or(MOST_FIRST_WAIT, |timeout| (timeout / 5).min(MOST_FIRST_WAIT))
}

/// Connects to a backend and sends the header, at once: a server may be the first to speak, and waits for it. `has_others`:
/// whether another backend could be tried, which is asked once this one is slow.
async fn connect(
    listener: &SharedListener,
    backend: SocketAddr,
    header: &[u8],
    has_others: impl Fn() -> bool,
) -> Result<TcpStream, AttemptError> {
    let keepalive = listener.limits.backend_data.is_none();
    let socket = outgoing(&*listener.factory, backend, keepalive).map_err(AttemptError::Node)?;
    let connecting = async {
        let mut stream = TcpSocket::from_std_stream(socket.into()).connect(backend).await?;
        if !header.is_empty() {
            stream.write_all(header).await?;
        }
        Ok(stream)
    };
    let limit = listener.limits.backend_connect;
    let first = first_wait(limit);
    let mut connecting = std::pin::pin!(connecting);
    let connected = match (tokio::time::timeout(first, &mut connecting).await, limit) {
        (Ok(connected), _) => connected,
        (Err(elapsed), _) if has_others() => Err(elapsed.into()),
        (Err(_), Some(limit)) => {
            let rest = limit.saturating_sub(first);
            tokio::time::timeout(rest, connecting).await.map_err(io::Error::from).flatten()
        }
        (Err(_), None) => connecting.await,
    };
    connected.map_err(|error| match NodeResource::of_error(&error) {
        Some(_) => AttemptError::Node(error),
        None => AttemptError::Backend(error),
    })
}

/// Makes a socket that is ready to connect to a backend. `keepalive` makes the kernel probe an idle backend:
/// only worth its system calls where no data timeout ends the connection.
fn outgoing(factory: &dyn SocketFactory, backend: SocketAddr, keepalive: bool) -> io::Result<Socket> {
    let socket = factory.socket(Domain::for_address(backend), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if keepalive {
        set_keepalive(&socket)?;
    }
    if let Some(source) = factory.source(backend.ip()) {
        // The port is chosen at connect(2): by then it need not be unused towards other backends.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}

fn record_failure(listener: &WorkerListener, attempt: &PlacedAttempt, error: &io::Error) {
    increment(&listener.shared.counters.connect_failures);
    attempt.assignment.count_failure();
    listen::record_failure(listener, attempt.id, attempt.address, error);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_backend_is_given_up_before_the_kernel_asks_it_again() {
        let wait = |millis: Option<u64>| first_wait(millis.map(Duration::from_millis)).as_millis();
        assert_eq!([None, Some(5_000), Some(60_000), Some(500)].map(wait), [950, 950, 950, 100]);
    }

    #[test]
    fn a_search_has_a_bound_of_number_and_one_of_time() {
        assert!(may_try(0, Duration::ZERO));
        assert!(may_try(MAX_TRIES - 1, MAX_SEARCH - Duration::from_millis(1)));
        assert!(!may_try(MAX_TRIES, Duration::ZERO));
        assert!(!may_try(1, MAX_SEARCH));
    }
}
