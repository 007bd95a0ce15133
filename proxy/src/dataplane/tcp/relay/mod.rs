//! Copies bytes both ways between a client and a backend until both have closed their half, one of them
//! breaks, or the connection is idle for too long.
//!
//! Short flows are copied through one buffer per thread; a flow that proves bulky goes through a pipe with
//! splice(2). An idle connection holds neither.

mod bulk;
mod direction;
mod idle;
mod meter;
mod pipe;

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::Sleep};

pub(in crate::dataplane) use self::pipe::MAX_PIPES;
use self::{
    direction::{Direction, Nagle, Pause, Progress},
    idle::WaitsFor,
    meter::Meter,
    pipe::PipePool,
};
use crate::dataplane::{
    listen::{Bandwidth, Way},
    spec::Limits,
};

/// Size of a thread's buffer, in bytes. Also the most that is kept of a flow whose receiver has no room.
const BUFFER: usize = 64 * 1024;

/// Buffer and pipes that the connections of one thread share.
#[derive(Debug)]
pub(in crate::dataplane) struct RelayResources {
    buffer: RefCell<Box<[u8]>>,
    pipes: PipePool,
}

impl Default for RelayResources {
    fn default() -> Self {
        Self { buffer: RefCell::new(vec![0; BUFFER].into()), pipes: PipePool::default() }
    }
}

impl RelayResources {
    /// Lends the buffer for a moment.
    pub(super) fn with_buffer<T>(&self, used: impl FnOnce(&mut [u8]) -> T) -> T {
        used(&mut self.buffer.borrow_mut())
    }
}

/// End of a relayed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RelayEnd {
    /// Both sides have closed their half, and all bytes are delivered.
    Closed,
    /// The client has reset its connection, or takes no more.
    ClientReset,
    /// The same of the backend.
    BackendReset,
    /// It was idle for too long.
    TimedOut,
    /// The same, with one direction finished.
    HalfClosed,
}

/// State of a connection to a backend that has just been made.
#[derive(Clone, Copy, Debug)]
pub(super) struct FreshBackend {
    /// True if the kernel keeps the last step of the handshake for the first bytes.
    pub(super) delays_ack: bool,
    /// True if something was sent already.
    pub(super) is_written: bool,
}

/// Bytes that were delivered since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transferred {
    /// From the client to the backend.
    pub(super) up: usize,
    /// From the backend to the client.
    pub(super) down: usize,
}

/// Relays until the end, no faster than the bandwidth of the listener allows. `report` is called at every wake-up that was not in vain.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn has room for its arguments twice, as long as it lives"
)]
pub(super) fn relay(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    (fresh, clients_speak_first): (FreshBackend, &Cell<bool>),
    limits: &Limits,
    bandwidth: Option<&Arc<Bandwidth>>,
    resources: &RelayResources,
    report: impl Fn(Transferred),
) -> impl Future<Output = RelayEnd> {
    async move {
        let meter = |way| bandwidth.map(|bandwidth| Meter::new(bandwidth, way));
        // Clients' sockets have the option from the listening one.
        let nagle = if fresh.is_written { Nagle::Active } else { Nagle::Unwritten };
        let up = Direction::new(meter(Way::Up), nagle);
        let mut relay = Relay { up, down: Direction::new(meter(Way::Down), Nagle::Off), resources };
        let mut fresh = Some(fresh);
        let started = Instant::now();
        let timer = pin!(tokio::time::sleep_until(started.into()));
        let mut idle = IdleTimer { active: started, armed: None, timer };
        poll_fn(|cx| {
            let (up, down) = relay.advance(cx, client, backend);
            if let Some(fresh) = fresh.take() {
                clients_speak_first.set(up.bytes > 0);
                if fresh.delays_ack {
                    // The handshake ends at once if there was nothing to send with it. From now on it acknowledges as
                    // others do.
                    let _ = backend.set_quickack(true);
                }
            }
            if up.active || down.active {
                report(Transferred { up: up.bytes, down: down.bytes });
                idle.active = Instant::now();
            }
            match (up.pause, down.pause) {
                (Pause::Broken, _) => Poll::Ready(RelayEnd::ClientReset),
                (_, Pause::Broken) => Poll::Ready(RelayEnd::BackendReset),
                (Pause::Until(WaitsFor::Nothing), Pause::Until(WaitsFor::Nothing)) => {
                    Poll::Ready(relay.end())
                }
                (Pause::Until(up), Pause::Until(down)) => match idle::bandwidth(up, down) {
                    None => idle.poll(cx, idle::timeout(limits, up, down)),
                    Some(ready) => idle.wait(cx, ready),
                },
                _ => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Both directions. Returns their pipes when the connection ends in any way.
struct Relay<'a> {
    up: Direction,
    down: Direction,
    resources: &'a RelayResources,
}

impl Relay<'_> {
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut TcpStream,
        backend: &mut TcpStream,
    ) -> (Progress, Progress) {
        if self.down.is_finished() {
            self.up.set_last();
        }
        let up = self.up.advance(cx, client, backend, self.resources);
        if self.up.is_finished() {
            self.down.set_last();
        }
        (up, self.down.advance(cx, backend, client, self.resources))
    }

    fn end(&self) -> RelayEnd {
        if self.up.is_refused() {
            RelayEnd::BackendReset
        } else if self.down.is_refused() {
            RelayEnd::ClientReset
        } else {
            RelayEnd::Closed
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.up.release(self.resources);
        self.down.release(self.resources);
    }
}

/// Timer of the idle timeout. It is not touched when the connection is active: it fires, finds that it was
/// too early, and is armed again.
struct IdleTimer<'a> {
    /// Time of the last activity.
    active: Instant,
    armed: Option<Instant>,
    timer: Pin<&'a mut Sleep>,
}

impl IdleTimer<'_> {
    /// Wakes the task at a time, up to which nobody is idle: a side may wait for the other one, which must not go on.
    fn wait(&mut self, cx: &mut Context<'_>, ready: Instant) -> Poll<RelayEnd> {
        (self.active, self.armed) = (Instant::now(), None);
        self.timer.as_mut().reset(ready.into());
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>, timeout: Option<(Duration, RelayEnd)>) -> Poll<RelayEnd> {
        let Some((timeout, end)) = timeout else { return Poll::Pending };
        let Some(deadline) = self.active.checked_add(timeout) else { return Poll::Pending };
        if self.armed.is_some_and(|armed| armed <= deadline) && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        if self.armed == Some(deadline) {
            return Poll::Ready(end);
        }
        self.armed = Some(deadline);
        self.timer.as_mut().reset(deadline.into());
        self.timer.as_mut().poll(cx).map(|()| end)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    pub(super) async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_the_first_look_finds_tells_whether_clients_speak_first() {
        for speaks in [true, false] {
            let ((mut remote, mut client), (mut backend, _remote)) = (pair().await, pair().await);
            if speaks {
                remote.write_all(b"hello").await.unwrap();
                client.readable().await.unwrap();
                client.peek(&mut [0]).await.unwrap();
            }
            let speaks_first = Cell::new(!speaks);
            let fresh = FreshBackend { delays_ack: true, is_written: false };
            let (limits, resources) = (Limits::default(), RelayResources::default());
            let fresh = (fresh, &speaks_first);
            let relayed = relay(&mut client, &mut backend, fresh, &limits, None, &resources, |_| {});
            // One poll.
            assert!(tokio::time::timeout(Duration::ZERO, relayed).await.is_err());
            assert_eq!(speaks_first.get(), speaks);
        }
    }
}
