//! One connection to an OVSDB server, as a state machine: bytes and the time go in; bytes, events and the next deadline
//! come out. No IO, no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::error::{TransactError, words};
use super::framing::{FramingError, Splitter};
use super::operation::{Operation, OperationResult, Transact};
use super::replica::{MonitoredTable, RowChange, RowUpdate};
use super::schema::{Schema, SchemaError};

/// The id of our one monitor.
const MONITOR: &str = "fiberlb";

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
    /// The whole content of the database; updates follow.
    Live(Arc<Schema>, Vec<RowUpdate>),
    /// The changes of one transaction.
    Updates(Vec<RowUpdate>),
    /// The end of one of our transactions. Its updates came before.
    Reply(u64, Result<Vec<OperationResult>, TransactError>),
}

/// A JSON-RPC message.
type Message = Map<String, Value>;

#[derive(Debug)]
enum Phase {
    Schema,
    Monitor(Arc<Schema>),
    Live,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    splitter: Splitter,
    output: Vec<u8>,
    heard: Instant,
    /// When a silent server was asked whether it lives.
    probed: Option<Instant>,
    next_id: u64,
    /// Transactions without an answer, with the number of their operations.
    pending: HashMap<u64, usize>,
}

impl Session {
    /// A session on a fresh connection. It asks for the schema first.
    #[must_use]
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let splitter = Splitter::new(config.max_message);
        let mut session = Self {
            config,
            phase: Phase::Schema,
            splitter,
            output: Vec::new(),
            heard: now,
            probed: None,
            next_id: 0,
            pending: HashMap::new(),
        };
        session.request("get_schema", &json!([session.config.database]), &json!("schema"));
        session
    }

    /// Where received bytes go; then call [`Session::received`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.splitter.buffer()
    }

    /// Reads the messages in the buffer.
    ///
    /// # Errors
    /// [`SessionError`]: the connection is of no use any more.
    pub fn received(&mut self, now: Instant) -> Result<Vec<Output>, SessionError> {
        self.heard = now;
        self.probed = None;
        let mut outputs = Vec::new();
        while let Some(message) = self.splitter.split()? {
            let message: Message = serde_json::from_slice(&message)?;
            outputs.extend(self.message(message)?);
        }
        Ok(outputs)
    }

    /// Sends a transaction; answers with the id that its reply will have. `None` while the session is not live.
    pub fn transact(&mut self, operations: &[Operation]) -> Option<u64> {
        if !matches!(self.phase, Phase::Live) {
            return None;
        }
        self.next_id += 1;
        self.pending.insert(self.next_id, operations.len());
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
            Phase::Schema => "get_schema",
            Phase::Monitor(_) | Phase::Live => "monitor_cond_since",
        }
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
        self.probed.unwrap_or(self.heard) + self.config.probe_interval
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
            return Err(SessionError::Silent(self.config.probe_interval * 2));
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
            Some("update3") => self.update(field(&mut message, "params")),
            Some("monitor_canceled") => Err(SessionError::Unexpected("an end of the monitor".to_owned())),
            Some(other) => {
                tracing::debug!(method = other, "a notification that nobody asked for");
                Ok(None)
            }
            None => self.reply(&mut message),
        }
    }

    fn update(&mut self, params: Value) -> Result<Option<Output>, SessionError> {
        if !matches!(self.phase, Phase::Live) {
            return Err(SessionError::Unexpected("an update before the content".to_owned()));
        }
        let Value::Array(params) = params else { return Err(unexpected("an update without parameters")) };
        let updates = params.into_iter().nth(2).ok_or_else(|| unexpected("an update without content"))?;
        Ok(Some(Output::Updates(row_updates(updates)?)))
    }

    fn reply(&mut self, message: &mut Message) -> Result<Option<Output>, SessionError> {
        let (result, error) = (field(message, "result"), field(message, "error"));
        match &field(message, "id") {
            Value::String(id) if id == "echo" => Ok(None),
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

    fn schema(&mut self, result: &Value, error: Value) -> Result<(), SessionError> {
        if !matches!(self.phase, Phase::Schema) {
            return Err(unexpected("a second schema"));
        }
        if !error.is_null() {
            return Err(SessionError::Refused { method: "get_schema", error, hint: "" });
        }
        let schema = Schema::parse(result)?;
        let missing = |table: &&MonitoredTable| table.required && !schema.has_table(table.name);
        if let Some(table) = self.config.monitored.iter().find(missing) {
            return Err(SessionError::MissingTable(table.name));
        }
        let mut tables = Map::new();
        for table in self.config.monitored.iter().filter(|table| schema.has_table(table.name)) {
            let columns: Vec<&&str> =
                table.columns.iter().filter(|column| schema.has_column(table.name, column)).collect();
            tables.insert(table.name.to_owned(), json!([{"columns": columns}]));
        }
        self.phase = Phase::Monitor(Arc::new(schema));
        // A standalone server cannot resume, so the last transaction's id is never a known one.
        let params = json!([self.config.database, MONITOR, tables, Uuid::nil()]);
        self.request("monitor_cond_since", &params, &json!("monitor"));
        Ok(())
    }

    fn content(&mut self, result: Value, error: Value) -> Result<Output, SessionError> {
        if !error.is_null() {
            let hint = "; FiberLB needs ovsdb-server 2.12 or later";
            return Err(SessionError::Refused { method: "monitor_cond_since", error, hint });
        }
        let Phase::Monitor(schema) = std::mem::replace(&mut self.phase, Phase::Live) else {
            return Err(unexpected("content twice"));
        };
        let Value::Array(result) = result else { return Err(unexpected("content that is not an array")) };
        let content = result.into_iter().nth(2).ok_or_else(|| unexpected("a monitor without content"))?;
        Ok(Output::Live(schema, row_updates(content)?))
    }
}

/// Takes a field out of a message; null where there is none.
fn field(message: &mut Message, name: &str) -> Value {
    message.remove(name).unwrap_or_default()
}

fn unexpected(what: &str) -> SessionError {
    SessionError::Unexpected(what.to_owned())
}

/// Reads `<table-updates2>`.
fn row_updates(updates: Value) -> Result<Vec<RowUpdate>, SessionError> {
    let Value::Object(tables) = updates else {
        return Err(unexpected("table updates that are not an object"));
    };
    let mut all = Vec::new();
    for (table, rows) in tables {
        let Value::Object(rows) = rows else { return Err(unexpected("row updates that are not an object")) };
        for (uuid, change) in rows {
            let uuid = uuid.parse().map_err(|_| unexpected("a row whose key is not a UUID"))?;
            all.push(RowUpdate { table: table.clone(), uuid, change: row_change(change)? });
        }
    }
    Ok(all)
}

fn row_change(change: Value) -> Result<RowChange, SessionError> {
    let Value::Object(change) = change else { return Err(unexpected("a row update that is not an object")) };
    match change.into_iter().next() {
        Some((kind, Value::Object(row))) if kind == "initial" || kind == "insert" => {
            Ok(RowChange::Insert(row))
        }
        Some((kind, Value::Object(row))) if kind == "modify" => Ok(RowChange::Modify(row)),
        Some((kind, _)) if kind == "delete" => Ok(RowChange::Delete),
        _ => Err(unexpected("a row update of an unknown kind")),
    }
}

/// Reads the reply to a transaction of so many operations.
fn outcome(operations: usize, result: &Value, error: &Value) -> Result<Vec<OperationResult>, TransactError> {
    if !error.is_null() {
        let object = if error.is_object() { error.clone() } else { json!({"error": words(error)}) };
        return Err(TransactError::refused(None, &object));
    }
    let Some(results) = result.as_array() else {
        return Err(TransactError::Unknown { reason: "the server's reply has no results".to_owned() });
    };
    if let Some((index, object)) = results
        .iter()
        .enumerate()
        .find(|(_, result)| result.get("error").is_some_and(|error| !error.is_null()))
    {
        // An error at commit stands behind the results of all operations.
        return Err(TransactError::refused((index < operations).then_some(index), object));
    }
    if results.len() < operations {
        return Err(TransactError::Unknown { reason: "the server's reply has too few results".to_owned() });
    }
    let count = |result: &Value| OperationResult { count: result.get("count").and_then(Value::as_u64) };
    Ok(results.iter().take(operations).map(count).collect())
}

#[cfg(test)]
mod tests;
