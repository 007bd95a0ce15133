//! One connection to a server as a state machine: it takes received bytes and the time, and returns bytes to send, events and the
//! next deadline. No IO, no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use self::message::{content_parts, field, outcome, unexpected};
use self::reading::Reading;
use super::error::{TransactError, rpc_error_text};
use super::framing::{FramingError, Splitter};
use super::operation::{Operation, OperationResult, Transact};
use super::replica::{ColumnError, MonitoredTable, RowUpdate};
use super::schema::{Schema, SchemaError};
use super::server::{ResumeState, SERVER_DATABASE, Server, ServerError};

mod handshake;
mod message;
mod reading;

/// Silence after which a cluster member that owes a reply is probed, where that is less than the probe interval. The other
/// members elect a new leader within this time; a standalone server has no successor.
const REPLY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Id of the monitor of the database.
const MONITOR: &str = "content";
/// Id of the monitor that a part of the content is read by.
const PART_MONITOR: &str = "part";
/// Id of the monitor of `_Server`.
const SERVER_MONITOR: &str = "server";

/// Settings of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionConfig {
    /// Name of the database.
    pub(crate) database: String,
    /// Tables to monitor; `None` for all.
    pub(crate) monitored: Option<Vec<MonitoredTable>>,
    /// Silence after which the server is probed.
    pub(crate) probe_interval: Duration,
    /// Longest message that is accepted, in bytes.
    pub(crate) max_message_bytes: usize,
    /// True: of a cluster, use the leader only.
    pub(crate) leader_only: bool,
}

/// Reason why a session cannot go on.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Bytes that are not JSON objects.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// List of the rows of a table that is longer than a message may be.
    #[error("the UUIDs of the rows of {table} alone are too long: {source}")]
    LongList {
        /// Table.
        table: String,
        /// Limit that the list is beyond.
        source: FramingError,
    },
    /// Row that is longer than a message may be.
    #[error("a row of {table} is too long: {source}, or remove the row")]
    LongRow {
        /// Table of the row.
        table: String,
        /// Limit that the row is beyond.
        source: FramingError,
    },
    /// Rows that are longer together than a message may be: the next connection asks for shorter parts.
    #[error("{rows} rows of {table} together are too long; the next connection asks for fewer")]
    LongPart {
        /// Table of the rows.
        table: String,
        /// Number of the rows.
        rows: usize,
        /// Limit that the rows are beyond.
        source: FramingError,
    },
    /// Object that is not JSON.
    #[error("the server sent malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Message that the protocol does not allow at this point.
    #[error("the server sent {0}")]
    Unexpected(String),
    /// Server whose content is not used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Reply to `get_schema` that is not a schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Schema without a required table.
    #[error("the database has no table {0}: it is another database, or of an older version")]
    MissingTable(String),
    /// Request that the server refused.
    #[error("the server refused {method}: {}{hint}", rpc_error_text(.error))]
    Refused {
        /// JSON-RPC method of the request.
        method: &'static str,
        /// The server's error.
        error: Value,
        /// Suggestion for the operator; may be empty.
        hint: &'static str,
    },
    /// Server that sends echo requests without reading the replies.
    #[error("the server does not read the replies to its echo requests")]
    Unread,
    /// Server that did not answer a probe: no byte was received for this time.
    #[error("the server has not answered for {0:?}")]
    Silent(Duration),
    /// Row that does not fit the replica.
    #[error("the server sent a malformed row: {0}")]
    Row(#[from] ColumnError),
}

/// Event of a session.
#[derive(Debug)]
pub(crate) enum Output {
    /// The content of the database: the session is live, and updates follow.
    Live(Arc<Schema>, Content),
    /// Updates of one transaction.
    Updates(Vec<RowUpdate>),
    /// Reply to one of our transactions, whose updates were reported before.
    Reply(u64, Result<Vec<OperationResult>, TransactError>),
}

/// Content that a session begins with.
#[derive(Debug)]
pub(crate) enum Content {
    /// All rows.
    Snapshot(Vec<RowUpdate>),
    /// Updates since the last transaction that the replica includes.
    Delta(Vec<RowUpdate>),
}

impl Content {
    pub(crate) fn rows(&self) -> &[RowUpdate] {
        match self {
            Self::Snapshot(rows) | Self::Delta(rows) => rows,
        }
    }
}

/// A JSON-RPC message.
type Message = Map<String, Value>;

/// Reply that a session awaits before it is live.
#[derive(Debug)]
enum Phase {
    /// Reply to the monitor of `_Server`.
    Server,
    /// Reply to `get_schema`.
    Schema,
    /// Reply to the monitor of the database.
    Monitor(Arc<Schema>),
    /// Reply to a monitor of a part of the content.
    Reading(Reading),
    /// None.
    Live,
}

/// State of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    config: SessionConfig,
    phase: Phase,
    server: Server,
    state: ResumeState,
    /// Monitor request of the database.
    monitored: Arc<Value>,
    /// Last transaction that was reported and not yet acknowledged.
    unacknowledged: Option<Uuid>,
    splitter: Splitter,
    /// Length of the longest message, in bytes; of one that is too long, that of what was received of it.
    longest_message: usize,
    output: Vec<u8>,
    last_received: Instant,
    /// Time since which the reply is awaited that the phase names.
    awaited_since: Instant,
    /// Time of the probe of a silent server.
    probed_at: Option<Instant>,
    last_id: u64,
    /// Number of operations of each transaction without a reply.
    pending: HashMap<u64, usize>,
    /// Earliest time since which there were transactions without a reply.
    pending_since: Option<Instant>,
}

impl Session {
    /// Session on a new connection, with the state of the sessions before it. It first asks for the server's description.
    pub(crate) fn new(config: SessionConfig, state: ResumeState, now: Instant) -> Self {
        let splitter = Splitter::new(config.max_message_bytes);
        let mut session = Self {
            config,
            phase: Phase::Server,
            server: Server::default(),
            state,
            monitored: Arc::default(),
            unacknowledged: None,
            splitter,
            longest_message: 0,
            output: Vec::new(),
            last_received: now,
            awaited_since: now,
            probed_at: None,
            last_id: 0,
            pending: HashMap::new(),
            pending_since: None,
        };
        // Otherwise the server closes the connection whenever one of its databases is added or removed.
        session.request("set_db_change_aware", &json!([true]), &json!("aware"));
        session.request(
            "monitor_cond",
            &json!([SERVER_DATABASE, SERVER_MONITOR, Server::monitored()]),
            &json!("server"),
        );
        session
    }

    /// Buffer that received bytes are appended to; then call [`Session::received`].
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.splitter.buffer()
    }

    /// Processes the messages in the buffer. Once their outputs have been applied, call [`Session::acknowledge`].
    ///
    /// # Errors
    /// [`SessionError`]: the connection must be closed. `outputs` holds what was received before.
    pub(crate) fn received(&mut self, now: Instant, outputs: &mut Vec<Output>) -> Result<(), SessionError> {
        self.last_received = now;
        self.probed_at = None;
        while let Some(message) = self.splitter.split().map_err(|error| self.too_long(error))? {
            let bytes = message.len();
            self.longest_message = self.longest_message.max(bytes);
            let message: Message = serde_json::from_slice(&message)?;
            outputs.extend(self.message(message, bytes)?);
        }
        if self.pending.is_empty() {
            self.pending_since = None;
        }
        Ok(())
    }

    /// Error for a message that is too long. The next session must not ask for the same one.
    fn too_long(&mut self, source: FramingError) -> SessionError {
        self.longest_message = self.longest_message.max(self.splitter.buffer().len());
        self.state.clear_content();
        self.unacknowledged = None;
        let Phase::Reading(reading) = &self.phase else { return source.into() };
        match reading.awaited() {
            None => source.into(),
            Some((table, None)) => SessionError::LongList { table, source },
            Some((table, Some(1))) => SessionError::LongRow { table, source },
            Some((table, Some(rows))) => {
                self.state.part_was_too_long();
                SessionError::LongPart { table, rows, source }
            }
        }
    }

    /// Records that the replica includes all reported updates.
    pub(crate) fn acknowledge(&mut self) {
        if let Some(transaction) = self.unacknowledged.take() {
            self.state.set_content(&self.monitored, transaction);
        }
    }

    /// Length of the longest message, in bytes; of one that is too long, that of what was received of it.
    pub(crate) fn longest_message(&self) -> usize {
        self.longest_message
    }

    /// State for the next session.
    pub(crate) fn into_state(self) -> ResumeState {
        self.state
    }

    /// Queues a transaction; returns the id of its reply, or `None` while the session is not live.
    pub(crate) fn transact(&mut self, operations: &[Operation], now: Instant) -> Option<u64> {
        if !matches!(self.phase, Phase::Live) {
            return None;
        }
        self.last_id += 1;
        self.pending.insert(self.last_id, operations.len());
        self.pending_since.get_or_insert(now);
        let database = &self.config.database;
        let request = Transact { database, operations, id: self.last_id };
        // Writing into memory cannot fail, nor can columns that are JSON already.
        let _ = serde_json::to_writer(&mut self.output, &request);
        Some(self.last_id)
    }

    /// True once the content was received.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Method of the request whose reply is awaited before the session is live.
    pub(crate) fn awaited_method(&self) -> &'static str {
        match self.phase {
            Phase::Server | Phase::Reading(_) => "monitor_cond",
            Phase::Schema => "get_schema",
            Phase::Monitor(_) | Phase::Live => "monitor_cond_since",
        }
    }

    /// Time since which that reply is awaited.
    pub(crate) fn awaited_since(&self) -> Instant {
        self.awaited_since
    }

    /// True once the server has described itself and may be used.
    pub(crate) fn is_server_accepted(&self) -> bool {
        !matches!(self.phase, Phase::Server)
    }

    /// Takes the bytes to send.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Number of bytes that [`Session::take_output`] would return.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.output.len()
    }

    /// Time of the next [`Session::tick`], unless something is received before.
    pub(crate) fn deadline(&self) -> Instant {
        let quiet_since =
            self.pending_since.map_or(self.last_received, |since| since.max(self.last_received));
        self.probed_at.unwrap_or(quiet_since) + self.silence_limit()
    }

    /// Silence after which the server is probed, and after the probe, given up.
    fn silence_limit(&self) -> Duration {
        let is_urgent = self.pending_since.is_some() && self.server.is_clustered(&self.config.database);
        if is_urgent { REPLY_TIMEOUT.min(self.config.probe_interval) } else { self.config.probe_interval }
    }

    /// Probes a silent server once the deadline has passed.
    ///
    /// # Errors
    /// [`SessionError::Silent`] if the previous probe was not answered.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<(), SessionError> {
        if now < self.deadline() {
            return Ok(());
        }
        if self.probed_at.is_some() {
            return Err(SessionError::Silent(self.silence_limit() * 2));
        }
        self.probed_at = Some(now);
        self.request("echo", &json!([]), &json!("echo"));
        Ok(())
    }

    /// Sends a request whose reply is awaited before the session is live, and goes on to the phase that awaits it.
    fn ask(&mut self, phase: Phase, method: &str, params: &Value, id: &str) {
        self.phase = phase;
        self.awaited_since = self.last_received;
        self.request(method, params, &json!(id));
    }

    fn request(&mut self, method: &str, params: &Value, id: &Value) {
        self.send(&json!({"method": method, "params": params, "id": id}));
    }

    fn send(&mut self, message: &Value) {
        // Writing into memory cannot fail, nor can a value that is JSON already.
        let _ = serde_json::to_writer(&mut self.output, message);
    }

    fn message(&mut self, mut message: Message, bytes: usize) -> Result<Option<Output>, SessionError> {
        let method = message.get("method").and_then(Value::as_str).map(str::to_owned);
        match method.as_deref() {
            Some("echo") => {
                if self.output.len() > self.config.max_message_bytes {
                    return Err(SessionError::Unread);
                }
                let (id, params) = (field(&mut message, "id"), field(&mut message, "params"));
                self.send(&json!({"id": id, "result": params, "error": null}));
                Ok(None)
            }
            Some("update3") => self.update(field(&mut message, "params")),
            Some("update2") => self.server_update(field(&mut message, "params")).map(|()| None),
            Some("monitor_canceled") => Err(unexpected("the cancellation of the monitor")),
            Some(other) => {
                tracing::debug!(method = other, "ignoring unknown notification");
                Ok(None)
            }
            None => self.reply(&mut message, bytes),
        }
    }

    fn update(&mut self, params: Value) -> Result<Option<Output>, SessionError> {
        let (_, transaction, updates) = content_parts(params)?;
        match &mut self.phase {
            Phase::Live => {
                self.report(transaction);
                Ok(Some(Output::Updates(updates)))
            }
            Phase::Reading(reading) => {
                reading.update(transaction, updates);
                Ok(None)
            }
            _ => Err(unexpected("an update before the content")),
        }
    }

    /// Notes that updates up to `transaction` were reported: until they are acknowledged, the replica's content is unknown.
    fn report(&mut self, transaction: Uuid) {
        self.state.clear_content();
        self.unacknowledged = Some(transaction);
    }

    fn reply(&mut self, message: &mut Message, bytes: usize) -> Result<Option<Output>, SessionError> {
        let (result, error) = (field(message, "result"), field(message, "error"));
        match &field(message, "id") {
            Value::String(id) if id == "echo" || id == "aware" || id == "cancel" => Ok(None),
            Value::String(id) if id == "server" => self.server(result, error).map(|()| None),
            Value::String(id) if id == "schema" => self.schema(&result, error).map(|()| None),
            Value::String(id) if id == "monitor" => self.monitor(result, error),
            Value::String(id) if id == "part" => self.part(result, error, bytes),
            id => match id.as_u64().and_then(|id| Some((id, self.pending.remove(&id)?))) {
                Some((id, operations)) => Ok(Some(Output::Reply(id, outcome(operations, &result, &error)))),
                None => {
                    tracing::debug!(%id, "ignoring reply to an unknown request");
                    Ok(None)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
