//! One connection to an OVSDB server, as a state machine: bytes and the time go in; bytes, events and the next deadline
//! come out. No IO, no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use self::message::{field, outcome, triple, unexpected};
use super::error::{TransactError, words};
use super::framing::{FramingError, Splitter};
use super::operation::{Operation, OperationResult, Transact};
use super::replica::{MonitoredTable, RowUpdate};
use super::schema::{Schema, SchemaError};
use super::server::{SERVER, Seen, Server, ServerError};

mod handshake;
mod message;

/// Silence after which a member of a cluster that owes an answer is asked whether it lives, where that is less than the
/// probe interval. The others elect a new leader within this time; a standalone server has nobody who could stand in.
const OWING: Duration = Duration::from_millis(1500);
/// The id of our monitor of the database.
const MONITOR: &str = "fiberlb";
/// The id of our monitor of what the server says of itself.
const SERVER_MONITOR: &str = "fiberlb-server";

/// What a session is for.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Name of the database, such as `OVN_Northbound`.
    pub database: String,
    /// What to monitor.
    pub monitored: Vec<MonitoredTable>,
    /// Silence after which the server is asked whether it lives; as much again, and the connection counts as dead.
    pub probe_interval: Duration,
    /// Largest message, in bytes.
    pub max_message: usize,
    /// Of a cluster, take content from its leader alone.
    pub leader_only: bool,
}

/// Why a connection is of no use any more.
#[derive(Debug, Error)]
pub enum SessionError {
    /// Not a stream of JSON objects.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// An object that is not JSON.
    #[error("the server sent malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON that is not what was to come.
    #[error("the server sent {0}")]
    Unexpected(String),
    /// A server that content must not be taken from.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Not a schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A schema of something else.
    #[error("the database has no table {0}: is it OVN's northbound database?")]
    MissingTable(&'static str),
    /// The server refused one of our requests.
    #[error("the server refused {method}: {}{hint}", words(.error))]
    Refused {
        /// Which.
        method: &'static str,
        /// In its words.
        error: Value,
        /// What to do.
        hint: &'static str,
    },
    /// The server asks on and on, and does not read what it is answered.
    #[error("the server does not read the answers to its own requests")]
    Unread,
    /// The server is silent.
    #[error("the server has not answered for {0:?}")]
    Silent(Duration),
    /// A column that is not what it should be.
    #[error("the server sent a malformed row: {0}")]
    Row(#[from] super::replica::ColumnError),
}

/// What a session says.
#[derive(Debug)]
pub enum Output {
    /// The content of the database; updates follow.
    Live(Arc<Schema>, Content),
    /// The changes of one transaction.
    Updates(Vec<RowUpdate>),
    /// The end of one of our transactions. Its updates came before.
    Reply(u64, Result<Vec<OperationResult>, TransactError>),
}

/// What a session begins with.
#[derive(Debug)]
pub enum Content {
    /// All rows.
    Whole(Vec<RowUpdate>),
    /// The changes since the last transaction that the replica holds.
    Since(Vec<RowUpdate>),
}

impl Content {
    /// The rows in it.
    #[must_use]
    pub fn rows(&self) -> &[RowUpdate] {
        match self {
            Self::Whole(rows) | Self::Since(rows) => rows,
        }
    }
}

/// A JSON-RPC message.
type Message = Map<String, Value>;

#[derive(Debug)]
enum Phase {
    Server,
    Schema,
    Monitor(Arc<Schema>),
    Live,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    /// What the server says of itself.
    server: Server,
    seen: Seen,
    /// What is monitored.
    monitored: Arc<Value>,
    /// The last transaction of what was given out and not yet taken.
    untaken: Option<Uuid>,
    splitter: Splitter,
    output: Vec<u8>,
    heard: Instant,
    /// When a silent server was asked whether it lives.
    probed: Option<Instant>,
    next_id: u64,
    /// Transactions without an answer, with the number of their operations.
    pending: HashMap<u64, usize>,
    /// Since when there are such.
    owed: Option<Instant>,
}

impl Session {
    /// A session on a fresh connection, with what is known from those before it. It first asks the server what it is.
    #[must_use]
    pub fn new(config: SessionConfig, seen: Seen, now: Instant) -> Self {
        let splitter = Splitter::new(config.max_message);
        let mut session = Self {
            config,
            phase: Phase::Server,
            server: Server::default(),
            seen,
            monitored: Arc::default(),
            untaken: None,
            splitter,
            output: Vec::new(),
            heard: now,
            probed: None,
            next_id: 0,
            pending: HashMap::new(),
            owed: None,
        };
        // Without it a server would close the connection whenever one of its databases comes or goes.
        session.request("set_db_change_aware", &json!([true]), &json!("aware"));
        session.request(
            "monitor_cond",
            &json!([SERVER, SERVER_MONITOR, Server::monitored()]),
            &json!("server"),
        );
        session
    }

    /// Where received bytes go; then call [`Session::received`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.splitter.buffer()
    }

    /// Reads the messages in the buffer. When what came of them is done, say so with [`Session::taken`].
    ///
    /// # Errors
    /// [`SessionError`]: the connection is of no use any more. What came before stands in `outputs` all the same.
    pub fn received(&mut self, now: Instant, outputs: &mut Vec<Output>) -> Result<(), SessionError> {
        self.heard = now;
        self.probed = None;
        while let Some(message) = self.splitter.split()? {
            let message: Message = serde_json::from_slice(&message)?;
            outputs.extend(self.message(message)?);
        }
        if self.pending.is_empty() {
            self.owed = None;
        }
        Ok(())
    }

    /// The replica holds all that was given out.
    pub fn taken(&mut self) {
        if let Some(transaction) = self.untaken.take() {
            self.seen.holds(&self.monitored, transaction);
        }
    }

    /// What is known now, for the next session.
    #[must_use]
    pub fn into_seen(self) -> Seen {
        self.seen
    }

    /// Sends a transaction; answers with the id that its reply will have. `None` while the session is not live.
    pub fn transact(&mut self, operations: &[Operation], now: Instant) -> Option<u64> {
        if !matches!(self.phase, Phase::Live) {
            return None;
        }
        self.next_id += 1;
        self.pending.insert(self.next_id, operations.len());
        self.owed.get_or_insert(now);
        let database = &self.config.database;
        let request = Transact { database, operations, id: self.next_id };
        // Writing into memory cannot fail, nor can columns that are JSON already.
        let _ = serde_json::to_writer(&mut self.output, &request);
        Some(self.next_id)
    }

    /// Whether the content of the database has come.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// What is waited for before the content comes.
    #[must_use]
    pub fn waits_for(&self) -> &'static str {
        match self.phase {
            Phase::Server => "monitor_cond",
            Phase::Schema => "get_schema",
            Phase::Monitor(_) | Phase::Live => "monitor_cond_since",
        }
    }

    /// Whether the server has said what it is.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        !matches!(self.phase, Phase::Server)
    }

    /// Bytes to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How many bytes [`Session::take_output`] would give.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// When to call [`Session::tick`] if nothing is received before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let heard = self.owed.map_or(self.heard, |owed| owed.max(self.heard));
        self.probed.unwrap_or(heard) + self.patience()
    }

    /// How long the server may be silent.
    fn patience(&self) -> Duration {
        let is_urgent = self.owed.is_some() && self.server.is_clustered(&self.config.database);
        if is_urgent { OWING.min(self.config.probe_interval) } else { self.config.probe_interval }
    }

    /// Looks at the time: asks a silent server whether it lives.
    ///
    /// # Errors
    /// [`SessionError::Silent`] when it was asked and did not answer.
    pub fn tick(&mut self, now: Instant) -> Result<(), SessionError> {
        if now < self.deadline() {
            return Ok(());
        }
        if self.probed.is_some() {
            return Err(SessionError::Silent(self.patience() * 2));
        }
        self.probed = Some(now);
        self.request("echo", &json!([]), &json!("echo"));
        Ok(())
    }

    fn request(&mut self, method: &str, params: &Value, id: &Value) {
        self.send(&json!({"method": method, "params": params, "id": id}));
    }

    fn send(&mut self, message: &Value) {
        // Writing into memory cannot fail, nor can a value that is JSON already.
        let _ = serde_json::to_writer(&mut self.output, message);
    }

    fn message(&mut self, mut message: Message) -> Result<Option<Output>, SessionError> {
        let method = message.get("method").and_then(Value::as_str).map(str::to_owned);
        match method.as_deref() {
            Some("echo") => {
                if self.output.len() > self.config.max_message {
                    return Err(SessionError::Unread);
                }
                let (id, params) = (field(&mut message, "id"), field(&mut message, "params"));
                self.send(&json!({"id": id, "result": params, "error": null}));
                Ok(None)
            }
            Some("update3") => self.update(field(&mut message, "params")).map(Some),
            Some("update2") => self.server_update(field(&mut message, "params")).map(|()| None),
            Some("monitor_canceled") => Err(SessionError::Unexpected("an end of the monitor".to_owned())),
            Some(other) => {
                tracing::debug!(method = other, "a notification that nobody asked for");
                Ok(None)
            }
            None => self.reply(&mut message),
        }
    }

    fn update(&mut self, params: Value) -> Result<Output, SessionError> {
        if !self.is_live() {
            return Err(unexpected("an update before the content"));
        }
        let (_, transaction, updates) = triple(params)?;
        self.give_out(transaction);
        Ok(Output::Updates(updates))
    }

    /// Until the replica has it, what it holds is not what `seen` says.
    fn give_out(&mut self, transaction: Uuid) {
        self.seen.forget_content();
        self.untaken = Some(transaction);
    }

    fn reply(&mut self, message: &mut Message) -> Result<Option<Output>, SessionError> {
        let (result, error) = (field(message, "result"), field(message, "error"));
        match &field(message, "id") {
            Value::String(id) if id == "echo" || id == "aware" => Ok(None),
            Value::String(id) if id == "server" => self.server(result, error).map(|()| None),
            Value::String(id) if id == "schema" => self.schema(&result, error).map(|()| None),
            Value::String(id) if id == "monitor" => self.content(result, error).map(Some),
            id => match id.as_u64().and_then(|id| Some((id, self.pending.remove(&id)?))) {
                Some((id, operations)) => Ok(Some(Output::Reply(id, outcome(operations, &result, &error)))),
                None => {
                    tracing::debug!(%id, "a reply to nothing that is waited for");
                    Ok(None)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests;
