//! The access log of a listener, as its owner reads it while connections end.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::error::{ApiError, ErrorReason};
use super::events::{EventSender, Events, events};
use super::use_cases::UseCases;
use super::watch::OpenWatch;
use crate::auth::{Principal, Verb};
use crate::resources::Listener;

/// Batches that wait for a slow reader; beyond that, its plugin leaves connections out.
const WAITING: usize = 4;

/// Interval of looks whether the reader may still read.
const LOOK: Duration = Duration::from_secs(1);

/// Connection, or session of UDP, that has ended or was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedConnection {
    /// Node that accepted the client.
    pub node: String,
    /// The listener.
    pub listener: Uuid,
    /// When the client was accepted: milliseconds since 1970 by the node's clock.
    pub start_ms: u64,
    /// From then to the end, in microseconds.
    pub duration_us: u64,
    /// The client.
    pub client: SocketAddr,
    /// Proxy in front that stated the client.
    pub peer: Option<SocketAddr>,
    /// Backend that accepted it.
    pub backend: Option<LoggedBackend>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// Why it ended, or was refused, as a word.
    pub reason: String,
}

/// Backend of a connection, and how it came to be that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedBackend {
    /// The backend.
    pub id: Uuid,
    /// Its address.
    pub address: SocketAddr,
    /// Why it is this one, as a word.
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

/// Connections of a listener as they end, until the stream is dropped.
pub type LogStream = BoxStream<'static, Result<LogBatch, ApiError>>;

/// Whoever hears the nodes.
pub trait AccessLogs: Send + Sync + 'static {
    /// Connections of a listener from now on. The stream ends with an error when another plugin begins to lead.
    ///
    /// # Errors
    /// The leader, which hears the nodes, cannot be asked.
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
        let decision = self.view(tree).observed(&record).detail.decision;
        let Some(decision) = decision.filter(|decision| !decision.carrier.is_proxy()) else { return Ok(()) };
        let text = format!(
            "OVN carries listener {id}, and knows nothing of single connections ({}): set its datapath to PROXY to have \
             them logged",
            decision.reason
        );
        Err(ApiError::new(ErrorReason::NotProxied, text))
    }
}

impl Reader {
    /// Passes batches on until the reader is gone, or may read no more.
    async fn run(self, mut batches: LogStream) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let batch = tokio::select! {
                batch = batches.next() => match batch {
                    Some(Ok(batch)) => Some(batch),
                    Some(Err(error)) => return self.sender.fail(error),
                    None => return,
                },
                _ = look.tick() => None,
                () = self.sender.closed() => return,
            };
            // Before each batch: the listener may be another tenant's by now.
            if let Err(error) = self.cases.check_reader(&self.principal, self.listener) {
                return self.sender.fail(error);
            }
            if let Some(batch) = batch
                && self.sender.send(batch).await.is_err()
            {
                return;
            }
        }
    }
}
