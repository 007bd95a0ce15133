//! Pipes for splice(2), lent to flows that have bytes on their way.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

/// Capacity that a pipe is asked to have, in bytes. An unprivileged process that has many gets smaller ones.
const CAPACITY: usize = 512 * 1024;

/// Bytes of one splice below which the socket is likely empty: drain before filling on.
const LARGE_SPLICE: usize = 64 * 1024;

/// Most pipes of a worker: those that clients which do not read can tie up, with two descriptors each.
pub(in crate::dataplane) const MAX_PIPES: usize = 512;

/// Most unused pipes that a worker keeps.
const SPARE_PIPES: usize = 32;

/// A pipe and the number of bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
}

/// Result of filling a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FillResult {
    /// There are bytes in the pipe, and maybe more in the socket.
    Some,
    /// The peer has closed its half.
    End,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A smaller pipe works too, only more often.
        let _ = fcntl_setpipe_size(&writer, CAPACITY);
        Ok(Self { reader, writer, filled: 0 })
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Fills the pipe from a socket, with at most so many bytes, which is not 0. Pending only if the pipe is empty; the task is
    /// woken when bytes come.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: usize,
    ) -> Poll<io::Result<FillResult>> {
        let mut left = most;
        loop {
            if self.is_empty() {
                ready!(from.poll_read_ready(cx))?;
            }
            match from.try_io(Interest::READABLE, || self.splice_in(from, left)) {
                Ok(Some(0)) => return Poll::Ready(Ok(FillResult::End)),
                Ok(Some(bytes)) if bytes >= LARGE_SPLICE && self.filled < CAPACITY && bytes < left => {
                    left -= bytes;
                }
                Ok(_) => return Poll::Ready(Ok(FillResult::Some)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.is_empty() {
                        return Poll::Ready(Ok(FillResult::Some));
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Splices once into the pipe. With bytes in the pipe, EAGAIN may mean that it is full, which does not
    /// concern the socket: that is None, and not an error that would clear the socket's readiness.
    fn splice_in(&mut self, from: &TcpStream, most: usize) -> io::Result<Option<usize>> {
        match transfer(from, &self.writer, CAPACITY.min(most)) {
            Ok(bytes) => {
                self.filled += bytes;
                Ok(Some(bytes))
            }
            Err(Errno::AGAIN) if !self.is_empty() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties the pipe into a socket as far as that has room. Pending if it has none.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            let drained = to.try_io(Interest::WRITABLE, || Ok(transfer(&self.reader, to, self.filled)?));
            match drained {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    self.filled = self.filled.saturating_sub(bytes);
                    return Poll::Ready(Ok(bytes));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn transfer(from: impl AsFd, to: impl AsFd, most: usize) -> Result<usize, Errno> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// The pipes of one worker.
#[derive(Debug, Default)]
pub(super) struct PipePool(RefCell<PipeStock>);

#[derive(Debug, Default)]
struct PipeStock {
    spare: Vec<Pipe>,
    lent: usize,
}

impl PipePool {
    /// Lends an empty pipe; None if too many are in use, or the process has no descriptors left: then bytes
    /// are copied.
    pub(super) fn lend(&self) -> Option<Pipe> {
        let mut stock = self.0.borrow_mut();
        if stock.lent >= MAX_PIPES {
            return None;
        }
        let pipe = stock.spare.pop().or_else(|| Pipe::new().ok())?;
        stock.lent += 1;
        Some(pipe)
    }

    /// Returns a pipe. One with bytes in it, of a flow that broke, is closed.
    pub(super) fn return_pipe(&self, pipe: Pipe) {
        let mut stock = self.0.borrow_mut();
        stock.lent = stock.lent.saturating_sub(1);
        if pipe.is_empty() && stock.spare.len() < SPARE_PIPES {
            stock.spare.push(pipe);
        }
    }
}
