//! One probe, from connecting to its outcome, on a socket that never blocks.
//!
//! No task waits for the socket: it is polled, soon at first and then ever more rarely. Nearly all backends
//! have answered by the first poll, so that a probe costs two or three system calls and no wake-up of its
//! own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use socket2::Socket;

use super::answer::{Answer, AnswerState};
use super::check::{Check, CheckKind, Http};
use super::outcome::{ProbeOutcome, Reason};
use super::status_line;

/// Time from the start of a probe to its first poll, and the granularity of the checker's clock.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Longest pause between two polls. An answer is seen within this, or half of its age if that is less.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Most bytes of an answer that are read after it was judged, and the longest time for it. A backend whose answer ends within
/// both has sent all of it, and closed the connection, before the probe's socket is reset: it meets no error that it would log.
const REST_BYTES: usize = 64 * 1024;
const REST_TIME: Duration = Duration::from_millis(100);

/// Buffers that all probes of a thread share, one after the other.
pub(super) struct Scratch {
    first: Vec<u8>,
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

/// Progress of a check. A TCP check without a header stays at the first one until it ends.
#[derive(Debug)]
enum Exchange {
    /// Number of the first bytes, header and request, that are sent.
    Sending(usize),
    /// The answer as far as it has come.
    Receiving(Answer),
    /// The answer is judged, and read to its end.
    Finishing(Rest),
}

/// Rest of an answer that is judged.
#[derive(Debug)]
struct Rest {
    outcome: ProbeOutcome,
    /// Bytes that may still be read.
    left: usize,
    /// Time at which the rest is given up.
    until: Instant,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self { first: Vec::new(), answer: vec![0; status_line::LONGEST] }
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
        has_route: bool,
        now: Instant,
    ) -> Result<Self, (Socket, ProbeOutcome)> {
        // Holds back the handshake's last packet. A TCP check is reset before, and the backend's process
        // never sees (nor logs) it; a request carries it along. Where it fails the probe is as good, only
        // less polite.
        let _ = socket.set_tcp_quickack(false);
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err((socket, ProbeOutcome::of_connect(error, has_route))),
        }
        Ok(Self { socket, address, check, started: now, exchange: Exchange::Sending(0) })
    }

    /// Polls the socket.
    pub(super) fn poll(&mut self, now: Instant, scratch: &mut Scratch) -> Poll<ProbeOutcome> {
        match self.proceed(now, scratch) {
            Poll::Pending if now >= self.deadline() => Poll::Ready(ProbeOutcome::Bad(Reason::NoAnswer)),
            poll => poll,
        }
    }

    /// Time of the next poll.
    pub(super) fn next_poll(&self, now: Instant) -> Instant {
        if let Exchange::Finishing(rest) = &self.exchange {
            return (now + TICK).min(rest.until);
        }
        let age = now.saturating_duration_since(self.started);
        (now + (age / 2).clamp(TICK, LONGEST_PAUSE)).min(self.deadline())
    }

    /// Time of its start.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Its address, and its socket in whatever state it is.
    pub(super) fn into_socket(self) -> (SocketAddr, Socket) {
        (self.address, self.socket)
    }

    /// Ends a TCP check that has sent its header: nothing follows, and a backend that reads to the end meets no reset.
    fn end_of_header(&self, now: Instant) -> Rest {
        // A connection that is broken by now was accepted all the same.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        Rest { outcome: ProbeOutcome::Good, left: REST_BYTES, until: (now + REST_TIME).min(self.deadline()) }
    }

    fn deadline(&self) -> Instant {
        self.started + self.check.timeout()
    }

    fn proceed(&mut self, now: Instant, scratch: &mut Scratch) -> Poll<ProbeOutcome> {
        let deadline = self.deadline();
        let http = match self.check.kind() {
            CheckKind::Tcp if !self.check.has_header() => return connected(&self.socket, self.address),
            CheckKind::Tcp => None,
            CheckKind::Http(http) => Some(http),
        };
        match &mut self.exchange {
            Exchange::Sending(sent) => {
                // It has its address as soon as it connects.
                let local = || self.socket.local_addr().ok()?.as_socket();
                let local = self.check.has_header().then(local).flatten();
                self.check.write_first(local, self.address, &mut scratch.first);
                let rest = scratch.first.get(*sent..).unwrap_or_default();
                match rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL) {
                    Ok(count) if count < rest.len() => *sent += count,
                    Ok(_) if http.is_none() => {
                        let mut rest = self.end_of_header(now);
                        let poll = rest.read(&self.socket, now, &mut scratch.answer);
                        self.exchange = Exchange::Finishing(rest);
                        return poll;
                    }
                    Ok(_) => self.exchange = Exchange::Receiving(Answer::default()),
                    // Not connected yet is EAGAIN, too.
                    Err(error) => return pending_or(error),
                }
                Poll::Pending
            }
            Exchange::Receiving(answer) => {
                let Some(http) = http else { return Poll::Ready(ProbeOutcome::Good) };
                let outcome = match receive(&self.socket, http, answer, &mut scratch.answer) {
                    Ok(Some(outcome)) => outcome,
                    Ok(None) => return Poll::Pending,
                    Err(outcome) => return Poll::Ready(outcome),
                };
                let mut rest = Rest { outcome, left: REST_BYTES, until: (now + REST_TIME).min(deadline) };
                let poll = rest.read(&self.socket, now, &mut scratch.answer);
                self.exchange = Exchange::Finishing(rest);
                poll
            }
            Exchange::Finishing(rest) => rest.read(&self.socket, now, &mut scratch.answer),
        }
    }
}

impl Rest {
    /// Reads on. Ready at the end of the answer, or where it is given up.
    fn read(&mut self, socket: &Socket, now: Instant, buffer: &mut [u8]) -> Poll<ProbeOutcome> {
        while self.left > 0 && now < self.until {
            match rustix::io::read(socket, &mut *buffer) {
                Ok(0) => break,
                Ok(count) => self.left = self.left.saturating_sub(count),
                Err(Errno::AGAIN | Errno::INTR) => return Poll::Pending,
                Err(_) => break,
            }
        }
        Poll::Ready(self.outcome.clone())
    }
}

/// Connects again, which returns the result of the first connect.
fn connected(socket: &Socket, address: SocketAddr) -> Poll<ProbeOutcome> {
    match rustix::net::connect(socket, &address) {
        Ok(()) | Err(Errno::ISCONN) => Poll::Ready(ProbeOutcome::Good),
        Err(error) => pending_or(error),
    }
}

/// Reads what has come of an answer: its outcome, or none yet.
///
/// # Errors
/// The outcome where nothing more is to be read.
fn receive(
    socket: &Socket,
    http: &Http,
    answer: &mut Answer,
    buffer: &mut [u8],
) -> Result<Option<ProbeOutcome>, ProbeOutcome> {
    let count = match rustix::io::read(socket, &mut *buffer) {
        Ok(0) => return Err(ProbeOutcome::Bad(Reason::Closed)),
        Ok(count) => count,
        Err(error) => {
            return match pending_or(error) {
                Poll::Pending => Ok(None),
                Poll::Ready(outcome) => Err(outcome),
            };
        }
    };
    match answer.receive(buffer.get(..count).unwrap_or_default()) {
        AnswerState::Incomplete => Ok(None),
        AnswerState::NotHttp => Err(ProbeOutcome::Bad(Reason::NotHttp)),
        AnswerState::Code(code) if http.expected().contains(code) => Ok(Some(ProbeOutcome::Good)),
        AnswerState::Code(code) => Ok(Some(ProbeOutcome::Bad(Reason::Code(code)))),
    }
}

fn pending_or(error: Errno) -> Poll<ProbeOutcome> {
    match error {
        Errno::AGAIN | Errno::ALREADY | Errno::INPROGRESS | Errno::INTR => Poll::Pending,
        error => Poll::Ready(ProbeOutcome::of_network(error)),
    }
}
