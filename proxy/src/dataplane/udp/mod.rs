//! UDP: relays the datagrams of clients to backends and back, in sessions.
//!
//! A session is what comes from one address and port of a client to one endpoint. It has a backend, and a socket of
//! its own that is connected to it, so that the kernel sorts the backend's answers, and tells when the backend does
//! not listen. It ends when no datagram has passed for the idle timeout, in either direction.
//!
//! `receiver` reads an endpoint's socket, a `port`; `sessions` keeps its sessions, `session` is the life of one; `upstream`
//! reaches a backend; `replies` takes the answers back; `batch` are the system calls, each for many datagrams; `wheel` is the
//! idle timeout. Nothing here waits for anybody: what cannot be sent at once is dropped, and counted.

mod admission;
mod batch;
mod failed;
mod hops;
mod port;
mod receiver;
mod refusal;
mod replies;
mod session;
mod sessions;
mod upstream;
mod wheel;

use std::{cell::RefCell, io, net::UdpSocket, rc::Rc};

use tokio::io::{Interest, unix::AsyncFd};

pub(in crate::dataplane) use self::receiver::Receiver;
use self::{batch::Inbox, replies::Replies};

/// A socket that is awaited.
type DatagramSocket = AsyncFd<UdpSocket>;

/// Registers a socket with the thread's runtime, to be told of datagrams and errors alone: that there is room to send
/// again, as after each datagram, would wake the thread in vain.
fn register(socket: UdpSocket) -> io::Result<DatagramSocket> {
    // SAFETY: a socket has one descriptor for life, and nothing replaces the one that is registered.
    #[expect(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(registered?)
}

/// Buffers that all UDP sessions of one thread share.
#[derive(Debug)]
pub(in crate::dataplane) struct UdpResources {
    inbox: RefCell<Inbox>,
    replies: Rc<Replies>,
}

impl UdpResources {
    /// Buffers for a worker. Needs its runtime.
    pub(in crate::dataplane) fn start() -> Rc<Self> {
        Rc::new(Self { inbox: RefCell::default(), replies: Replies::start() })
    }
}
