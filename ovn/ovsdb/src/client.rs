//! A client of a database: keeps a [`Replica`] in step over whatever connection there is, and carries transactions.
//!
//! Of a cluster it uses the leader alone, and takes nothing from a server that is behind what it has seen. The socket loop
//! is in `shell`, which server is next in `rounds`, and what a connection is made of in `stream` and `tls`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};

use self::shell::Shell;
pub use self::tls::TlsFiles;
use super::endpoint::Endpoint;
use super::error::TransactError;
use super::operation::{Operation, OperationResult};
use super::replica::Replica;
use super::schema::Schema;

#[cfg(any(test, feature = "test-support"))]
pub mod double;
mod rounds;
mod shell;
mod stream;
mod tls;

/// Transactions that wait to be sent; more wait at the caller.
const WAITING: usize = 1024;

/// How to reach a database.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers of the database, tried in turn: each of them once, then there is a pause.
    pub endpoints: Vec<Endpoint>,
    /// Name of the database.
    pub database: String,
    /// Of a cluster, use its leader alone; default true. Otherwise any member that has contact with the others.
    pub leader_only: bool,
    /// Files for `ssl:` endpoints; default none.
    pub tls: Option<TlsFiles>,
    /// See [`SessionConfig::probe_interval`](super::session::SessionConfig::probe_interval); default 5 s.
    pub probe_interval: Duration,
    /// After it the outcome of a transaction counts as unknown; default 10 s.
    pub transact_timeout: Duration,
    /// Largest message, in bytes; default 128 MiB. The whole content of the database is one message: 10,000 load
    /// balancers of one listener and five backends take 8 MB (measured), 10,000 of 500 backends 100 MB.
    pub max_message: usize,
    /// Wait before the first new round of attempts, doubled with each further one; default 100 ms.
    pub backoff_least: Duration,
    /// Longest wait before a round; default 5 s. While a cluster elects its leader it is 250 ms at most.
    pub backoff_most: Duration,
}

impl Config {
    /// Defaults for a database; endpoints are to be added.
    #[must_use]
    pub fn new(database: &str) -> Self {
        Self {
            endpoints: Vec::new(),
            database: database.to_owned(),
            leader_only: true,
            tls: None,
            probe_interval: Duration::from_secs(5),
            transact_timeout: Duration::from_secs(10),
            max_message: 128 << 20,
            backoff_least: Duration::from_millis(100),
            backoff_most: Duration::from_secs(5),
        }
    }
}

/// Whether there is a connection.
#[derive(Clone, Debug)]
pub enum ConnectionStatus {
    /// There is none.
    Disconnected {
        /// Since when.
        since: SystemTime,
        /// Why not.
        reason: String,
    },
    /// There is one, and the replica is in step.
    Live {
        /// With whom.
        endpoint: Endpoint,
        /// What the database has.
        schema: Arc<Schema>,
    },
}

impl ConnectionStatus {
    /// Whether the replica is in step.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }
}

impl fmt::Display for ConnectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected { since, reason } => {
                let seconds = since.elapsed().unwrap_or_default().as_secs();
                write!(f, "{reason} (not connected for {seconds} s)")
            }
            Self::Live { endpoint, schema } => write!(f, "{endpoint}, schema {}", schema.version),
        }
    }
}

/// What a client tells.
#[derive(Debug)]
pub enum Event<C> {
    /// The replica is in step after a connect; these are the differences to what it held.
    Reloaded(Vec<C>),
    /// The database changed.
    Changed(Vec<C>),
    /// The replica may be behind from now on.
    Disconnected,
}

/// A connection that is kept up, with a replica of the database. Clones share it; it ends with the last one.
#[derive(Debug)]
pub struct Client<R> {
    replica: Arc<RwLock<R>>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
    timeout: Duration,
}

impl<R> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self {
            replica: Arc::clone(&self.replica),
            requests: self.requests.clone(),
            status: self.status.clone(),
            has_been_live: Arc::clone(&self.has_been_live),
            timeout: self.timeout,
        }
    }
}

#[derive(Debug)]
struct Request {
    operations: Vec<Operation>,
    answer: oneshot::Sender<Result<Vec<OperationResult>, TransactError>>,
}

/// The other side of a client: whatever is connected to the database.
struct Far<R: Replica> {
    replica: Arc<RwLock<R>>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::UnboundedSender<Event<R::Change>>,
    status: watch::Sender<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
}

impl<R: Replica> Client<R> {
    /// Starts a client on the current tokio runtime. Events that nobody reads wait in memory.
    pub fn start(config: Config, replica: R) -> (Self, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (client, far, heard) = Self::new(&config, replica);
        tokio::spawn(Shell::new(config, far).run());
        (client, heard)
    }

    /// A client that was never connected, its other side, and its events.
    fn new(config: &Config, replica: R) -> (Self, Far<R>, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (sender, requests) = mpsc::channel(WAITING);
        let (events, heard) = mpsc::unbounded_channel();
        let disconnected = ConnectionStatus::Disconnected {
            since: SystemTime::now(),
            reason: "no attempt was made yet".to_owned(),
        };
        let (status, watched) = watch::channel(disconnected);
        let replica = Arc::new(RwLock::new(replica));
        let has_been_live = Arc::new(AtomicBool::new(false));
        let client = Self {
            replica: Arc::clone(&replica),
            requests: sender,
            status: watched,
            has_been_live: Arc::clone(&has_been_live),
            timeout: config.transact_timeout,
        };
        (client, Far { replica, requests, events, status, has_been_live }, heard)
    }

    /// What the database held when it was last heard of.
    pub fn read(&self) -> RwLockReadGuard<'_, R> {
        self.replica.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a transaction. The replica shows it before this answers. May be called any number of times at once.
    ///
    /// # Errors
    /// [`TransactError`]. Dropping the future leaves open whether it is carried out.
    pub async fn transact(&self, operations: Vec<Operation>) -> Result<Vec<OperationResult>, TransactError> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        let (answer, answered) = oneshot::channel();
        let not_connected = || TransactError::NotConnected { reason: self.status.borrow().to_string() };
        if !self.is_live() {
            return Err(not_connected());
        }
        match tokio::time::timeout_at(deadline, self.requests.reserve()).await {
            Ok(Ok(place)) => place.send(Request { operations, answer }),
            Ok(Err(_)) => return Err(not_connected()),
            Err(_) => {
                let reason = format!("the server has not taken a transaction for {:?}", self.timeout);
                return Err(TransactError::NotConnected { reason });
            }
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TransactError::Unknown { reason: "the connection was lost".to_owned() }),
            Err(_) => Err(TransactError::Unknown { reason: format!("no answer within {:?}", self.timeout) }),
        }
    }

    /// Whether there is a connection, and changes of that.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ConnectionStatus> {
        self.status.clone()
    }

    /// Whether the replica is in step.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.status.borrow().is_live()
    }

    /// Whether the replica was ever in step.
    #[must_use]
    pub fn has_been_live(&self) -> bool {
        self.has_been_live.load(Ordering::Acquire)
    }

    /// The schema of the connected database.
    #[must_use]
    pub fn schema(&self) -> Option<Arc<Schema>> {
        match &*self.status.borrow() {
            ConnectionStatus::Live { schema, .. } => Some(Arc::clone(schema)),
            ConnectionStatus::Disconnected { .. } => None,
        }
    }
}
