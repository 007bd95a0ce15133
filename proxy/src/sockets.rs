//! Socket factories: the rest of the proxy never names a network namespace.

use std::{io, net::IpAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Makes sockets in some network namespace.
///
/// A socket belongs for life to the namespace that it was made in, and so do the sockets that it accepts: it
/// can be bound, connected and used from anywhere.
pub trait SocketFactory: Send + Sync + 'static {
    /// Makes a socket as socket(2) does, non-blocking and closed on exec.
    ///
    /// # Errors
    /// The kernel's error; also when the namespace is gone.
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket>;

    /// Local address of the next connection to a backend; `None`: as the kernel chooses.
    fn source(&self, _to: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// Makes sockets in the namespace of the process itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNamespace;

impl SocketFactory for OwnNamespace {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        Socket::new(domain, kind.nonblocking().cloexec(), protocol)
    }
}
