//! Driver of a client's connection: the socket loop around a [`Session`], and reconnects.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::publisher::Publisher;
use super::reconnect::{AttemptOutcome, Reconnect};
use super::stream::{self, Stream};
use super::{Config, ConnectionError, ConnectionStatus, Event, Request};
use crate::endpoint::Endpoint;
use crate::error::TransactError;
use crate::operation::OperationResult;
use crate::replica::Replica;
use crate::server::ResumeState;
use crate::session::{Output, Session, SessionConfig};

/// Time to make a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to each reply, until the content of the database is complete.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to make a connection, and then to the server's first reply, where there are other servers to try: one that is dead or
/// frozen must not delay them.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Free room in the buffer before a read, in bytes: a small read costs as much as a large one.
const READ_BYTES: usize = 64 * 1024;
/// Limit of bytes that the server has not taken yet; above it no further transaction is serialized.
const MAX_UNSENT_BYTES: usize = 16 << 20;

/// Callers of transactions without a reply, by the id of the request.
type Pending = HashMap<u64, oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>;

/// Task that keeps a client connected.
pub(super) struct Driver<R: Replica> {
    config: Config,
    publisher: Publisher<R>,
    requests: mpsc::Receiver<Request>,
    state: ResumeState,
    /// Last error of each endpoint since the client was live.
    errors: Vec<Option<Arc<ConnectionError>>>,
}

/// End of the driver: all clients were dropped.
struct ClientsDropped;

impl<R: Replica> Driver<R> {
    pub(super) fn new(config: Config, publisher: Publisher<R>, requests: mpsc::Receiver<Request>) -> Self {
        let errors = vec![None; config.endpoints.len()];
        Self { config, publisher, requests, state: ResumeState::default(), errors }
    }

    pub(super) async fn run(mut self) {
        let config = &self.config;
        let mut reconnect = Reconnect::new(config.endpoints.len(), config.backoff_min, config.backoff_max);
        loop {
            let index = reconnect.current();
            let Some(endpoint) = self.config.endpoints.get(index).cloned() else { return };
            let started = Instant::now();
            let Err(error) = self.connect(&endpoint).await else { return };
            let was_live = self.publisher.status.borrow().is_live();
            // A server that is live only to send nonsense must not be reloaded from without a pause.
            let was_stable = was_live && started.elapsed() > self.config.backoff_max;
            let outcome = AttemptOutcome { was_stable, is_transient: error.is_transient() };
            self.disconnected(index, error);
            if self.pause(reconnect.advance(outcome)).await.is_err() {
                return;
            }
        }
    }

    /// Waits before the next attempt; refuses transactions meanwhile.
    async fn pause(&mut self, pause: Duration) -> Result<(), ClientsDropped> {
        // Clients that lost the same server must not all return at the same moment.
        let [random, ..] = *Uuid::new_v4().as_bytes();
        let jitter = 0.75 + 0.5 * f64::from(random) / 256.0;
        let end = tokio::time::Instant::now() + pause.mul_f64(jitter);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(end) => return Ok(()),
                request = self.requests.recv() => {
                    let Some(request) = request else { return Err(ClientsDropped) };
                    let reason = self.publisher.status.borrow().to_string();
                    request.refuse(reason);
                }
            }
        }
    }

    /// Publishes that the connection to the endpoint with this index failed.
    fn disconnected(&mut self, index: usize, error: ConnectionError) {
        let is_news = self
            .errors
            .get(index)
            .and_then(Option::as_ref)
            .is_none_or(|known| known.to_string() != error.to_string());
        if let Some(known) = self.errors.get_mut(index) {
            *known = Some(Arc::new(error));
        }
        let tried = self.config.endpoints.iter().zip(&self.errors);
        let errors = tried.filter_map(|(endpoint, error)| Some((endpoint.clone(), error.clone()?))).collect();
        let mut was_live = false;
        self.publisher.status.send_if_modified(|status| {
            was_live = status.is_live();
            let since = match &*status {
                // A cluster without a leader is asked often: the same error is not reported again.
                ConnectionStatus::Disconnected { .. } if !is_news => return false,
                ConnectionStatus::Disconnected { since, .. } => *since,
                ConnectionStatus::Live { .. } => SystemTime::now(),
            };
            *status = ConnectionStatus::Disconnected { since, errors };
            true
        });
        if was_live {
            self.publisher.send(Event::Disconnected);
        }
    }

    /// Makes one connection, and drives it to its end.
    async fn connect(&mut self, endpoint: &Endpoint) -> Result<ClientsDropped, ConnectionError> {
        let timeout = if self.has_alternatives() { FAILOVER_TIMEOUT } else { CONNECT_TIMEOUT };
        let stream = stream::connect(endpoint, self.config.tls.as_ref(), timeout).await?;
        let monitored =
            self.publisher.replica.read().unwrap_or_else(std::sync::PoisonError::into_inner).monitored();
        let config = SessionConfig {
            database: self.config.database.clone(),
            monitored,
            probe_interval: self.config.probe_interval,
            max_message_bytes: self.config.max_message_bytes,
            leader_only: self.config.leader_only,
        };
        let mut session = Session::new(config, self.state.clone(), Instant::now());
        let mut pending = Pending::new();
        let result = self.drive(stream, endpoint, &mut session, &mut pending).await;
        self.state = session.into_state();
        // The callers in `pending` learn from the closed channel that the outcome is unknown.
        result
    }

    async fn drive(
        &mut self,
        stream: Box<dyn Stream>,
        endpoint: &Endpoint,
        session: &mut Session,
        pending: &mut Pending,
    ) -> Result<ClientsDropped, ConnectionError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut unsent: Vec<u8> = Vec::new();
        let (mut written, mut needs_flush) = (0, false);
        let tls = self.config.tls.clone();
        let failed = |error: std::io::Error| stream::error(error, endpoint, tls.as_ref());
        loop {
            session.buffer().reserve(READ_BYTES);
            if written == unsent.len() {
                (unsent, written) = (session.take_output(), 0);
            }
            let rest = unsent.get(written..).unwrap_or_default();
            let may_send = rest.len() + session.queued_bytes() < MAX_UNSENT_BYTES;
            let deadline = session.deadline();
            let timeout = self.reply_timeout(session);
            let answer_by = session.awaited_since() + timeout;
            tokio::select! {
                // Received bytes go first: a reply must not wait for what we send.
                biased;
                read = reader.read_buf(session.buffer()) => match read.map_err(failed)? {
                    0 => return Err(ConnectionError::Closed),
                    _ => self.received(session, endpoint, pending)?,
                },
                sent = write_or_flush(&mut writer, rest), if !rest.is_empty() || needs_flush => {
                    needs_flush = !rest.is_empty();
                    written += sent.map_err(failed)?;
                }
                request = self.requests.recv(), if may_send => {
                    let Some(request) = request else { return Ok(ClientsDropped) };
                    send(session, request, pending);
                }
                () = tokio::time::sleep_until(answer_by.into()), if !session.is_live() => {
                    return Err(ConnectionError::ReplyTimeout { method: session.awaited_method(), timeout });
                }
                () = tokio::time::sleep_until(deadline.into()) => session.tick(Instant::now())?,
            }
        }
    }

    /// Time to the reply that a new session awaits.
    fn reply_timeout(&self, session: &Session) -> Duration {
        if self.has_alternatives() && !session.is_server_accepted() {
            FAILOVER_TIMEOUT
        } else {
            REPLY_TIMEOUT
        }
    }

    fn has_alternatives(&self) -> bool {
        self.config.endpoints.len() > 1
    }

    /// Applies the outputs of the received bytes, also where the connection must be closed after them.
    fn received(
        &mut self,
        session: &mut Session,
        endpoint: &Endpoint,
        pending: &mut Pending,
    ) -> Result<(), ConnectionError> {
        let mut outputs = Vec::new();
        let received = session.received(Instant::now(), &mut outputs);
        self.publisher.longest_message.store(session.longest_message(), Ordering::Relaxed);
        for output in outputs {
            match output {
                Output::Live(schema, content) => {
                    self.publisher.live(endpoint, schema, content)?;
                    self.errors.fill(None);
                }
                Output::Updates(updates) => self.publisher.update(updates)?,
                Output::Reply(id, result) => {
                    if let Some(reply) = pending.remove(&id) {
                        // The caller may have given up.
                        let _ = reply.send(result);
                    }
                }
            }
        }
        session.acknowledge();
        Ok(received?)
    }
}

/// Writes some bytes; without any, flushes the stream, since TLS keeps back what the socket did not take.
async fn write_or_flush(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<usize> {
    if bytes.is_empty() { writer.flush().await.map(|()| 0) } else { writer.write(bytes).await }
}

/// Queues a transaction on the session.
fn send(session: &mut Session, request: Request, pending: &mut Pending) {
    if request.reply.is_closed() {
        // The caller has given up before anything was sent.
        return;
    }
    match session.transact(&request.operations, Instant::now()) {
        Some(id) => {
            pending.insert(id, request.reply);
        }
        None => request.refuse("the connection is new".to_owned()),
    }
}
