//! Beginning of a session: the server's description, the schema, and the content. The description may change later.
//!
//! The content is what happened since the last session, where the server knows that; or all rows, in parts.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::message::{content_parts, elements, row_updates, unexpected};
use super::reading::{PartSize, Reading};
use super::{Content, MONITOR, Output, PART_MONITOR, Phase, SERVER_MONITOR, Session, SessionError};
use crate::error::rpc_error_text;
use crate::replica::MonitoredTable;
use crate::schema::Schema;

impl Session {
    /// Processes the reply to the monitor of `_Server`.
    pub(super) fn server(&mut self, result: Value, error: Value) -> Result<(), SessionError> {
        if self.is_server_accepted() {
            return Err(unexpected("its description twice"));
        }
        if error.is_null() {
            self.check_server(result)?;
        } else if rpc_error_text(&error).starts_with("unknown ") {
            // A server before 2.9 has no such database or no such method, and no clusters.
            self.state.check_no_cluster()?;
            tracing::debug!(
                error = rpc_error_text(&error),
                "server has no _Server database; assuming a standalone one"
            );
        } else {
            return Err(SessionError::Refused { method: "monitor_cond", error, hint: "" });
        }
        let params = json!([self.config.database]);
        self.ask(Phase::Schema, "get_schema", &params, "schema");
        Ok(())
    }

    /// Processes a change of the server's description.
    pub(super) fn server_update(&mut self, params: Value) -> Result<(), SessionError> {
        let mut params = elements(params).into_iter();
        match (params.next(), params.next()) {
            (Some(monitor), Some(updates)) if monitor == SERVER_MONITOR && self.is_server_accepted() => {
                self.check_server(updates)
            }
            _ => Err(unexpected("an update of an unknown monitor")),
        }
    }

    fn check_server(&mut self, updates: Value) -> Result<(), SessionError> {
        self.server.apply(&row_updates(updates)?)?;
        Ok(self.server.check(&self.config.database, self.config.leader_only, &mut self.state)?)
    }

    /// Processes the schema, and requests the content.
    pub(super) fn schema(&mut self, result: &Value, error: Value) -> Result<(), SessionError> {
        if !matches!(self.phase, Phase::Schema) {
            return Err(unexpected("a second schema"));
        }
        if !error.is_null() {
            return Err(SessionError::Refused { method: "get_schema", error, hint: "" });
        }
        let schema = Arc::new(Schema::parse(result)?);
        self.monitored = Arc::new(self.monitor_requests(&schema)?);
        // A cluster sends what happened since this transaction; a standalone server has no history.
        let last = self.state.last_transaction(&self.monitored);
        let params = json!([self.config.database, MONITOR, *self.monitored, last]);
        self.ask(Phase::Monitor(schema), "monitor_cond_since", &params, "monitor");
        Ok(())
    }

    /// The `<monitor-cond-requests>` (ovsdb-server(7), "Monitor_cond_since") for a database with this schema.
    fn monitor_requests(&self, schema: &Schema) -> Result<Value, SessionError> {
        let all = || schema.tables().map(MonitoredTable::new).collect();
        let tables = self.config.monitored.clone().unwrap_or_else(all);
        let mut requests = Map::new();
        for table in tables {
            if schema.has_table(&table.name) {
                requests.insert(table.name.clone(), monitor_request(&table, schema));
            } else if table.required {
                return Err(SessionError::MissingTable(table.name));
            }
        }
        Ok(Value::Object(requests))
    }

    /// Processes the reply to the monitor of the database: what happened since the last transaction, with which the session is
    /// live. A server that does not know that begins with the next change, and the content is read beside it.
    pub(super) fn monitor(&mut self, result: Value, error: Value) -> Result<Option<Output>, SessionError> {
        if !error.is_null() {
            let hint = "; ovsdb-server 2.12 or later is needed";
            return Err(SessionError::Refused { method: "monitor_cond_since", error, hint });
        }
        let Phase::Monitor(schema) = &self.phase else { return Err(unexpected("content twice")) };
        let schema = Arc::clone(schema);
        let (found, transaction, rows) = content_parts(result)?;
        let can_resume = !self.state.last_transaction(&self.monitored).is_nil();
        match found {
            Value::Bool(true) if can_resume => {
                self.phase = Phase::Live;
                self.report(transaction);
                Ok(Some(Output::Live(schema, Content::Delta(rows))))
            }
            Value::Bool(false) => {
                let size = PartSize::new(self.config.max_message_bytes, self.state.caution());
                let mut reading = Reading::new(schema, &self.monitored, size);
                reading.update(transaction, rows);
                Ok(self.read(reading))
            }
            _ => Err(unexpected("content of an unknown beginning")),
        }
    }

    /// Processes a part of the content.
    pub(super) fn part(
        &mut self,
        result: Value,
        error: Value,
        bytes: usize,
    ) -> Result<Option<Output>, SessionError> {
        if !error.is_null() {
            return Err(SessionError::Refused { method: "monitor_cond", error, hint: "" });
        }
        let Phase::Reading(mut reading) = std::mem::replace(&mut self.phase, Phase::Live) else {
            return Err(unexpected("a part of the content that was not requested"));
        };
        reading.reply(row_updates(result)?, bytes);
        self.request("monitor_cancel", &json!([PART_MONITOR]), &json!("cancel"));
        Ok(self.read(reading))
    }

    /// Asks for the next part of the content. Without one it is complete, and the session live.
    fn read(&mut self, reading: Reading) -> Option<Output> {
        if let Some(next) = reading.request() {
            let params = json!([self.config.database, PART_MONITOR, next]);
            self.ask(Phase::Reading(reading), "monitor_cond", &params, "part");
            return None;
        }
        self.phase = Phase::Live;
        self.state.content_is_complete();
        self.report(reading.transaction);
        let (schema, rows) = reading.finish();
        Some(Output::Live(schema, Content::Snapshot(rows)))
    }
}

/// The request for one table. The columns are listed even where all are wanted, so that the request changes with the schema.
fn monitor_request(table: &MonitoredTable, schema: &Schema) -> Value {
    let is_wanted = |column: &&str| match &table.columns {
        Some(columns) => columns.iter().any(|wanted| wanted == column),
        None => true,
    };
    let columns: Vec<&str> = schema.columns(&table.name).filter(is_wanted).collect();
    // What is there already comes in parts.
    let select = json!({"initial": false});
    if table.conditions.is_empty() {
        json!([{"columns": columns, "select": select}])
    } else {
        json!([{"columns": columns, "where": table.conditions, "select": select}])
    }
}
