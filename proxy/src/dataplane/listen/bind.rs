//! Listening sockets.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4RecvTtl, Ipv6RecvHopLimit},
};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::{dataplane::spec::Transport, sockets::SocketFactory};

/// Most clients that queue before they are accepted; the namespace's `net.core.somaxconn` may lower it.
pub(super) const BACKLOG: u16 = 4_096;

/// Idle time after which a peer is first probed by the kernel, and the interval of further probes. A peer
/// that vanished is found after some ten minutes also where the tenant wants no data timeout.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Receive buffer of a UDP socket, in bytes, as far as `net.core.rmem_max` allows: what comes while the worker is
/// busy with others.
const DATAGRAM_BUFFER: usize = 1024 * 1024;

/// A socket that clients reach.
#[derive(Debug)]
pub(in crate::dataplane) enum ListeningSocket {
    /// TCP.
    Stream(TcpListener),
    /// UDP.
    Datagram(UdpSocket),
}

/// Makes a socket that listens on `address`, one of several that share the address (`SO_REUSEPORT`). The address
/// need not be on an interface yet.
pub(in crate::dataplane) fn bind(
    factory: &dyn SocketFactory,
    transport: Transport,
    address: SocketAddr,
) -> io::Result<ListeningSocket> {
    let domain = Domain::for_address(address);
    Ok(match transport {
        Transport::Tcp => {
            let socket = factory.socket(domain, Type::STREAM, Some(Protocol::TCP))?;
            // Accepted sockets inherit the options.
            socket.set_tcp_nodelay(true)?;
            set_keepalive(&socket)?;
            bind_shared(&socket, address)?;
            socket.listen(BACKLOG.into())?;
            ListeningSocket::Stream(socket.into())
        }
        Transport::Udp => {
            let socket = factory.socket(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_recv_buffer_size(DATAGRAM_BUFFER)?;
            // Each datagram comes with the number of hops that it has left.
            if address.is_ipv4() {
                setsockopt(&socket, Ipv4RecvTtl, &true)?;
            } else {
                setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
            }
            bind_shared(&socket, address)?;
            ListeningSocket::Datagram(socket.into())
        }
    })
}

fn bind_shared(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())
}

/// Makes the kernel probe an idle peer of a TCP socket.
pub(in crate::dataplane) fn set_keepalive(socket: &Socket) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}
