//! Socket factories: the rest of the proxy never names a network namespace.

use std::io;

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
}

/// Makes sockets in the namespace of the process itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNamespace;

impl SocketFactory for OwnNamespace {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        Socket::new(domain, kind.nonblocking().cloexec(), protocol)
    }
}
