//! Client of a database: keeps a [`Replica`] in sync over whatever connection there is, and sends transactions.
//!
//! It connects to the configured servers in turn, with backoff. Of a cluster it uses the leader, and it never takes content from
//! a server that is behind what it has seen. Where a cluster still has its recent history, a reconnect transfers only what
//! happened meanwhile (`monitor_cond_since`); otherwise the whole content is transferred again, in parts, and compared with the
//! replica.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use self::driver::Driver;
pub use self::error::ConnectionError;
use self::publisher::Publisher;
pub use self::tls::{TlsError, TlsFiles};
use super::endpoint::Endpoint;
use super::error::TransactError;
pub use super::framing::FramingError;
use super::operation::{Operation, OperationResult};
use super::replica::Replica;
use super::schema::Schema;
pub use super::server::ServerError;
pub use super::session::SessionError;

#[cfg(any(test, feature = "test-support"))]
pub mod double;
mod driver;
mod error;
mod publisher;
mod reconnect;
mod stream;
mod tls;

/// Transactions that are queued for the connection; further callers wait for room.
const QUEUED_TRANSACTIONS: usize = 1024;

/// Configuration of a [`Client`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers of the database; of a cluster, all members. Each is tried once, in this order, before the client pauses. Without any,
    /// the client never connects. Default: none.
    pub endpoints: Vec<Endpoint>,
    /// Name of the database, such as `Open_vSwitch`.
    pub database: String,
    /// True: of a cluster, use the leader only. False: use any member that is in contact with a majority. Default: true.
    pub leader_only: bool,
    /// Certificates for `ssl:` endpoints. Default: none.
    pub tls: Option<TlsFiles>,
    /// Silence after which the server is probed by an echo request; after as much again without an answer, the connection is
    /// closed. A cluster member that owes a reply is probed after 1.5 s at the latest. Default: 5 s.
    pub probe_interval: Duration,
    /// Time after which a transaction without a reply fails as [`TransactError::Unknown`]. Default: 10 s.
    pub transact_timeout: Duration,
    /// Longest message that is accepted, in bytes: it bounds what a server can make this process allocate at once, as a parsed
    /// message takes ten times its length at most. The content of the database may be longer, since it is read in parts of
    /// about an eighth of this, at most 16 MiB. What has to fit: each single row, the schema, and the UUIDs of the rows of one
    /// table (130 bytes of this limit for each: a million rows by default). A change, or what a cluster remembers for a
    /// reconnect, that does not fit costs the connection, and the content is read again in parts. Default: 128 MiB.
    pub max_message_bytes: usize,
    /// Pause after the first round in which no server could be used, with a jitter of a quarter; doubled after each further
    /// round. Default: 100 ms.
    pub backoff_min: Duration,
    /// Longest pause between rounds; 250 ms while a cluster elects its leader, if that is shorter. Default: 5 s.
    pub backoff_max: Duration,
}

impl Config {
    /// Default configuration for a database, without endpoints.
    #[must_use]
    pub fn new(database: &str) -> Self {
        Self {
            endpoints: Vec::new(),
            database: database.to_owned(),
            leader_only: true,
            tls: None,
            probe_interval: Duration::from_secs(5),
            transact_timeout: Duration::from_secs(10),
            max_message_bytes: 128 << 20,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// State of a client's connection.
#[derive(Clone, Debug)]
pub enum ConnectionStatus {
    /// Not connected; the replica holds the last known content.
    Disconnected {
        /// Time since which the client has not been connected.
        since: SystemTime,
        /// Last error of each endpoint that was tried since then, in the configured order. Empty before the first attempt.
        errors: Vec<(Endpoint, Arc<ConnectionError>)>,
    },
    /// Connected; the replica is in sync.
    Live {
        /// Endpoint of the connection.
        endpoint: Endpoint,
        /// Schema of the database.
        schema: Arc<Schema>,
    },
}

impl ConnectionStatus {
    /// True if the client is connected and the replica in sync.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Reason why the client is not connected, for people: the errors of all endpoints. `None` if it is connected.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Disconnected { errors, .. } if errors.is_empty() => {
                Some("no attempt was made yet".to_owned())
            }
            Self::Disconnected { errors, .. } => {
                let reasons = errors.iter().map(|(endpoint, error)| format!("{endpoint}: {error}"));
                Some(reasons.collect::<Vec<_>>().join("; "))
            }
            Self::Live { .. } => None,
        }
    }
}

/// One line for people: the endpoint and the schema's version, or the reason and the seconds without a connection.
impl fmt::Display for ConnectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { since, .. } => {
                let seconds = since.elapsed().unwrap_or_default().as_secs();
                let reason = self.reason().unwrap_or_default();
                write!(f, "{reason} (not connected for {seconds} s)")
            }
            Self::Live { endpoint, schema } => write!(f, "{endpoint}, schema {}", schema.version),
        }
    }
}

/// Event of a client, in the order in which the replica changed.
#[derive(Debug)]
pub enum Event<C> {
    /// The client connected, and the replica is in sync; these are the differences to what it held before.
    Reloaded(Vec<C>),
    /// A transaction changed the database.
    Changed(Vec<C>),
    /// The connection was lost; the replica may be behind the database until the next [`Event::Reloaded`].
    Disconnected,
}

/// Handle of a database: its replica, and transactions on it.
///
/// Clones share the connection; it is closed when the last one is dropped.
#[derive(Debug)]
pub struct Client<R> {
    replica: Arc<RwLock<R>>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
    longest_message: Arc<AtomicUsize>,
    timeout: Duration,
}

impl<R> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self {
            replica: Arc::clone(&self.replica),
            requests: self.requests.clone(),
            status: self.status.clone(),
            has_been_live: Arc::clone(&self.has_been_live),
            longest_message: Arc::clone(&self.longest_message),
            timeout: self.timeout,
        }
    }
}

/// A transaction, and the channel of its caller.
#[derive(Debug)]
struct Request {
    operations: Vec<Operation>,
    reply: oneshot::Sender<Result<Vec<OperationResult>, TransactError>>,
}

impl Request {
    /// Fails the transaction, which was not sent. The caller may be gone.
    fn refuse(self, reason: String) {
        let _ = self.reply.send(Err(TransactError::NotConnected { reason }));
    }
}

/// Receiver of a client's events.
type Events<R> = mpsc::UnboundedReceiver<Event<<R as Replica>::Change>>;

impl<R: Replica> Client<R> {
    /// Starts a client, whose connection is driven by a task on the current tokio runtime. Returns before it is connected.
    ///
    /// Events wait in memory until they are received; drop the receiver if they are not needed.
    ///
    /// # Panics
    /// Outside of a tokio runtime with IO and time enabled, as [`tokio::spawn`] does.
    #[must_use = "the connection is closed when the last client is dropped"]
    pub fn start(config: Config, replica: R) -> (Self, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (client, publisher, requests, events) = Self::new(&config, replica);
        tokio::spawn(Driver::new(config, publisher, requests).run());
        (client, events)
    }

    /// A client without a connection, with the ends that a connection needs.
    fn new(config: &Config, replica: R) -> (Self, Publisher<R>, mpsc::Receiver<Request>, Events<R>) {
        let (requests, queue) = mpsc::channel(QUEUED_TRANSACTIONS);
        let (sender, events) = mpsc::unbounded_channel();
        let disconnected = ConnectionStatus::Disconnected { since: SystemTime::now(), errors: Vec::new() };
        let (status, watched) = watch::channel(disconnected);
        let replica = Arc::new(RwLock::new(replica));
        let has_been_live = Arc::new(AtomicBool::new(false));
        let longest_message = Arc::new(AtomicUsize::new(0));
        let client = Self {
            replica: Arc::clone(&replica),
            requests,
            status: watched,
            has_been_live: Arc::clone(&has_been_live),
            longest_message: Arc::clone(&longest_message),
            timeout: config.transact_timeout,
        };
        let publisher = Publisher { replica, events: sender, status, has_been_live, longest_message };
        (client, publisher, queue, events)
    }

    /// Reads the replica: the last known content of the database.
    ///
    /// The connection waits while the guard is held: drop it before any await.
    pub fn read(&self) -> RwLockReadGuard<'_, R> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a transaction, and waits for its reply. It is atomic: all operations are carried out, or none. When this returns,
    /// the replica includes its changes. Any number of transactions may be in flight at once.
    ///
    /// Dropping the future leaves open whether the transaction is carried out.
    ///
    /// # Errors
    /// [`TransactError`]; only [`TransactError::Unknown`] leaves open whether the database has changed.
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<Vec<OperationResult>, TransactError> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let (reply, received) = oneshot::channel();
        let not_connected = || TransactError::NotConnected { reason: self.status.borrow().to_string() };
        if !self.is_live() {
            return Err(not_connected());
        }
        match tokio::time::timeout_at(deadline, self.requests.reserve()).await {
            Ok(Ok(permit)) => permit.send(Request { operations, reply }),
            Ok(Err(_)) => return Err(not_connected()),
            Err(_) => {
                let reason = format!("the server has not taken a transaction for {:?}", self.timeout);
                return Err(TransactError::NotConnected { reason });
            }
        }
        match tokio::time::timeout_at(deadline, received).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TransactError::Unknown { reason: "the connection was lost".to_owned() }),
            Err(_) => Err(TransactError::Unknown { reason: format!("no reply within {:?}", self.timeout) }),
        }
    }

    /// Watches the connection: the receiver holds the present status and is notified of changes. To wait for the connection:
    /// `client.status().wait_for(ConnectionStatus::is_live)`.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.status.clone()
    }

    /// True if the client is connected and the replica in sync.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.status.borrow().is_live()
    }

    /// True if the client has ever been connected: the replica then holds a content of the database, which may be outdated.
    #[must_use]
    pub fn has_been_live(&self) -> bool {
        self.has_been_live.load(Ordering::Acquire)
    }

    /// Length of the longest message of the present or last connection, in bytes, to compare with
    /// [`max_message_bytes`](Config::max_message_bytes); of a message that is too long, that of what was received of it.
    #[must_use]
    pub fn longest_message(&self) -> usize {
        self.longest_message.load(Ordering::Relaxed)
    }

    /// Schema of the database; `None` while the client is not connected.
    #[must_use]
    pub fn schema(&self) -> Option<Arc<Schema>> {
        match &*self.status.borrow() {
            ConnectionStatus::Live { schema, .. } => Some(Arc::clone(schema)),
            ConnectionStatus::Disconnected { .. } => None,
        }
    }
}
