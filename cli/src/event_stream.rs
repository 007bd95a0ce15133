//! Stream of events that reconnects: a restart of the plugin ends no `watch` and no `--wait`.

use std::time::Duration;

use fiberlb_proto::v1::WatchEvent;
use tonic::{Code, Status, Streaming};

use crate::client::Client;

/// Backoff before the first reconnect; doubled for each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(3);

/// Step of the stream.
#[derive(Debug)]
pub(crate) enum Step {
    /// The stream was opened, for the first time or again: a snapshot follows.
    Opened,
    /// Event.
    Event(Box<WatchEvent>),
    /// The stream broke, for this reason; the next step reconnects.
    Broken(Status),
    /// The load balancer does not exist, or no longer.
    Gone,
}

/// Stream of one tree, or of all trees.
pub(crate) struct EventStream<'a> {
    client: &'a Client,
    load_balancer_id: String,
    stream: Option<Streaming<WatchEvent>>,
    backoff: Option<Duration>,
}

impl<'a> EventStream<'a> {
    /// Stream of one tree, or of all if `load_balancer_id` is empty.
    pub(crate) fn new(client: &'a Client, load_balancer_id: &str) -> Self {
        Self { client, load_balancer_id: load_balancer_id.to_owned(), stream: None, backoff: None }
    }

    /// Waits for the next step. Cancel safe.
    ///
    /// # Errors
    /// [`Status`] that a retry does not change.
    pub(crate) async fn next(&mut self) -> Result<Step, Status> {
        let Some(stream) = &mut self.stream else { return self.open().await };
        match stream.message().await {
            Ok(Some(event)) => {
                self.backoff = None;
                Ok(Step::Event(Box::new(event)))
            }
            Ok(None) => self.broken(Status::unavailable("the server ended the stream")),
            Err(status) => self.broken(status),
        }
    }

    async fn open(&mut self) -> Result<Step, Status> {
        if let Some(backoff) = self.backoff {
            tokio::time::sleep(backoff).await;
        }
        match self.client.watch(&self.load_balancer_id).await {
            Ok(stream) => {
                self.stream = Some(stream);
                Ok(Step::Opened)
            }
            Err(status) if status.code() == Code::NotFound => Ok(Step::Gone),
            Err(status) => self.broken(status),
        }
    }

    fn broken(&mut self, status: Status) -> Result<Step, Status> {
        self.stream = None;
        self.backoff = Some(self.backoff.map_or(BACKOFF_MIN, |backoff| BACKOFF_MAX.min(backoff * 2)));
        match status.code() {
            // A broken connection is reported as any of these.
            Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            | Code::ResourceExhausted => Ok(Step::Broken(status)),
            _ => Err(status),
        }
    }
}
