//! Watches: every change of a range from a revision on, across reconnects and changes of leader.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::Client;
use crate::connection::Session;
use crate::error::{Access, Disposition, Error, classify};
use crate::kv::{KeyValue, Range, entry};
use crate::wire::watch_client::WatchClient;
use crate::wire::{
    self, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, event::EventType,
    watch_request::RequestUnion,
};

/// Batches queued for a slow reader; beyond that, the member is blocked.
const QUEUE: usize = 64;
/// Largest message of a member; larger batches come in fragments of about 2 MiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Most events of one batch in fragments: far more than a transaction, or a thousand of them, can have.
const MAX_EVENTS: usize = 1024 * 1024;
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(2);

/// Change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was put.
    Put(KeyValue),
    /// It was removed.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Event {
    /// The key.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key } => key,
        }
    }
}

/// All events of one revision, in the order of the transaction's operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The revision.
    pub revision: u64,
    /// At least one.
    pub events: Vec<Event>,
}

/// A running watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    batches: mpsc::Receiver<Result<Batch, Error>>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// The next revision that changed a key of the range. Waits until there is one. Cancel safe.
    ///
    /// Revisions grow; none is skipped or repeated. While no member can be reached it waits: reads and writes
    /// report that.
    ///
    /// # Errors
    /// [`Error::Compacted`]: the next changes were compacted before they were read. Others if the cluster
    /// refuses the watch. Nothing follows an error but itself.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        let ended = || Err(Error::Refused("the watch has ended".to_owned()));
        self.batches.recv().await.unwrap_or_else(ended)
    }
}

impl Client {
    /// Watches a range from revision `from` on, inclusive (0 and 1: from the beginning). Other fields of the
    /// range are ignored.
    ///
    /// Returns at once; failures are reported by [`Watch::next`].
    pub fn watch(&self, range: &Range, from: u64) -> Watch {
        let (send, batches) = mpsc::channel(QUEUE);
        let watcher = Watcher {
            client: self.clone(),
            range: range.bounds(),
            next: from.max(1),
            batches: send,
            pending: Vec::new(),
        };
        Watch { batches, task: tokio::spawn(watcher.run()) }
    }
}

/// Reason why a stream ended.
enum End {
    /// The watch was dropped.
    Dropped,
    /// It cannot go on.
    Failed(Error),
    /// It can, on a new stream.
    Lost(String),
}

struct Watcher {
    client: Client,
    range: (Vec<u8>, Vec<u8>),
    /// First revision that was not handed out.
    next: u64,
    batches: mpsc::Sender<Result<Batch, Error>>,
    /// Events of a batch whose fragments are incomplete.
    pending: Vec<wire::Event>,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = LEAST_PAUSE;
        loop {
            let before = self.next;
            match self.follow().await {
                End::Dropped => return,
                End::Failed(error) => {
                    let _ = self.batches.send(Err(error)).await;
                    return;
                }
                End::Lost(reason) => tracing::debug!(reason, "watch stream lost; reconnecting"),
            }
            pause = if self.next > before { LEAST_PAUSE } else { (pause * 2).min(MOST_PAUSE) };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.batches.closed() => return,
            }
        }
    }

    /// Runs one stream to its end.
    async fn follow(&mut self) -> End {
        self.pending.clear();
        let session = match self.client.connection.session().await {
            Ok(session) => session,
            Err(error @ (Error::Credentials(_) | Error::Protocol(_))) => return End::Failed(error),
            Err(error) => return End::Lost(error.to_string()),
        };
        let end = self.stream(&session).await;
        if matches!(end, End::Lost(_)) {
            self.client.connection.give_up(&session).await;
        }
        end
    }

    async fn stream(&mut self, session: &Session) -> End {
        let (requests, queue) = mpsc::channel(2);
        if requests.try_send(self.create()).is_err() {
            return End::Lost("the stream takes no requests".to_owned());
        }
        let silence_limit = self.client.connection.config().probe_interval;
        let call = session.request(ReceiverStream::new(queue));
        let mut client = WatchClient::new(session.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut responses = match timeout(silence_limit, client.watch(call)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return after(&status),
            Err(_) => return End::Lost("the stream does not open".to_owned()),
        };
        loop {
            let response = tokio::select! {
                response = receive(&mut responses, &requests, silence_limit) => response,
                () = self.batches.closed() => return End::Dropped,
            };
            let handled = match response {
                Ok(response) => self.take(response).await,
                Err(end) => Err(end),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    fn create(&self) -> WatchRequest {
        let (key, range_end) = self.range.clone();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: wire::to_wire(self.next),
            progress_notify: true,
            fragment: true,
        };
        WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
    }

    async fn take(&mut self, response: WatchResponse) -> Result<(), End> {
        if response.canceled {
            return Err(cancelled(&response));
        }
        if response.events.is_empty() {
            self.note_progress(&response);
            return Ok(());
        }
        if self.pending.len() + response.events.len() > MAX_EVENTS {
            return Err(End::Failed(Error::AnswerTooLarge(format!("more than {MAX_EVENTS} events at once"))));
        }
        self.pending.extend(response.events);
        if response.fragment { Ok(()) } else { self.hand_out().await }
    }

    /// A member without changes up to a revision reports it from time to time: history before it may be
    /// compacted without harm. The answer to a probe (of no watch) is only a sign of life.
    fn note_progress(&mut self, response: &WatchResponse) {
        if !response.created && response.watch_id >= 0 {
            self.next = self.next.max(wire::revision(response.header.as_ref()).saturating_add(1));
        }
    }

    async fn hand_out(&mut self) -> Result<(), End> {
        for batch in batches(std::mem::take(&mut self.pending)) {
            // Changes handed out before a reconnect are not repeated.
            if batch.revision < self.next {
                continue;
            }
            let revision = batch.revision;
            self.batches.send(Ok(batch)).await.map_err(|_| End::Dropped)?;
            self.next = revision.saturating_add(1);
        }
        Ok(())
    }
}

/// The next response; probes a member that is silent for long.
async fn receive(
    responses: &mut Streaming<WatchResponse>,
    requests: &mpsc::Sender<WatchRequest>,
    silence_limit: Duration,
) -> Result<WatchResponse, End> {
    for probed in [false, true] {
        match timeout(silence_limit, responses.next()).await {
            Ok(Some(Ok(response))) => return Ok(response),
            Ok(Some(Err(status))) => return Err(after(&status)),
            Ok(None) => return Err(End::Lost("the stream ended".to_owned())),
            Err(_) if probed => break,
            Err(_) => {
                let probe = RequestUnion::ProgressRequest(WatchProgressRequest {});
                // A full queue holds a probe that was not sent: the stream is dead.
                let _ = requests.try_send(WatchRequest { request_union: Some(probe) });
            }
        }
    }
    Err(End::Lost("the member is silent".to_owned()))
}

fn after(status: &tonic::Status) -> End {
    match classify(Access::Read, status) {
        Disposition::Fail(error) => End::Failed(error),
        Disposition::Retry(error) => End::Lost(error.to_string()),
        Disposition::Reauthenticate => End::Lost(status.message().to_owned()),
    }
}

fn cancelled(response: &WatchResponse) -> End {
    if response.compact_revision > 0 {
        return End::Failed(Error::Compacted { oldest: wire::from_wire(response.compact_revision) });
    }
    let reason = response.cancel_reason.clone();
    if reason.contains("permission denied") {
        return End::Failed(Error::Denied(reason));
    }
    End::Lost(reason)
}

/// Events by their revision; a member sends them in its order.
fn batches(events: Vec<wire::Event>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for event in events {
        let deleted = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv.map(entry) else { continue };
        let revision = kv.revision;
        let event = if deleted { Event::Delete { key: kv.key } } else { Event::Put(kv) };
        match batches.last_mut() {
            Some(last) if last.revision == revision => last.events.push(event),
            _ => batches.push(Batch { revision, events: vec![event] }),
        }
    }
    batches
}
