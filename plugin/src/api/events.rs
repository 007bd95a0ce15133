//! Events on the way to a reader who may be slow, or gone: few wait, and who takes none for a minute loses its stream.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;

use super::error::{ApiError, ErrorReason};

/// A reader that takes no event for this long ends its stream.
const STALL: Duration = Duration::from_secs(60);

/// Events of one reader, whose stream ends when this is dropped.
#[derive(Debug)]
pub struct Events<T> {
    events: mpsc::Receiver<T>,
    end: Arc<OnceLock<ApiError>>,
}

/// Sender of one reader's events.
#[derive(Debug)]
pub(super) struct EventSender<T> {
    events: mpsc::Sender<T>,
    /// Failure that ends the stream.
    end: Arc<OnceLock<ApiError>>,
}

/// The reader went away, or takes nothing.
#[derive(Debug)]
pub(super) struct Gone;

/// Events for one reader, of which so many wait.
pub(super) fn events<T>(waiting: usize) -> (EventSender<T>, Events<T>) {
    let ((sender, events), end) = (mpsc::channel(waiting), Arc::default());
    (EventSender { events: sender, end: Arc::clone(&end) }, Events { events, end })
}

impl<T> Events<T> {
    /// The next event; after the last one, the failure that ended the stream, if one did.
    pub async fn next(&mut self) -> Option<Result<T, ApiError>> {
        match self.events.recv().await {
            Some(event) => Some(Ok(event)),
            None => std::mem::take(&mut self.end).get().cloned().map(Err),
        }
    }
}

impl<T> EventSender<T> {
    /// Sends an event, once there is room for it.
    ///
    /// # Errors
    /// The reader is gone, or takes nothing; it is told so.
    pub(super) async fn send(&self, event: T) -> Result<(), Gone> {
        let Ok(sent) = tokio::time::timeout(STALL, self.events.send(event)).await else {
            let text = format!("the reader took no event for {} s: read again", STALL.as_secs());
            self.fail(ApiError::new(ErrorReason::SlowReader, text));
            return Err(Gone);
        };
        sent.map_err(|_| Gone)
    }

    /// Ends the stream with a failure, once this is dropped.
    pub(super) fn fail(&self, error: ApiError) {
        // The first one is told.
        let _ = self.end.set(error);
    }

    /// Waits until the reader has gone.
    pub(super) async fn closed(&self) {
        self.events.closed().await;
    }
}
