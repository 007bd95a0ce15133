//! The socket loop around a [`Session`]: connects, reconnects, and hands on what the session says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::rounds::{Ended, Rounds};
use super::stream::{self, Stream};
use super::{Config, ConnectionStatus, Event, Far, Request};
use crate::endpoint::Endpoint;
use crate::error::TransactError;
use crate::operation::OperationResult;
use crate::replica::{ColumnError, Replica};
use crate::server::Seen;
use crate::session::{Content, Output, Session, SessionConfig, SessionError};

/// Longest wait for a connection to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for the content of the database on a new connection.
const CONTENT: Duration = Duration::from_secs(10);
/// Longest wait for a connection, and then for a server's first word, where there are others to try: one that is dead or
/// frozen must not keep us from its fellows.
const OTHERS: Duration = Duration::from_secs(2);
/// Free room in the buffer before a read: a small read costs as much as a large one.
const READ: usize = 64 * 1024;
/// Bytes that the server has not taken yet; above it no further transaction is serialized.
const UNSENT: usize = 16 << 20;

/// Who waits for the replies to transactions.
type Pending = HashMap<u64, oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>;

pub(super) struct Shell<R: Replica> {
    config: Config,
    replica: Arc<RwLock<R>>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::UnboundedSender<Event<R::Change>>,
    status: watch::Sender<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
    seen: Seen,
    /// Why each of the servers was of no use when it was last tried.
    reasons: Vec<Option<String>>,
}

/// All clients are gone.
struct Unused;

/// A connection ended.
struct Lost {
    reason: String,
    is_passing: bool,
}

impl From<String> for Lost {
    fn from(reason: String) -> Self {
        Self { reason, is_passing: false }
    }
}

impl From<SessionError> for Lost {
    fn from(error: SessionError) -> Self {
        let is_passing = matches!(&error, SessionError::Server(error) if error.is_passing());
        Self { reason: error.to_string(), is_passing }
    }
}

impl From<ColumnError> for Lost {
    fn from(error: ColumnError) -> Self {
        SessionError::from(error).into()
    }
}

impl<R: Replica> Shell<R> {
    pub(super) fn new(config: Config, far: Far<R>) -> Self {
        let Far { replica, requests, events, status, has_been_live } = far;
        let reasons = vec![None; config.endpoints.len()];
        Self { config, replica, requests, events, status, has_been_live, seen: Seen::default(), reasons }
    }

    pub(super) async fn run(mut self) {
        let config = &self.config;
        let mut rounds = Rounds::new(config.endpoints.len(), config.backoff_least, config.backoff_most);
        loop {
            let number = rounds.current();
            let Some(endpoint) = self.config.endpoints.get(number).cloned() else { return };
            let started = Instant::now();
            let Err(lost) = self.connection(&endpoint).await else { return };
            let was_live = self.status.borrow().is_live();
            self.disconnected(number, format!("{endpoint}: {}", lost.reason));
            // A server that comes up only to send nonsense must not be reloaded from without a pause.
            let served = was_live && started.elapsed() > self.config.backoff_most;
            let pause = rounds.next(Ended { served, is_passing: lost.is_passing });
            if self.pause(pause).await.is_err() {
                return;
            }
        }
    }

    /// Waits before the next attempt; whoever sends a transaction meanwhile is told that there is no connection.
    async fn pause(&mut self, pause: Duration) -> Result<(), Unused> {
        // Clients that lost one server must not all come back at the same moment.
        let [random, ..] = *Uuid::new_v4().as_bytes();
        let jitter = 0.75 + 0.5 * f64::from(random) / 256.0;
        let end = tokio::time::Instant::now() + pause.mul_f64(jitter);
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

    fn disconnected(&mut self, number: usize, reason: String) {
        if let Some(known) = self.reasons.get_mut(number) {
            *known = Some(reason);
        }
        let reasons: Vec<&str> = self.reasons.iter().flatten().map(String::as_str).collect();
        let reason = reasons.join("; ");
        let mut was_live = false;
        self.status.send_if_modified(|status| {
            was_live = status.is_live();
            let since = match &*status {
                // A cluster without a leader is asked often: the same answer is no news.
                ConnectionStatus::Disconnected { reason: known, .. } if *known == reason => return false,
                ConnectionStatus::Disconnected { since, .. } => *since,
                ConnectionStatus::Live { .. } => SystemTime::now(),
            };
            *status = ConnectionStatus::Disconnected { since, reason };
            true
        });
        if was_live {
            self.tell(Event::Disconnected);
        }
    }

    fn tell(&self, event: Event<R::Change>) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self, endpoint: &Endpoint) -> Result<Unused, Lost> {
        let patience = if self.has_others() { OTHERS } else { CONNECT };
        let stream = stream::connect(endpoint, self.config.tls.as_ref(), patience).await?;
        let config = SessionConfig {
            database: self.config.database.clone(),
            monitored: R::monitored(),
            probe_interval: self.config.probe_interval,
            max_message: self.config.max_message,
            leader_only: self.config.leader_only,
        };
        let mut session = Session::new(config, self.seen.clone(), Instant::now());
        let mut pending = Pending::new();
        let result = self.talk(stream, endpoint, &mut session, &mut pending).await;
        self.seen = session.into_seen();
        // Who still waits in `pending` learns from the closed channel that the outcome is unknown.
        result
    }

    async fn talk(
        &mut self,
        stream: Box<dyn Stream>,
        endpoint: &Endpoint,
        session: &mut Session,
        pending: &mut Pending,
    ) -> Result<Unused, Lost> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut unsent: Vec<u8> = Vec::new();
        let (mut written, mut is_dirty) = (0, false);
        let began = tokio::time::Instant::now();
        let tls = self.config.tls.clone();
        let failed = |error: std::io::Error| Lost::from(stream::reason(&error, endpoint, tls.as_ref()));
        loop {
            session.buffer().reserve(READ);
            if written == unsent.len() {
                (unsent, written) = (session.take_output(), 0);
            }
            let rest = unsent.get(written..).unwrap_or_default();
            let may_send = rest.len() + session.unsent() < UNSENT;
            let deadline = session.deadline();
            let patience = self.patience(session);
            tokio::select! {
                // What was received goes first: a reply must not wait for our own sending.
                biased;
                read = reader.read_buf(session.buffer()) => match read.map_err(failed)? {
                    0 => return Err("the server closed the connection".to_owned().into()),
                    _ => self.received(session, endpoint, pending)?,
                },
                sent = push(&mut writer, rest), if !rest.is_empty() || is_dirty => {
                    is_dirty = !rest.is_empty();
                    written += sent.map_err(failed)?;
                }
                request = self.requests.recv(), if may_send => {
                    let Some(request) = request else { return Ok(Unused) };
                    send(session, request, pending);
                }
                () = tokio::time::sleep_until(began + patience), if !session.is_live() => {
                    return Err(format!("no answer to {} within {patience:?}", session.waits_for()).into());
                }
                () = tokio::time::sleep_until(deadline.into()) => session.tick(Instant::now())?,
            }
        }
    }

    /// Longest wait for what a new session waits for.
    fn patience(&self, session: &Session) -> Duration {
        if self.has_others() && !session.is_greeted() { OTHERS } else { CONTENT }
    }

    fn has_others(&self) -> bool {
        self.config.endpoints.len() > 1
    }

    /// Hands on what came, also where the connection is of no use from then on.
    fn received(
        &mut self,
        session: &mut Session,
        endpoint: &Endpoint,
        pending: &mut Pending,
    ) -> Result<(), Lost> {
        let mut outputs = Vec::new();
        let received = session.received(Instant::now(), &mut outputs);
        for output in outputs {
            self.output(output, endpoint, pending)?;
        }
        session.taken();
        Ok(received?)
    }

    fn output(
        &mut self,
        output: Output,
        endpoint: &Endpoint,
        pending: &mut Pending,
    ) -> Result<(), ColumnError> {
        match output {
            Output::Live(schema, content) => {
                let rows = content.rows().len();
                let mut replica = self.replica.write().unwrap_or_else(PoisonError::into_inner);
                let (whole, changes) = match content {
                    Content::Whole(rows) => (true, replica.reload(rows)?),
                    Content::Since(rows) => (false, replica.apply(rows)?),
                };
                drop(replica);
                tracing::debug!(%endpoint, rows, whole, differences = changes.len(), "the content has come");
                self.has_been_live.store(true, Ordering::Release);
                self.reasons.fill(None);
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

/// Writes some bytes; with none, what the stream still holds, since TLS keeps back what the socket did not take.
async fn push(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(bytes).await }
}

/// Gives a transaction to the session.
fn send(session: &mut Session, request: Request, pending: &mut Pending) {
    if request.answer.is_closed() {
        // The caller has given up, and nothing was sent.
        return;
    }
    match session.transact(&request.operations, Instant::now()) {
        Some(id) => {
            pending.insert(id, request.answer);
        }
        None => {
            let reason = "the connection is new".to_owned();
            let _ = request.answer.send(Err(TransactError::NotConnected { reason }));
        }
    }
}
