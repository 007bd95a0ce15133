//! Sockets in a tenant's namespace.

use std::io;

use fiberlb_node::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sockets::SocketFactory;

/// Makes sockets in a namespace. It keeps the namespace alive, but not its name.
#[derive(Clone, Debug)]
pub struct NetnsSockets(pub Netns);

impl SocketFactory for NetnsSockets {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        self.0.run(|| Socket::new(domain, kind.nonblocking().cloexec(), protocol)).flatten()
    }
}
