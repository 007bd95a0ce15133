//! Reusable sockets of one network.
//!
//! connect(2) to the unspecified address resets a TCP connection and makes the socket as new. A probe then
//! needs no socket(2), no options, no close(2) and above all no change of namespace, and it leaves no
//! TIME_WAIT behind.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sockets::SocketFactory;

/// Size of a socket's receive buffer, in bytes, which the kernel doubles. A status line is short: more that a
/// hostile backend sends stays with the backend.
const RECEIVE_BUFFER: usize = 4096;

/// Least time between two lines of the log about one network.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A network: its factory and its idle sockets.
pub(super) struct SocketPool {
    factory: Arc<dyn SocketFactory>,
    v4: Idle,
    v6: Idle,
    logged_at: Option<Instant>,
    suppressed: u64,
}

/// Idle sockets of one family.
#[derive(Default)]
struct Idle {
    sockets: Vec<Socket>,
    /// Least number since the last trim: these were not needed.
    spare: usize,
}

impl SocketPool {
    pub(super) fn new(factory: Arc<dyn SocketFactory>) -> Self {
        Self { factory, v4: Idle::default(), v6: Idle::default(), logged_at: None, suppressed: 0 }
    }

    /// True if its sockets come from this factory.
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

    /// Returns a socket, and ends its connection with a reset. One that cannot be reset is closed.
    pub(super) fn return_socket(&mut self, address: SocketAddr, socket: Socket) {
        if rustix::net::connect_unspec(&socket).is_ok() {
            self.idle(address).sockets.push(socket);
        }
    }

    /// Closes the sockets that were idle ever since the last call.
    pub(super) fn trim(&mut self) {
        self.v4.trim();
        self.v6.trim();
    }

    /// Admits a line of the log: the number of lines that were suppressed before it.
    pub(super) fn admit_log(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|last| now < last + LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
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

    fn pool() -> SocketPool {
        SocketPool::new(Arc::new(OwnNamespace))
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
            pool.return_socket(address, socket);
        }
        assert!(descriptors.windows(2).all(|pair| pair[0] == pair[1]), "{descriptors:?}");
    }

    #[test]
    fn sockets_that_were_not_needed_are_closed() {
        let (v4, v6): (SocketAddr, SocketAddr) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        let mut pool = pool();
        let sockets: Vec<_> = (0..5).map(|_| pool.take(v4).unwrap()).collect();
        sockets.into_iter().for_each(|socket| pool.return_socket(v4, socket));
        pool.trim();
        assert_eq!((pool.v4.sockets.len(), pool.v6.sockets.len()), (5, 0));
        let busy = [pool.take(v4).unwrap(), pool.take(v4).unwrap(), pool.take(v6).unwrap()];
        let [a, b, c] = busy;
        pool.return_socket(v4, a);
        pool.return_socket(v4, b);
        pool.return_socket(v6, c);
        pool.trim();
        assert_eq!((pool.v4.sockets.len(), pool.v6.sockets.len()), (2, 1));
    }

    #[test]
    fn suppressed_lines_are_counted() {
        let (mut pool, now) = (pool(), Instant::now());
        assert_eq!(pool.admit_log(now), Some(0));
        assert_eq!(pool.admit_log(now + LOG_INTERVAL / 2), None);
        assert_eq!(pool.admit_log(now + LOG_INTERVAL), Some(1));
    }
}
