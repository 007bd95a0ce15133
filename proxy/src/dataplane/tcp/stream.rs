//! Stream that is reset unless it was closed on purpose.

use tokio::net::TcpStream;

/// Resets its connection when it is dropped, whatever the reason, so that nobody takes a stream that was cut
/// for a whole one; and a peer that is gone leaves nothing behind in the kernel.
#[derive(Debug)]
pub(super) struct ResetOnDrop {
    stream: TcpStream,
    closed: bool,
}

impl ResetOnDrop {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, closed: false }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Makes the drop close it in order: all that was written still goes out.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.closed {
            // If the option cannot be set the socket is closed all the same.
            let _ = self.stream.set_zero_linger();
        }
    }
}
