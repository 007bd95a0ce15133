//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::sockets::SocketFactory;

/// How many clients may queue before they are accepted; the namespace's `net.core.somaxconn` may lower it.
pub(super) const BACKLOG: u16 = 4_096;

/// When an idle peer is first asked whether it is still there, and how often then. A peer that vanished is found after some ten
/// minutes also where the tenant wants no data timeout.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(60);

/// Makes a socket that listens on `address`, one of several that share the address (`SO_REUSEPORT`). Accepted sockets inherit its
/// options. The address need not be on an interface yet.
pub(super) fn listen(factory: &dyn SocketFactory, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = factory.socket(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

/// Makes a socket that is ready to connect to a backend. `keepalive` asks an idle backend from time to time whether it is there: only
/// worth its system calls where no data timeout does so.
pub(super) fn outgoing(
    factory: &dyn SocketFactory,
    backend: SocketAddr,
    keepalive: bool,
) -> io::Result<Socket> {
    let socket = factory.socket(Domain::for_address(backend), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if keepalive {
        keep_alive(&socket)?;
    }
    Ok(socket)
}

fn keep_alive(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)
}
