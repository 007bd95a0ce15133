//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::sockets::SocketFactory;

/// Most clients that queue before they are accepted; the namespace's `net.core.somaxconn` may lower it.
pub(super) const BACKLOG: u16 = 4_096;

/// Idle time after which a peer is first probed by the kernel, and the interval of further probes. A peer
/// that vanished is found after some ten minutes also where the tenant wants no data timeout.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Makes a TCP socket that listens on `address`, one of several that share the address (`SO_REUSEPORT`).
/// Accepted sockets inherit its options. The address need not be on an interface yet.
pub(in crate::dataplane) fn bind(
    factory: &dyn SocketFactory,
    address: SocketAddr,
) -> io::Result<TcpListener> {
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
    set_keepalive(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

/// Makes the kernel probe an idle peer of a TCP socket.
pub(in crate::dataplane) fn set_keepalive(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}
