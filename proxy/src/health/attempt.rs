//! One probe, from connecting to its outcome, on a socket that never blocks.
//!
//! Nobody waits for the socket: it is looked at, soon at first and then ever more rarely. Nearly all backends have answered by
//! the first look, so that a probe costs two or three system calls and no wake-up of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::Socket;

use super::check::{Check, Http, Kind};
use super::outcome::{Outcome, Reason};
use super::status_line::{self, StatusLine};

/// From the start of a probe to the first look at it, and the granularity of the checker's clock.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Longest pause between two looks. An answer is seen within this, or half of its age if that is less.
const RAREST_LOOK: Duration = Duration::from_millis(500);

/// What all probes of a thread share, one after the other.
pub(super) struct Scratch {
    request: String,
    answer: Vec<u8>,
}

/// A probe in flight.
#[derive(Debug)]
pub(super) struct Attempt {
    socket: Socket,
    address: SocketAddr,
    check: Arc<Check>,
    started: Instant,
    exchange: Exchange,
}

/// How far an HTTP check has come. A TCP check is at its beginning until it ends.
#[derive(Debug)]
enum Exchange {
    /// The bytes of the request that are sent.
    Sending(usize),
    /// A status line that came in pieces.
    Receiving(Vec<u8>),
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { request: String::new(), answer: vec![0; status_line::LONGEST] }
    }
}

impl Attempt {
    /// Starts to connect.
    ///
    /// # Errors
    /// The socket, and the outcome where there is one at once.
    pub(super) fn start(
        socket: Socket,
        address: SocketAddr,
        check: Arc<Check>,
        now: Instant,
    ) -> Result<Self, (Socket, Outcome)> {
        // Holds back the handshake's last packet. A TCP check is reset before, and the backend's process never sees
        // (nor logs) it; a request carries it along. Where it fails the probe is as good, only less polite.
        let _ = socket.set_tcp_quickack(false);
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err((socket, Outcome::of_connect(error))),
        }
        Ok(Self { socket, address, check, started: now, exchange: Exchange::Sending(0) })
    }

    /// Sees how far it has come.
    pub(super) fn look(&mut self, now: Instant, scratch: &mut Scratch) -> Poll<Outcome> {
        match self.proceed(scratch) {
            Poll::Pending if now >= self.deadline() => Poll::Ready(Outcome::Bad(Reason::NoAnswer)),
            poll => poll,
        }
    }

    /// When to look next.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        let age = now.saturating_duration_since(self.started);
        (now + (age / 2).clamp(TICK, RAREST_LOOK)).min(self.deadline())
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Its address, and its socket in whatever state it is.
    pub(super) fn into_socket(self) -> (SocketAddr, Socket) {
        (self.address, self.socket)
    }

    fn deadline(&self) -> Instant {
        self.started + self.check.timeout()
    }

    fn proceed(&mut self, scratch: &mut Scratch) -> Poll<Outcome> {
        let Kind::Http(http) = self.check.kind() else { return connected(&self.socket, self.address) };
        match &mut self.exchange {
            Exchange::Receiving(pieces) => receive(&self.socket, http, pieces, &mut scratch.answer),
            Exchange::Sending(sent) => {
                http.write_request(self.address, &mut scratch.request);
                let rest = scratch.request.as_bytes().get(*sent..).unwrap_or_default();
                match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                    Ok(count) if count < rest.len() => *sent += count,
                    Ok(_) => self.exchange = Exchange::Receiving(Vec::new()),
                    // Not connected yet is EAGAIN, too.
                    Err(error) => return pending_or(error),
                }
                Poll::Pending
            }
        }
    }
}

/// To connect again tells how the first connect went.
fn connected(socket: &Socket, address: SocketAddr) -> Poll<Outcome> {
    match rustix::net::connect(socket, &address) {
        Ok(()) | Err(Errno::ISCONN) => Poll::Ready(Outcome::Good),
        Err(error) => pending_or(error),
    }
}

fn receive(socket: &Socket, http: &Http, pieces: &mut Vec<u8>, buffer: &mut [u8]) -> Poll<Outcome> {
    let count = match rustix::io::read(socket, &mut *buffer) {
        Ok(0) => return Poll::Ready(Outcome::Bad(Reason::Closed)),
        Ok(count) => count,
        Err(error) => return pending_or(error),
    };
    let received = buffer.get(..count).unwrap_or_default();
    let parsed = match pieces.is_empty() {
        true => status_line::parse(received),
        false => {
            pieces.extend_from_slice(received);
            status_line::parse(pieces)
        }
    };
    match parsed {
        StatusLine::Code(code) if http.expected().contains(code) => Poll::Ready(Outcome::Good),
        StatusLine::Code(code) => Poll::Ready(Outcome::Bad(Reason::Code(code))),
        StatusLine::NotHttp => Poll::Ready(Outcome::Bad(Reason::NotHttp)),
        StatusLine::Incomplete => {
            if pieces.is_empty() {
                pieces.extend_from_slice(received);
            }
            Poll::Pending
        }
    }
}

fn pending_or(error: Errno) -> Poll<Outcome> {
    match error {
        Errno::AGAIN | Errno::ALREADY | Errno::INPROGRESS | Errno::INTR => Poll::Pending,
        error => Poll::Ready(Outcome::of_network(error)),
    }
}
