//! Copies bytes both ways between a client and a backend until both have said their last, one of them breaks, or both are still for
//! too long.
//!
//! Short flows are copied through one buffer per thread; a flow that proves bulky goes through a pipe with splice(2). A connection
//! at rest holds neither.

mod bulk;
mod direction;
mod idle;
mod pipe;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::Sleep};

pub(super) use self::pipe::MAX_PIPES;
use self::{
    direction::{Direction, Pause, Turn},
    idle::Waits,
    pipe::Pipes,
};
use super::configuration::Limits;

/// The size of a thread's buffer. Also the most that is kept of a flow whose receiver does not take it.
const BUFFER: usize = 64 * 1024;

/// What the connections of one thread share.
#[derive(Debug)]
pub(super) struct Tools {
    buffer: RefCell<Box<[u8]>>,
    pipes: Pipes,
}

impl Tools {
    pub(super) fn new() -> Self {
        Self { buffer: RefCell::new(vec![0; BUFFER].into()), pipes: Pipes::default() }
    }
}

/// How a relayed connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides have said their last, and all of it is delivered.
    Closed,
    /// One side was reset.
    Reset,
    /// Nothing moved for too long.
    TimedOut,
}

/// Bytes that have gone either way since they were last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    /// From the client to the backend.
    pub(super) up: usize,
    /// From the backend to the client.
    pub(super) down: usize,
}

/// Relays until the end. `report` is told what has moved, at every wake-up that moved something.
pub(super) async fn relay(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    limits: &Limits,
    tools: &Tools,
    report: impl Fn(Moved),
) -> End {
    let mut relay = Relay { up: Direction::default(), down: Direction::default(), tools };
    let started = Instant::now();
    let timer = pin!(tokio::time::sleep_until(started.into()));
    let mut stillness = Stillness { moved: started, armed: None, timer };
    poll_fn(|cx| {
        let Ok((up, down)) = relay.turn(cx, client, backend) else { return Poll::Ready(End::Reset) };
        if up.stirred || down.stirred {
            report(Moved { up: up.moved, down: down.moved });
            stillness.moved = Instant::now();
        }
        match (up.pause, down.pause) {
            (Pause::Waits(Waits::Over), Pause::Waits(Waits::Over)) => Poll::Ready(relay.end()),
            (Pause::Waits(up), Pause::Waits(down)) => stillness.poll(cx, idle::patience(limits, up, down)),
            _ => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Both directions, and where pipes go when the connection ends in any way.
struct Relay<'a> {
    up: Direction,
    down: Direction,
    tools: &'a Tools,
}

impl Relay<'_> {
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut TcpStream,
        backend: &mut TcpStream,
    ) -> io::Result<(Turn, Turn)> {
        if self.down.is_over() {
            self.up.is_last();
        }
        let up = self.up.turn(cx, client, backend, self.tools)?;
        if self.up.is_over() {
            self.down.is_last();
        }
        let down = self.down.turn(cx, backend, client, self.tools)?;
        Ok((up, down))
    }

    fn end(&self) -> End {
        if self.up.is_refused() || self.down.is_refused() { End::Reset } else { End::Closed }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.up.release(self.tools);
        self.down.release(self.tools);
    }
}

/// Since when nothing has moved. The timer is not touched when something does: it goes off, finds that it was too early, and is set
/// anew.
struct Stillness<'a> {
    moved: Instant,
    armed: Option<Instant>,
    timer: Pin<&'a mut Sleep>,
}

impl Stillness<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, patience: Option<Duration>) -> Poll<End> {
        let Some(due) = idle::due(self.moved, patience) else { return Poll::Pending };
        if self.armed.is_some_and(|armed| armed <= due) && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        if self.armed == Some(due) {
            return Poll::Ready(End::TimedOut);
        }
        self.armed = Some(due);
        self.timer.as_mut().reset(due.into());
        self.timer.as_mut().poll(cx).map(|()| End::TimedOut)
    }
}
