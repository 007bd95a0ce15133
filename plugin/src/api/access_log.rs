//! The access log of a listener, as its owner reads it while connections end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::error::{ApiError, ErrorReason};
use super::events::{EventSender, Events, events};
use super::use_cases::UseCases;
use super::watch::OpenWatch;
use crate::auth::{Principal, Verb};
use crate::resources::{Kind, Listener};

/// Batches on their way to a slow reader; what comes meanwhile waits in a [`LogQueue`].
const WAITING: usize = 1;

/// Most connections that wait for one reader; those beyond are left out, and counted.
const MOST_WAITING: usize = 2_000;

/// Interval of looks whether the reader may still read.
const LOOK: Duration = Duration::from_secs(1);

/// Connection, or session of UDP, that has ended or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedConnection {
    /// Node that accepted the client.
    pub node: String,
    /// The listener.
    pub listener: Uuid,
    /// Time at which the client was accepted: milliseconds since 1970 by the node's clock.
    pub start_ms: u64,
    /// From then to the end, in microseconds.
    pub duration_us: u64,
    /// The client.
    pub client: SocketAddr,
    /// Proxy in front that stated the client.
    pub peer: Option<SocketAddr>,
    /// Pool that was selected for it.
    pub pool: Option<Uuid>,
    /// Backend that accepted it.
    pub backend: Option<LoggedBackend>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Reason of its end or refusal, as a word.
    pub reason: String,
}

#[cfg(test)]
impl LoggedConnection {
    /// A connection without a backend, told apart by its start.
    pub(crate) fn example(listener: Uuid, start_ms: u64) -> Self {
        Self {
            node: "a".to_owned(),
            listener,
            start_ms,
            duration_us: 1,
            client: ([10, 0, 0, 1], 1).into(),
            peer: None,
            pool: None,
            backend: None,
            bytes_in: 0,
            bytes_out: 0,
            reason: "closed".to_owned(),
        }
    }
}

/// Backend of a connection, and how it came to be that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBackend {
    /// The backend.
    pub id: Uuid,
    /// Its address.
    pub address: SocketAddr,
    /// Reason of its selection, as a word.
    pub selection: String,
    /// Backends that were tried, this one included.
    pub tries: u32,
    /// From the acceptance of the client to that of the backend, in microseconds.
    pub connect_us: u64,
}

/// Some connections of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// In the order of their ends on each node.
    pub connections: Vec<LoggedConnection>,
    /// Number of those that were left out before.
    pub omitted: u64,
}

/// Connections that wait for one reader, which may be slow: who adds them never waits.
#[derive(Debug, Default)]
pub(crate) struct LogQueue {
    batch: Mutex<WaitingBatch>,
    news: Notify,
}

#[derive(Debug, Default)]
struct WaitingBatch {
    connections: VecDeque<LoggedConnection>,
    omitted: u64,
}

impl LogQueue {
    /// Adds connections as far as there is room, and the number of those that were left out before.
    pub(crate) fn add(&self, connections: &[LoggedConnection], omitted: u64) {
        let mut batch = self.lock();
        let room = MOST_WAITING.saturating_sub(batch.connections.len()).min(connections.len());
        let (taken, left_out) = connections.split_at(room);
        batch.connections.extend(taken.iter().cloned());
        batch.omitted = batch.omitted.saturating_add(omitted).saturating_add(left_out.len() as u64);
        drop(batch);
        self.news.notify_one();
    }

    /// Takes what waits; `None`: nothing does.
    pub(crate) fn take(&self) -> Option<LogBatch> {
        let WaitingBatch { connections, omitted } = std::mem::take(&mut *self.lock());
        let is_empty = connections.is_empty() && omitted == 0;
        (!is_empty).then(|| LogBatch { connections: connections.into(), omitted })
    }

    /// Takes what waits, once there is something. Cancel safe.
    pub(crate) async fn next(&self) -> LogBatch {
        loop {
            let news = self.news.notified();
            if let Some(batch) = self.take() {
                return batch;
            }
            news.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingBatch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections of a listener as they end, until the stream is dropped.
pub type LogStream = BoxStream<'static, Result<LogBatch, ApiError>>;

/// Source of the nodes' records.
pub trait AccessLogs: Send + Sync + 'static {
    /// Connections of a listener from now on. The stream ends with an error when another plugin begins to lead.
    ///
    /// # Errors
    /// The leader, which has the nodes' streams, cannot be asked.
    fn read(&self, listener: Uuid) -> BoxFuture<'_, Result<LogStream, ApiError>>;
}

/// Connections of a listener for one reader, whose stream ends when this is dropped.
pub type LogEvents = Events<LogBatch>;

/// One reader of a listener.
struct Reader {
    cases: UseCases,
    principal: Principal,
    listener: Uuid,
    sender: EventSender<LogBatch>,
    _open: OpenWatch,
}

impl UseCases {
    /// Connections of a listener from now on, as they end. The stream ends when the listener is gone, and when OVN carries it.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's; OVN carries it; too many watches are open; or as
    /// [`AccessLogs::read`].
    pub async fn read_access_log(&self, principal: Principal, id: Uuid) -> Result<LogEvents, ApiError> {
        self.check_reader(&principal, id)?;
        let open = OpenWatch::new(self, &principal)?;
        let batches = self.on().access_logs.read(id).await?;
        let (sender, events) = events(WAITING);
        let reader = Reader { cases: self.clone(), principal, listener: id, sender, _open: open };
        tokio::spawn(reader.run(batches));
        Ok(events)
    }

    /// Checks that a principal may read the access log of a listener, and that there is one.
    fn check_reader(&self, principal: &Principal, id: Uuid) -> Result<(), ApiError> {
        let (tree, record) = self.find::<Listener>(principal, Verb::Watch, id)?;
        let listener = tree.called(Kind::Listener, id);
        let decision = self.view(tree).observed(&record).detail.decision;
        let Some(decision) = decision.filter(|decision| !decision.carrier.is_proxy()) else { return Ok(()) };
        let text = format!(
            "OVN carries {listener}, and knows nothing of single connections ({}): set its datapath to PROXY to have \
             them logged",
            decision.reason
        );
        Err(ApiError::about(ErrorReason::NotProxied, Kind::Listener, id, text))
    }
}

impl Reader {
    /// Passes batches on until the reader is gone, or may read no more. However slow it is, batches are taken as they come:
    /// those of others may come over the same connection.
    async fn run(self, batches: LogStream) {
        let (queue, ended) = (LogQueue::default(), Notify::new());
        let mut passing = pin!(self.pass_all(&queue, &ended));
        let end = tokio::select! {
            end = collect(batches, &queue) => {
                ended.notify_one();
                passing.await.or(end)
            }
            end = &mut passing => end,
        };
        if let Some(error) = end {
            self.sender.fail(error);
        }
    }

    /// Passes on what waits in a queue, until nothing does and nothing more comes. Returns the reason why the reader may read no
    /// more; None: it is gone, or has all.
    async fn pass_all(&self, queue: &LogQueue, ended: &Notify) -> Option<ApiError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let passed = tokio::select! {
                biased;
                batch = queue.next() => self.pass(batch).await,
                () = ended.notified() => return None,
                _ = look.tick() => self.check(),
                () = self.sender.closed() => return None,
            };
            if let Err(end) = passed {
                return end;
            }
        }
    }

    /// Passes a batch on, unless the listener is another tenant's by now.
    async fn pass(&self, batch: LogBatch) -> Result<(), Option<ApiError>> {
        self.check()?;
        self.sender.send(batch).await.map_err(|_| None)
    }

    fn check(&self) -> Result<(), Option<ApiError>> {
        self.cases.check_reader(&self.principal, self.listener).map_err(Some)
    }
}

/// Collects batches in a queue until they end. Returns the error that ended them, if one did.
async fn collect(mut batches: LogStream, queue: &LogQueue) -> Option<ApiError> {
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(LogBatch { connections, omitted }) => queue.add(&connections, omitted),
            Err(error) => return Some(error),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_holds_no_more_than_its_bound_and_is_told_of_the_rest() {
        let queue = LogQueue::default();
        let connection = |number| LoggedConnection::example(Uuid::nil(), number);
        for _ in 0..5 {
            queue.add(&(0..1_000).map(connection).collect::<Vec<_>>(), 0);
        }
        let batch = queue.next().await;
        assert_eq!((batch.connections.len(), batch.omitted), (MOST_WAITING, 3_000));
    }
}
