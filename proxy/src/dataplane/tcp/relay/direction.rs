//! Bytes from one socket to another, one way.
//!
//! An idle direction holds nothing: the buffer is the thread's, and a pipe is returned as soon as it is
//! empty. Bytes for which the receiver has no room are kept, and no more is read until they are sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    RelayResources,
    bulk::BulkDetector,
    idle::WaitsFor,
    meter::Meter,
    pipe::{FillResult, Pipe},
};

/// Most bytes that one direction moves before the other connections of the thread run.
const MAX_BYTES: usize = 1024 * 1024;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    state: DirectionState,
    bulk: BulkDetector,
    splices: bool,
    /// The sender has closed its half.
    at_end: bool,
    /// Bytes were read or written since the last call of `advance`.
    active: bool,
    /// The other direction is finished.
    last: bool,
    /// Nagle's algorithm at the receiver's socket.
    nagle: Nagle,
    /// Its share in the bandwidth of the listener. None: there is no limit.
    meter: Option<Box<Meter>>,
}

/// State of Nagle's algorithm at a socket. It never delays the first write, and is switched off before the second one: a
/// connection of one request goes without the system call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Nagle {
    #[default]
    Off,
    /// It is on, and nothing was written yet.
    Unwritten,
    /// It is on.
    Active,
}

impl Nagle {
    /// Prepares for a write.
    fn before_write(&mut self, to: &TcpStream) {
        *self = match self {
            Self::Unwritten => Self::Active,
            Self::Active => {
                // Without the option bytes go out later, and all the same.
                let _ = to.set_nodelay(true);
                Self::Off
            }
            Self::Off => return,
        };
    }
}

/// Bytes in flight, or the way in which the direction is finished.
#[derive(Debug, Default)]
enum DirectionState {
    /// Nothing is in flight.
    #[default]
    Empty,
    /// Bytes that were read, and that the receiver has no room for yet.
    Unsent(Unsent),
    /// Bytes in a pipe.
    Pipe(Pipe),
    /// Finished: all bytes are delivered, and the end as well.
    Delivered,
    /// Finished: the receiver accepts no more. The other direction may go on.
    Refused,
}

#[derive(Debug)]
struct Unsent {
    bytes: Box<[u8]>,
    written: usize,
}

/// Reason why a direction has stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing to do until a socket is ready.
    Until(WaitsFor),
    /// There is more to do, after the other connections.
    Yield,
    /// The sender's connection is broken.
    Broken,
}

/// Progress of one call of `advance`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Bytes that were delivered.
    pub(super) bytes: usize,
    /// True if bytes were read or written.
    pub(super) active: bool,
    pub(super) pause: Pause,
}

/// Result of one step.
enum Step {
    Moved(usize),
    Pending(WaitsFor),
}

impl Direction {
    /// A direction that reads no more than a meter allows.
    pub(super) fn new(meter: Option<Box<Meter>>, nagle: Nagle) -> Self {
        Self { meter, nagle, ..Self::default() }
    }

    /// Records that the connection is closed as soon as this direction is finished: its end need not be
    /// signalled apart.
    pub(super) fn set_last(&mut self) {
        self.last = true;
    }

    /// True if there is nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, DirectionState::Delivered | DirectionState::Refused)
    }

    /// Moves all bytes that can be moved, up to a limit.
    pub(super) fn advance(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        resources: &RelayResources,
    ) -> Progress {
        self.active = false;
        let mut bytes = 0;
        let pause = loop {
            if bytes >= MAX_BYTES {
                break Pause::Yield;
            }
            match self.step(cx, from, to, resources, bytes) {
                Ok(Step::Moved(moved)) => bytes += moved,
                Ok(Step::Pending(event)) => break Pause::Until(event),
                Err(_) => break Pause::Broken,
            }
        };
        self.record(bytes);
        Progress { bytes, active: self.active, pause }
    }

    /// True if the receiver has refused bytes.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.state, DirectionState::Refused)
    }

    /// Returns the pipe, if there is one.
    pub(super) fn release(&mut self, resources: &RelayResources) {
        if let DirectionState::Pipe(pipe) = std::mem::replace(&mut self.state, DirectionState::Delivered) {
            resources.pipes.return_pipe(pipe);
        }
    }

    fn record(&mut self, bytes: usize) {
        if bytes > 0 {
            self.bulk.record(bytes);
            self.splices &= !self.bulk.has_ended();
        }
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        resources: &RelayResources,
        moved: usize,
    ) -> io::Result<Step> {
        match &mut self.state {
            DirectionState::Delivered | DirectionState::Refused => Ok(Step::Pending(WaitsFor::Nothing)),
            DirectionState::Unsent(_) => Ok(self.write_unsent(cx, to)),
            DirectionState::Pipe(_) => self.splice(cx, from, to, resources),
            DirectionState::Empty if self.at_end && self.last => {
                self.state = DirectionState::Delivered;
                Ok(Step::Pending(WaitsFor::Nothing))
            }
            DirectionState::Empty if self.at_end => Ok(self.shut_down(cx, to)),
            DirectionState::Empty => {
                self.splices |= self.bulk.is_bulky(moved);
                match self.splices.then(|| resources.pipes.lend()).flatten() {
                    Some(pipe) => {
                        self.state = DirectionState::Pipe(pipe);
                        self.splice(cx, from, to, resources)
                    }
                    None => self.copy(cx, from, to, resources),
                }
            }
        }
    }

    /// Reads into the thread's buffer, and writes what was read.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        resources: &RelayResources,
    ) -> io::Result<Step> {
        let room = match room(&mut self.meter, cx, from) {
            Ok(room) => room,
            Err(event) => return Ok(Step::Pending(event)),
        };
        let mut buffer = resources.buffer.borrow_mut();
        let most = buffer.len().min(room);
        let mut buffer = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        let read = Pin::new(from).poll_read(cx, &mut buffer);
        settle(&mut self.meter, buffer.filled().len());
        match read {
            Poll::Pending => return Ok(Step::Pending(WaitsFor::Read)),
            Poll::Ready(result) => result?,
        }
        self.active = true;
        let bytes = buffer.filled();
        self.at_end = bytes.is_empty();
        Ok(Step::Moved(self.write(cx, to, bytes)))
    }

    /// Writes bytes, and keeps those that the receiver has no room for.
    fn write(&mut self, cx: &mut Context<'_>, to: &mut TcpStream, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.nagle.before_write(to);
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(_)) => {
                    self.state = DirectionState::Refused;
                    break;
                }
                Poll::Pending => {
                    self.state = DirectionState::Unsent(Unsent { bytes: rest.into(), written: 0 });
                    break;
                }
            }
        }
        bytes.len() - rest.len()
    }

    fn write_unsent(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Step {
        let DirectionState::Unsent(unsent) = &mut self.state else { return Step::Moved(0) };
        let left = unsent.bytes.get(unsent.written..).unwrap_or_default();
        self.nagle.before_write(to);
        match Pin::new(to).poll_write(cx, left) {
            Poll::Pending => Step::Pending(WaitsFor::Write),
            Poll::Ready(Ok(written)) => {
                self.active = true;
                unsent.written += written;
                if unsent.written >= unsent.bytes.len() {
                    self.state = DirectionState::Empty;
                }
                Step::Moved(written)
            }
            Poll::Ready(Err(_)) => {
                self.state = DirectionState::Refused;
                Step::Pending(WaitsFor::Nothing)
            }
        }
    }

    /// Fills the pipe as far as it goes, then empties it.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        resources: &RelayResources,
    ) -> io::Result<Step> {
        let DirectionState::Pipe(pipe) = &mut self.state else { return Ok(Step::Moved(0)) };
        // Bytes that the receiver has no room for must not be added to: the sender would seem to make
        // progress.
        if !pipe.is_empty() && to.poll_write_ready(cx).is_pending() {
            return Ok(Step::Pending(WaitsFor::Write));
        }
        let room = if self.at_end { Ok(0) } else { room(&mut self.meter, cx, from) };
        if let Err(event) = room
            && pipe.is_empty()
        {
            self.return_empty_pipe(resources);
            return Ok(Step::Pending(event));
        }
        if let Ok(room @ 1..) = room {
            let before = pipe.filled();
            let filled = pipe.fill(cx, from, room);
            settle(&mut self.meter, pipe.filled() - before);
            match filled {
                Poll::Ready(Ok(result)) => {
                    self.at_end = result == FillResult::End;
                    self.active |= self.at_end || pipe.filled() > before;
                }
                Poll::Ready(Err(error)) => {
                    self.release(resources);
                    return Err(error);
                }
                Poll::Pending => {
                    self.return_empty_pipe(resources);
                    return Ok(Step::Pending(WaitsFor::Read));
                }
            }
        }
        if pipe.is_empty() {
            self.return_empty_pipe(resources);
            return Ok(Step::Moved(0));
        }
        self.nagle.before_write(to);
        match pipe.drain(cx, to) {
            Poll::Ready(Ok(bytes)) => {
                self.active = true;
                Ok(Step::Moved(bytes))
            }
            Poll::Ready(Err(_)) => {
                self.release(resources);
                self.state = DirectionState::Refused;
                Ok(Step::Pending(WaitsFor::Nothing))
            }
            Poll::Pending => Ok(Step::Pending(WaitsFor::Write)),
        }
    }

    fn return_empty_pipe(&mut self, resources: &RelayResources) {
        self.release(resources);
        self.state = DirectionState::Empty;
    }

    /// Closes the receiver's half, as the sender has done.
    fn shut_down(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Step {
        match Pin::new(to).poll_shutdown(cx) {
            Poll::Pending => Step::Pending(WaitsFor::Write),
            Poll::Ready(result) => {
                self.state = if result.is_ok() { DirectionState::Delivered } else { DirectionState::Refused };
                Step::Pending(WaitsFor::Nothing)
            }
        }
    }
}

/// Number of bytes that may be read at once; never 0.
///
/// # Errors
/// The event to wait for. What is not there needs no room.
fn room(meter: &mut Option<Box<Meter>>, cx: &mut Context<'_>, from: &TcpStream) -> Result<usize, WaitsFor> {
    let Some(meter) = meter else { return Ok(usize::MAX) };
    if from.poll_read_ready(cx).is_pending() {
        return Err(WaitsFor::Read);
    }
    meter.room(from).map_err(WaitsFor::Bandwidth)
}

/// Records that so many bytes were read.
fn settle(meter: &mut Option<Box<Meter>>, read: usize) {
    if let Some(meter) = meter {
        meter.settle(read);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::{super::tests::pair, *};

    #[tokio::test]
    async fn the_second_write_switches_nagles_algorithm_off() {
        for (nagle, expected) in [
            (Nagle::Unwritten, [false, true, true]),
            (Nagle::Active, [true, true, true]),
            (Nagle::Off, [false, false, false]),
        ] {
            let ((mut client, mut from), (mut to, _backend)) = (pair().await, pair().await);
            let (mut direction, resources) = (Direction::new(None, nagle), RelayResources::default());
            for expected in expected {
                client.write_all(b"hello").await.unwrap();
                poll_fn(|cx| {
                    let progress = direction.advance(cx, &mut from, &mut to, &resources);
                    if progress.bytes > 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                assert_eq!(to.nodelay().unwrap(), expected, "{nagle:?}");
            }
        }
    }
}
