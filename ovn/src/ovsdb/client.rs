//! The socket loop around a [`Session`]: connects, reconnects, keeps a [`Replica`] in step, and carries transactions.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::endpoint::Endpoint;
use super::error::TransactError;
use super::operation::{Operation, OperationResult};
use super::replica::Replica;
use super::schema::Schema;
use super::session::{Output, Session, SessionConfig, SessionError};

/// Longest wait for a connection to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the content of the database on a new connection.
const CONTENT: Duration = Duration::from_secs(10);
/// Free room in the buffer before a read: a small read costs as much as a large one.
const READ: usize = 64 * 1024;
/// Transactions that wait to be sent; more wait at the caller.
const WAITING: usize = 1024;
/// Bytes that the server has not taken yet; above it no further transaction is serialized.
const UNSENT: usize = 16 << 20;

/// How to reach a database.
#[derive(Clone, Debug)]
pub struct Config {
    /// Servers of the database, tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Name of the database.
    pub database: String,
    /// See [`SessionConfig::probe_interval`]; default 5 s.
    pub probe_interval: Duration,
    /// After it the outcome of a transaction counts as unknown; default 10 s.
    pub transact_timeout: Duration,
    /// Largest message, in bytes; default 128 MiB. The whole content of the database is one message: 10,000 load
    /// balancers of one listener and five backends take 8 MB (measured), 10,000 of 500 backends 100 MB.
    pub max_message: usize,
    /// Wait before the first new attempt, doubled with each further one; default 100 ms.
    pub backoff_least: Duration,
    /// Longest wait before an attempt; default 5 s.
    pub backoff_most: Duration,
}

impl Config {
    /// Defaults for a database; endpoints are to be added.
    #[must_use]
    pub fn new(database: &str) -> Self {
        Self {
            endpoints: Vec::new(),
            database: database.to_owned(),
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

impl<R: Replica> Client<R> {
    /// Starts a client on the current tokio runtime. Events that nobody reads wait in memory.
    pub fn start(config: Config, replica: R) -> (Self, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (requests, receiver) = mpsc::channel(WAITING);
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
            requests,
            status: watched,
            has_been_live: Arc::clone(&has_been_live),
            timeout: config.transact_timeout,
        };
        let shell = Shell { config, replica, requests: receiver, events, status, has_been_live };
        tokio::spawn(shell.run());
        (client, heard)
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

struct Shell<R: Replica> {
    config: Config,
    replica: Arc<RwLock<R>>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::UnboundedSender<Event<R::Change>>,
    status: watch::Sender<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
}

/// All clients are gone.
struct Unused;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl<R: Replica> Shell<R> {
    async fn run(mut self) {
        let mut failures = 0;
        for attempt in 0.. {
            let count = self.config.endpoints.len().max(1);
            let Some(endpoint) = self.config.endpoints.get(attempt % count).cloned() else { return };
            let started = Instant::now();
            let was_live = match self.connection(&endpoint).await {
                Ok(Unused) => return,
                Err((was_live, reason)) => {
                    self.disconnected(format!("{endpoint}: {reason}"));
                    was_live
                }
            };
            // A server that comes up only to send nonsense must not be reloaded from without a pause.
            let served = was_live && started.elapsed() > self.config.backoff_most;
            failures = if served { 0 } else { failures + 1 };
            if self.pause(failures).await.is_err() {
                return;
            }
        }
    }

    /// Waits before the next attempt; whoever sends a transaction meanwhile is told that there is no connection.
    async fn pause(&mut self, failures: u32) -> Result<(), Unused> {
        let doubled = self.config.backoff_least.saturating_mul(1 << failures.saturating_sub(1).min(16));
        // Clients that lost one server must not all come back at the same moment.
        let [random, ..] = *Uuid::new_v4().as_bytes();
        let jitter = 0.75 + 0.5 * f64::from(random) / 256.0;
        let end = tokio::time::Instant::now() + doubled.min(self.config.backoff_most).mul_f64(jitter);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                request = self.requests.recv() => {
                    let Some(request) = request else { return Err(Unused) };
                    let reason = self.status.borrow().to_string();
                    // The caller may have given up.
                    let _ = request.answer.send(Err(TransactError::NotConnected { reason }));
                }
            }
        }
    }

    fn disconnected(&self, reason: String) {
        let since = match &*self.status.borrow() {
            ConnectionStatus::Disconnected { since, .. } => *since,
            ConnectionStatus::Live { .. } => SystemTime::now(),
        };
        let was_live = self.status.borrow().is_live();
        self.status.send_replace(ConnectionStatus::Disconnected { since, reason });
        if was_live {
            self.tell(Event::Disconnected);
        }
    }

    fn tell(&self, event: Event<R::Change>) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    /// One connection, from its beginning to its end; the error says whether it was ever of use.
    async fn connection(&mut self, endpoint: &Endpoint) -> Result<Unused, (bool, String)> {
        let stream = match tokio::time::timeout(CONNECT, connect(endpoint)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err((false, error.to_string())),
            Err(_) => return Err((false, format!("no connection within {CONNECT:?}"))),
        };
        let mut pending = HashMap::new();
        let result = self.talk(stream, endpoint, &mut pending).await;
        // Who still waits learns from the closed channel that the outcome is unknown.
        drop(pending);
        result.map_err(|error| (self.status.borrow().is_live(), error))
    }

    async fn talk(
        &mut self,
        stream: Box<dyn Stream>,
        endpoint: &Endpoint,
        pending: &mut HashMap<u64, oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>,
    ) -> Result<Unused, String> {
        let session = SessionConfig {
            database: self.config.database.clone(),
            monitored: R::monitored(),
            probe_interval: self.config.probe_interval,
            max_message: self.config.max_message,
        };
        let mut session = Session::new(session, Instant::now());
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut unsent: Vec<u8> = Vec::new();
        let mut written = 0;
        let content_due = tokio::time::Instant::now() + CONTENT;
        loop {
            session.buffer().reserve(READ);
            if written == unsent.len() {
                (unsent, written) = (session.take_output(), 0);
            }
            let rest = unsent.get(written..).unwrap_or_default();
            let may_send = rest.len() + session.unsent() < UNSENT;
            let deadline = session.deadline();
            tokio::select! {
                // What was received goes first: a reply must not wait for our own sending.
                biased;
                read = reader.read_buf(session.buffer()) => match read {
                    Ok(0) => return Err("the server closed the connection".to_owned()),
                    Ok(_) => {
                        let outputs = session.received(Instant::now()).map_err(|error| error.to_string())?;
                        for output in outputs {
                            self.output(output, endpoint, pending).map_err(|error| error.to_string())?;
                        }
                    }
                    Err(error) => return Err(error.to_string()),
                },
                sent = writer.write(rest), if !rest.is_empty() => written += sent.map_err(|error| error.to_string())?,
                request = self.requests.recv(), if may_send => {
                    let Some(request) = request else { return Ok(Unused) };
                    if request.answer.is_closed() {
                        // The caller has given up, and nothing was sent.
                        continue;
                    }
                    match session.transact(&request.operations) {
                        Some(id) => {
                            pending.insert(id, request.answer);
                        }
                        None => {
                            let reason = "the connection is new".to_owned();
                            let _ = request.answer.send(Err(TransactError::NotConnected { reason }));
                        }
                    }
                }
                () = tokio::time::sleep_until(content_due), if !session.is_live() => {
                    return Err(format!("no answer to {} within {CONTENT:?}", session.waits_for()));
                }
                () = tokio::time::sleep_until(deadline.into()) => session.tick(Instant::now()).map_err(|error| error.to_string())?,
            }
        }
    }

    fn output(
        &mut self,
        output: Output,
        endpoint: &Endpoint,
        pending: &mut HashMap<u64, oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>,
    ) -> Result<(), SessionError> {
        match output {
            Output::Live(schema, rows) => {
                let changes = self.replica.write().unwrap_or_else(PoisonError::into_inner).reload(rows)?;
                self.has_been_live.store(true, Ordering::Release);
                self.status.send_replace(ConnectionStatus::Live { endpoint: endpoint.clone(), schema });
                self.tell(Event::Reloaded(changes));
            }
            Output::Updates(updates) => {
                let changes = self.replica.write().unwrap_or_else(PoisonError::into_inner).apply(updates)?;
                if !changes.is_empty() {
                    self.tell(Event::Changed(changes));
                }
            }
            Output::Reply(id, result) => {
                if let Some(answer) = pending.remove(&id) {
                    // The caller may have given up.
                    let _ = answer.send(result);
                }
            }
        }
        Ok(())
    }
}

async fn connect(endpoint: &Endpoint) -> std::io::Result<Box<dyn Stream>> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}
