//! Attempts to connect to backends, several of which may be pending for one client.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

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
pub(super) struct PendingAttempt {
    pub(super) placed: PlacedAttempt,
    connecting: Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>,
    /// Time at which the backend has failed it.
    deadline: Option<Instant>,
    _counted: Rc<()>,
}

impl fmt::Debug for PendingAttempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PendingAttempt").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl PendingAttempt {
    /// Begins to connect.
    ///
    /// # Errors
    /// The node has no socket for it.
    pub(super) fn begin(
        listener: &SharedListener,
        placed: PlacedAttempt,
        count: &PendingCount,
        now: Instant,
    ) -> io::Result<Self> {
        let keepalive = listener.limits.backend_data.is_none();
        let backend = placed.address;
        let socket = TcpSocket::from_std_stream(outgoing(&*listener.factory, backend, keepalive)?.into());
        Ok(Self {
            placed,
            connecting: Box::pin(socket.connect(backend)),
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
        self.connecting.as_mut().poll(cx)
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<TcpStream> {
        match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), &mut self.connecting).await?,
            None => (&mut self.connecting).await,
        }
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
    if let Some(source) = factory.source(backend.ip()) {
        // The port is chosen at connect(2): by then it need not be unused towards other backends.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}
