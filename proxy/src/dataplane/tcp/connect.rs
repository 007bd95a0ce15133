//! Finds a backend for a client: one candidate after the other, until one answers.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use rustix::io::Errno;
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use super::{
    bind,
    counters::count,
    post::Post,
    rotation::{Assignment, BackendState},
    service::Service,
};

/// A connection to a backend, and that it counts as the backend's.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) assignment: Assignment,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Unopened {
    /// No backend is eligible, or none of those that are has answered.
    NoBackend,
    /// This node has no descriptors, memory or ports left: another candidate would not help.
    Exhausted(io::Error),
}

/// Tries the candidates in turn, each at most once.
pub(super) async fn open(post: &Post, client: SocketAddr) -> Result<Opened, Unopened> {
    let mut tried = Vec::new();
    loop {
        let Some(candidate) = candidate(post, client, &tried) else { return Err(Unopened::NoBackend) };
        let assignment = Assignment::new(&candidate.state);
        match connect(&post.service, candidate.address).await {
            Ok(stream) => {
                remember(post, client, &candidate);
                return Ok(Opened { stream, assignment });
            }
            Err(error) if is_exhaustion(&error) => return Err(Unopened::Exhausted(error)),
            Err(error) => failed(post, &candidate, &error),
        }
        tried.push(candidate.place);
    }
}

/// What has to be known of a backend while it is tried.
struct Candidate {
    place: usize,
    id: Uuid,
    address: SocketAddr,
    state: Arc<BackendState>,
}

fn candidate(post: &Post, client: SocketAddr, tried: &[usize]) -> Option<Candidate> {
    let (place, member) = post.pool.as_ref()?.next(client, tried, Instant::now())?;
    Some(Candidate { place, id: member.id(), address: member.address(), state: Arc::clone(member.state()) })
}

fn remember(post: &Post, client: SocketAddr, candidate: &Candidate) {
    if let Some(pool) = &post.pool {
        pool.remember(client, candidate.id, Instant::now());
    }
}

async fn connect(service: &Service, backend: SocketAddr) -> io::Result<TcpStream> {
    let keepalive = service.limits.backend_data.is_none();
    let socket = TcpSocket::from_std_stream(bind::outgoing(&*service.factory, backend, keepalive)?.into());
    match service.limits.backend_connect {
        Some(timeout) => tokio::time::timeout(timeout, socket.connect(backend)).await?,
        None => socket.connect(backend).await,
    }
}

fn failed(post: &Post, candidate: &Candidate, error: &io::Error) {
    count(&post.service.counters.connect_failures);
    if let Some(suppressed) = post.throttles.connect.admit(Instant::now()) {
        tracing::info!(
            listener = %post.service.id,
            name = post.service.name,
            backend = %candidate.id,
            address = %candidate.address,
            %error,
            suppressed,
            "a backend does not take a connection; the next one is tried"
        );
    }
}

/// Whether it is this node that cannot, and not the backend.
fn is_exhaustion(error: &io::Error) -> bool {
    let exhaustion = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| exhaustion.contains(&errno))
}
