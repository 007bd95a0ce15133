//! Share of one direction of a connection in the bandwidth of its listener.

use std::{sync::Arc, time::Instant};

use rustix::io::ioctl_fionread;
use tokio::net::TcpStream;

use crate::dataplane::listen::{Bandwidth, Way};

/// Grant of one direction, if it has one.
#[derive(Debug)]
pub(super) struct Meter {
    bandwidth: Arc<Bandwidth>,
    way: Way,
    /// Bytes that it may read, from a time on.
    granted: usize,
    ready: Instant,
}

impl Meter {
    /// A meter without a grant.
    pub(super) fn new(bandwidth: &Arc<Bandwidth>, way: Way) -> Box<Self> {
        Box::new(Self { bandwidth: Arc::clone(bandwidth), way, granted: 0, ready: Instant::now() })
    }

    /// Number of bytes that may be read from a socket that has some.
    ///
    /// # Errors
    /// The time at which there are any.
    pub(super) fn room(&mut self, from: &TcpStream) -> Result<usize, Instant> {
        let now = Instant::now();
        if self.granted == 0 {
            let grant = self.bandwidth.grant();
            if self.bandwidth.take(self.way, grant, now) {
                (self.granted, self.ready) = (grant, now);
            } else {
                // No more than what is there: others wait for it. The end of a stream is no byte.
                let there = ioctl_fionread(from).ok().and_then(|there| usize::try_from(there).ok());
                self.granted = there.unwrap_or(grant).clamp(1, grant);
                self.ready = self.bandwidth.reserve(self.way, self.granted, now);
            }
        }
        if self.ready > now { Err(self.ready) } else { Ok(self.granted) }
    }

    /// Records that so many bytes were read, and gives back the rest.
    pub(super) fn settle(&mut self, read: usize) {
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
