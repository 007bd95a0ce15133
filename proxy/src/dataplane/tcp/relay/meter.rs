//! Share of one direction of a connection in the bandwidth of its listener.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::ioctl_fionread;
use tokio::net::TcpStream;

use crate::dataplane::listen::{Bandwidth, ByteTurn, Way};

/// Longest time after which who waits looks at its turn again: the rate may have changed meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// Grant of one direction, if it has one.
#[derive(Debug)]
pub(super) struct Meter {
    bandwidth: Arc<Bandwidth>,
    way: Way,
    /// Bytes that it may read, from its turn on.
    granted: usize,
    turn: Option<ByteTurn>,
    /// Time before which that has not come.
    look_at: Instant,
}

impl Meter {
    /// A meter without a grant.
    pub(super) fn new(bandwidth: &Arc<Bandwidth>, way: Way) -> Box<Self> {
        let bandwidth = Arc::clone(bandwidth);
        Box::new(Self { bandwidth, way, granted: 0, turn: None, look_at: Instant::now() })
    }

    /// Number of bytes that may be read from a socket that has some, or its end.
    ///
    /// # Errors
    /// The time at which there may be any.
    pub(super) fn room(&mut self, from: &TcpStream) -> Result<usize, Instant> {
        let now = Instant::now();
        if self.granted == 0 {
            let grant = self.bandwidth.grant();
            if self.bandwidth.take(self.way, grant, now) {
                self.granted = grant;
                return Ok(grant);
            }
            let there = ioctl_fionread(from).ok().and_then(|there| usize::try_from(there).ok());
            if there == Some(0) {
                // The end of a stream is no byte, and waits behind nobody's.
                return Ok(1);
            }
            // No more than what is there: others wait for it.
            self.granted = there.unwrap_or(grant).min(grant);
            self.turn = self.bandwidth.reserve(self.way, self.granted, now);
            self.look_at = now;
        }
        let Some(turn) = self.turn else { return Ok(self.granted) };
        if self.look_at <= now {
            let Some(wait) = self.bandwidth.wait(self.way, turn, now) else {
                self.turn = None;
                return Ok(self.granted);
            };
            self.look_at = now + wait.min(LOOK);
        }
        Err(self.look_at)
    }

    /// Records that so many bytes were read, and returns the rest of the grant.
    pub(super) fn settle(&mut self, read: usize) {
        self.turn = None;
        let left = std::mem::take(&mut self.granted).saturating_sub(read);
        if left > 0 {
            self.bandwidth.give_back(self.way, left);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle(0);
    }
}
