//! The stream of events, opened again where it breaks: a restart of the plugin ends no `watch` and no `--wait`.

use std::time::Duration;

use fiberlb_proto::v1::WatchEvent;
use tonic::{Code, Status, Streaming};

use crate::client::Client;

/// Pause before the first new attempt; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What happened to the stream.
#[derive(Debug)]
pub(crate) enum Step {
    /// It begins, or begins anew: a snapshot follows.
    Opened,
    /// An event.
    Event(Box<WatchEvent>),
    /// It broke, with this reason; the next step opens it again.
    Broken(Status),
    /// There is no such load balancer, or no more.
    Gone,
}

/// One followed stream.
pub(crate) struct Follow<'a> {
    client: &'a Client,
    load_balancer_id: String,
    stream: Option<Streaming<WatchEvent>>,
    pause: Option<Duration>,
}

impl<'a> Follow<'a> {
    /// Of one tree, or of all if `load_balancer_id` is empty.
    pub(crate) fn new(client: &'a Client, load_balancer_id: &str) -> Self {
        Self { client, load_balancer_id: load_balancer_id.to_owned(), stream: None, pause: None }
    }

    /// What happens next. Cancelling it loses nothing.
    ///
    /// # Errors
    /// A status that trying again does not change.
    pub(crate) async fn next(&mut self) -> Result<Step, Status> {
        let Some(stream) = &mut self.stream else { return self.open().await };
        match stream.message().await {
            Ok(Some(event)) => {
                self.pause = None;
                Ok(Step::Event(Box::new(event)))
            }
            Ok(None) => self.broken(Status::unavailable("the server ended the stream")),
            Err(status) => self.broken(status),
        }
    }

    async fn open(&mut self) -> Result<Step, Status> {
        if let Some(pause) = self.pause {
            tokio::time::sleep(pause).await;
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
        self.pause = Some(self.pause.map_or(FIRST_PAUSE, |pause| LONGEST_PAUSE.min(pause * 2)));
        match status.code() {
            // A connection that breaks under a stream is reported as any of these.
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
