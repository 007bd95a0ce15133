//! Sockets of one network, used again and again.
//!
//! connect(2) to the unspecified address resets a TCP connection and gives the socket back as new. A probe then needs no
//! socket(2), no options, no close(2) and above all no visit to the namespace, and it leaves no TIME_WAIT behind.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sockets::SocketFactory;

/// A status line is short: what a hostile backend sends beyond stays with the backend. The kernel doubles it.
const RECEIVE_BUFFER: usize = 4096;

/// Pause between two complaints about one network.
const COMPLAINT: Duration = Duration::from_secs(60);

/// A network: its factory and its idle sockets.
pub(super) struct Pool {
    factory: Arc<dyn SocketFactory>,
    v4: Idle,
    v6: Idle,
    complaint: Option<Instant>,
    unsaid: u64,
}

/// Idle sockets of one family.
#[derive(Default)]
struct Idle {
    sockets: Vec<Socket>,
    /// The fewest since the last trim: these were not needed.
    spare: usize,
}

impl Pool {
    pub(super) fn new(factory: Arc<dyn SocketFactory>) -> Self {
        Self { factory, v4: Idle::default(), v6: Idle::default(), complaint: None, unsaid: 0 }
    }

    /// Whether its sockets come from this factory.
    pub(super) fn is_of(&self, factory: &Arc<dyn SocketFactory>) -> bool {
        Arc::ptr_eq(&self.factory, factory)
    }

    /// A socket that can be connected to the address.
    pub(super) fn take(&mut self, address: SocketAddr) -> io::Result<Socket> {
        match self.idle(address).take() {
            Some(socket) => Ok(socket),
            None => self.make(address),
        }
    }

    /// Takes a socket back, and ends its connection with a reset. One that cannot be reset is closed.
    pub(super) fn give_back(&mut self, address: SocketAddr, socket: Socket) {
        if rustix::net::connect_unspec(&socket).is_ok() {
            self.idle(address).sockets.push(socket);
        }
    }

    /// Closes the sockets that were idle ever since the last call.
    pub(super) fn trim(&mut self) {
        self.v4.trim();
        self.v6.trim();
    }

    /// Whether to log a complaint now, and how many were not logged before it.
    pub(super) fn may_complain(&mut self, now: Instant) -> Option<u64> {
        if self.complaint.is_some_and(|last| now < last + COMPLAINT) {
            self.unsaid += 1;
            return None;
        }
        self.complaint = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    fn make(&self, address: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(address);
        let socket = self.factory.socket(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        Ok(socket)
    }

    fn idle(&mut self, address: SocketAddr) -> &mut Idle {
        match address {
            SocketAddr::V4(_) => &mut self.v4,
            SocketAddr::V6(_) => &mut self.v6,
        }
    }
}

impl Idle {
    fn take(&mut self) -> Option<Socket> {
        let socket = self.sockets.pop();
        self.spare = self.spare.min(self.sockets.len());
        socket
    }

    fn trim(&mut self) {
        // Those at the front were idle the longest.
        self.sockets.drain(..self.spare.min(self.sockets.len()));
        self.spare = self.sockets.len();
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::sockets::OwnNamespace;

    fn pool() -> Pool {
        Pool::new(Arc::new(OwnNamespace))
    }

    #[test]
    fn a_socket_is_used_again_after_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut pool = pool();
        let mut descriptors = Vec::new();
        for _ in 0..3 {
            let socket = pool.take(address).unwrap();
            descriptors.push(socket.as_raw_fd());
            socket.set_nonblocking(false).unwrap();
            socket.connect(&address.into()).unwrap();
            pool.give_back(address, socket);
        }
        assert!(descriptors.windows(2).all(|pair| pair[0] == pair[1]), "{descriptors:?}");
    }

    #[test]
    fn sockets_that_were_not_needed_are_closed() {
        let (v4, v6): (SocketAddr, SocketAddr) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let mut pool = pool();
        let sockets: Vec<_> = (0..5).map(|_| pool.take(v4).unwrap()).collect();
        sockets.into_iter().for_each(|socket| pool.give_back(v4, socket));
        pool.trim();
        assert_eq!((pool.v4.sockets.len(), pool.v6.sockets.len()), (5, 0));
        let busy = [pool.take(v4).unwrap(), pool.take(v4).unwrap(), pool.take(v6).unwrap()];
        let [a, b, c] = busy;
        pool.give_back(v4, a);
        pool.give_back(v4, b);
        pool.give_back(v6, c);
        pool.trim();
        assert_eq!((pool.v4.sockets.len(), pool.v6.sockets.len()), (2, 1));
    }

    #[test]
    fn complaints_are_counted_and_rarely_made() {
        let (mut pool, now) = (pool(), Instant::now());
        assert_eq!(pool.may_complain(now), Some(0));
        assert_eq!(pool.may_complain(now + COMPLAINT / 2), None);
        assert_eq!(pool.may_complain(now + COMPLAINT), Some(1));
    }
}
