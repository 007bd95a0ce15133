//! Attempts to connect to backends, several of which may be pending for one client.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::{io::Errno, net::sockopt::set_tcp_quickack};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::TcpStream};

use super::turn::PlacedAttempt;
use crate::{
    dataplane::listen::{SharedListener, set_keepalive},
    sockets::SocketFactory,
};

/// Attempts of a worker above which none is begun beside another one of the same client. The node's budget of connections
/// has a descriptor for one attempt of each client, and so many are left for others.
pub(in crate::dataplane) const MAX_BESIDE: usize = 256;

/// Attempts of one worker that are pending.
#[derive(Debug, Default)]
pub(super) struct PendingCount(Rc<()>);

impl PendingCount {
    /// True if none should be begun beside another one.
    pub(super) fn is_high(&self) -> bool {
        Rc::strong_count(&self.0) > MAX_BESIDE
    }
}

/// An attempt that is pending. Being dropped, it is given up.
#[derive(Debug)]
pub(super) struct PendingAttempt {
    pub(super) placed: PlacedAttempt,
    /// True if the kernel keeps the last step of the handshake for the first bytes.
    pub(super) delays_ack: bool,
    /// Its socket, or the error of connecting at all. None: it has ended.
    connecting: Option<io::Result<TcpStream>>,
    /// Time at which the backend has failed it.
    deadline: Option<Instant>,
    _counted: Rc<()>,
}

impl PendingAttempt {
    /// Begins to connect. `delays_ack`: the backend is to be sent something as soon as it has accepted.
    ///
    /// # Errors
    /// The node has no socket for it.
    pub(super) fn begin(
        listener: &SharedListener,
        placed: PlacedAttempt,
        count: &PendingCount,
        delays_ack: bool,
        now: Instant,
    ) -> io::Result<Self> {
        let keepalive = listener.limits.backend_data.is_none();
        let backend = placed.address;
        let socket = outgoing(&*listener.factory, backend, keepalive)?;
        let delays_ack = delays_ack && set_tcp_quickack(&socket, false).is_ok();
        Ok(Self {
            placed,
            delays_ack,
            connecting: Some(connect(socket, backend)),
            deadline: listener.limits.backend_connect.and_then(|timeout| now.checked_add(timeout)),
            _counted: Rc::clone(&count.0),
        })
    }

    /// Time at which the backend has failed it. None: as late as the kernel says so.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// True if the backend has not answered in time.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Polls the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let result = match &self.connecting {
            Some(Ok(stream)) => ready!(poll_connected(stream, cx)),
            _ => Ok(()),
        };
        let ended = || Err(io::Error::other("the attempt has ended before"));
        Poll::Ready(result.and(self.connecting.take().unwrap_or_else(ended)))
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<TcpStream> {
        let deadline = self.deadline;
        let ended = poll_fn(|cx| self.poll(cx));
        match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), ended).await?,
            None => ended.await,
        }
    }
}

/// Begins to connect a socket that does not block.
fn connect(socket: Socket, backend: SocketAddr) -> io::Result<TcpStream> {
    match socket.connect(&backend.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => TcpStream::from_std(socket.into()),
    }
}

/// Polls for the end of connecting. Reads the socket's error only where the kernel has reported one.
fn poll_connected(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    ready!(stream.poll_write_ready(cx))?;
    Poll::Ready(match stream.try_io(Interest::ERROR, || stream.take_error()) {
        Ok(Some(error)) => Err(error),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    })
}

/// Makes a socket that is ready to connect to a backend. `keepalive` makes the kernel probe an idle backend:
/// only worth its system calls where no data timeout ends the connection. Nagle's algorithm is on, until the second write.
fn outgoing(factory: &dyn SocketFactory, backend: SocketAddr, keepalive: bool) -> io::Result<Socket> {
    let socket = factory.socket(Domain::for_address(backend), Type::STREAM, Some(Protocol::TCP))?;
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
