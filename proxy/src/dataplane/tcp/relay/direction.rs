//! Bytes from one socket to another, one way.
//!
//! A direction at rest holds nothing: the buffer is the thread's, and a pipe goes back as soon as it is empty. What the receiver does
//! not take at once is kept, and no more is read until it is gone.

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
    Tools,
    bulk::Bulk,
    idle::Waits,
    pipe::{Fill, Pipe},
};

/// How many bytes one direction may move before the other connections of the thread get their turn.
const MOST: usize = 1024 * 1024;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    holds: Holds,
    bulk: Bulk,
    splices: bool,
    /// The sender has said its last.
    ended: bool,
    /// Something was read or taken in this turn.
    stirred: bool,
    /// The other direction is through.
    last: bool,
}

/// Bytes on their way.
#[derive(Debug, Default)]
enum Holds {
    #[default]
    Nothing,
    /// Read, and not yet taken by the receiver.
    Bytes(Rest),
    /// In a pipe.
    Pipe(Pipe),
    /// All are delivered, and the end as well.
    Delivered,
    /// The receiver takes no more; what it still has to say may come the other way.
    Refused,
}

#[derive(Debug)]
struct Rest {
    bytes: Box<[u8]>,
    written: usize,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Nothing to do until a socket is ready.
    Waits(Waits),
    /// There is more to do, after the others.
    Again,
}

/// What one turn has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// How many bytes the receiver has taken.
    pub(super) moved: usize,
    /// Whether the sender said, or the receiver took, anything.
    pub(super) stirred: bool,
    pub(super) pause: Pause,
}

/// What a step of a turn has come to.
enum Step {
    Moved(usize),
    Waits(Waits),
}

impl Direction {
    /// Says that the connection is closed as soon as this direction is through: its end need not be told apart.
    pub(super) fn is_last(&mut self) {
        self.last = true;
    }

    /// Whether there is nothing left to do.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.holds, Holds::Delivered | Holds::Refused)
    }

    /// Moves what can be moved, up to a limit.
    ///
    /// # Errors
    /// The sender's connection is broken.
    pub(super) fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        tools: &Tools,
    ) -> io::Result<Turn> {
        self.stirred = false;
        let mut moved = 0;
        let pause = loop {
            if moved >= MOST {
                break Pause::Again;
            }
            match self.step(cx, from, to, tools, moved)? {
                Step::Moved(bytes) => moved += bytes,
                Step::Waits(waits) => break Pause::Waits(waits),
            }
        };
        self.note(moved);
        Ok(Turn { moved, stirred: self.stirred, pause })
    }

    /// Whether the receiver has refused bytes.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.holds, Holds::Refused)
    }

    /// Gives back what is borrowed.
    pub(super) fn release(&mut self, tools: &Tools) {
        if let Holds::Pipe(pipe) = std::mem::replace(&mut self.holds, Holds::Delivered) {
            tools.pipes.give_back(pipe);
        }
    }

    fn note(&mut self, moved: usize) {
        if moved > 0 {
            self.bulk.note(moved);
            self.splices &= !self.bulk.is_over();
        }
    }

    fn step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        tools: &Tools,
        moved: usize,
    ) -> io::Result<Step> {
        match &mut self.holds {
            Holds::Delivered | Holds::Refused => Ok(Step::Waits(Waits::Over)),
            Holds::Bytes(_) => Ok(self.write_rest(cx, to)),
            Holds::Pipe(_) => self.splice(cx, from, to, tools),
            Holds::Nothing if self.ended && self.last => {
                self.holds = Holds::Delivered;
                Ok(Step::Waits(Waits::Over))
            }
            Holds::Nothing if self.ended => Ok(self.end(cx, to)),
            Holds::Nothing => {
                self.splices |= self.bulk.is_proved(moved);
                match self.splices.then(|| tools.pipes.lend()).flatten() {
                    Some(pipe) => {
                        self.holds = Holds::Pipe(pipe);
                        self.splice(cx, from, to, tools)
                    }
                    None => self.copy(cx, from, to, tools),
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
        tools: &Tools,
    ) -> io::Result<Step> {
        let mut buffer = tools.buffer.borrow_mut();
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(from).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(Step::Waits(Waits::Read)),
            Poll::Ready(result) => result?,
        }
        self.stirred = true;
        let bytes = buffer.filled();
        self.ended = bytes.is_empty();
        Ok(Step::Moved(self.write(cx, to, bytes)))
    }

    /// Writes bytes, and keeps what the receiver does not take.
    fn write(&mut self, cx: &mut Context<'_>, to: &mut TcpStream, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(_)) => {
                    self.holds = Holds::Refused;
                    break;
                }
                Poll::Pending => {
                    self.holds = Holds::Bytes(Rest { bytes: rest.into(), written: 0 });
                    break;
                }
            }
        }
        bytes.len() - rest.len()
    }

    fn write_rest(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Step {
        let Holds::Bytes(rest) = &mut self.holds else { return Step::Moved(0) };
        let left = rest.bytes.get(rest.written..).unwrap_or_default();
        match Pin::new(to).poll_write(cx, left) {
            Poll::Pending => Step::Waits(Waits::Write),
            Poll::Ready(Ok(written)) => {
                self.stirred = true;
                rest.written += written;
                if rest.written >= rest.bytes.len() {
                    self.holds = Holds::Nothing;
                }
                Step::Moved(written)
            }
            Poll::Ready(Err(_)) => {
                self.holds = Holds::Refused;
                Step::Waits(Waits::Over)
            }
        }
    }

    /// Fills the pipe as far as it goes, then empties it.
    fn splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        to: &TcpStream,
        tools: &Tools,
    ) -> io::Result<Step> {
        let Holds::Pipe(pipe) = &mut self.holds else { return Ok(Step::Moved(0)) };
        // What the receiver does not take must not be added to: the sender would seem to get on.
        if !pipe.is_empty() && to.poll_write_ready(cx).is_pending() {
            return Ok(Step::Waits(Waits::Write));
        }
        if !self.ended {
            let before = pipe.filled();
            match pipe.fill(cx, from) {
                Poll::Ready(Ok(fill)) => {
                    self.ended = fill == Fill::End;
                    self.stirred |= self.ended || pipe.filled() > before;
                }
                Poll::Ready(Err(error)) => {
                    self.release(tools);
                    return Err(error);
                }
                Poll::Pending => {
                    self.put_away(tools);
                    return Ok(Step::Waits(Waits::Read));
                }
            }
        }
        if pipe.is_empty() {
            self.put_away(tools);
            return Ok(Step::Moved(0));
        }
        match pipe.drain(cx, to) {
            Poll::Ready(Ok(bytes)) => {
                self.stirred = true;
                Ok(Step::Moved(bytes))
            }
            Poll::Ready(Err(_)) => {
                self.release(tools);
                self.holds = Holds::Refused;
                Ok(Step::Waits(Waits::Over))
            }
            Poll::Pending => Ok(Step::Waits(Waits::Write)),
        }
    }

    /// Gives back a pipe that is empty.
    fn put_away(&mut self, tools: &Tools) {
        self.release(tools);
        self.holds = Holds::Nothing;
    }

    /// Tells the receiver that the sender has said its last.
    fn end(&mut self, cx: &mut Context<'_>, to: &mut TcpStream) -> Step {
        match Pin::new(to).poll_shutdown(cx) {
            Poll::Pending => Step::Waits(Waits::Write),
            Poll::Ready(result) => {
                self.holds = if result.is_ok() { Holds::Delivered } else { Holds::Refused };
                Step::Waits(Waits::Over)
            }
        }
    }
}
