//! The beginning of a session: what the server is, what its database has, and what that holds. What it is may change later.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::message::{elements, row_updates, triple, unexpected};
use super::{Content, MONITOR, Output, Phase, SERVER_MONITOR, Session, SessionError};
use crate::error::words;
use crate::replica::MonitoredTable;
use crate::schema::Schema;

impl Session {
    /// What the server says of itself when it is asked.
    pub(super) fn server(&mut self, result: Value, error: Value) -> Result<(), SessionError> {
        if self.is_greeted() {
            return Err(unexpected("its own state twice"));
        }
        if error.is_null() {
            self.check(result)?;
        } else if words(&error).starts_with("unknown ") {
            // A server before 2.9 has no such database, or no such request; and no clusters.
            self.seen.check_no_cluster()?;
            tracing::debug!(error = words(&error), "the server does not tell of itself");
        } else {
            return Err(SessionError::Refused { method: "monitor_cond", error, hint: "" });
        }
        self.phase = Phase::Schema;
        self.request("get_schema", &json!([self.config.database]), &json!("schema"));
        Ok(())
    }

    /// What the server says of itself later.
    pub(super) fn server_update(&mut self, params: Value) -> Result<(), SessionError> {
        let mut params = elements(params).into_iter();
        match (params.next(), params.next()) {
            (Some(monitor), Some(updates)) if monitor == SERVER_MONITOR && self.is_greeted() => {
                self.check(updates)
            }
            _ => Err(unexpected("an update that nobody asked for")),
        }
    }

    fn check(&mut self, updates: Value) -> Result<(), SessionError> {
        self.server.apply(&row_updates(updates)?)?;
        Ok(self.server.check(&self.config.database, self.config.leader_only, &mut self.seen)?)
    }

    pub(super) fn schema(&mut self, result: &Value, error: Value) -> Result<(), SessionError> {
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
        self.monitored = Arc::new(Value::Object(tables));
        // A cluster tells what happened since; a standalone server knows no transaction, and tells all.
        let last = self.seen.last_transaction(&self.monitored);
        let params = json!([self.config.database, MONITOR, *self.monitored, last]);
        self.request("monitor_cond_since", &params, &json!("monitor"));
        Ok(())
    }

    pub(super) fn content(&mut self, result: Value, error: Value) -> Result<Output, SessionError> {
        if !error.is_null() {
            let hint = "; FiberLB needs ovsdb-server 2.12 or later";
            return Err(SessionError::Refused { method: "monitor_cond_since", error, hint });
        }
        let Phase::Monitor(schema) = std::mem::replace(&mut self.phase, Phase::Live) else {
            return Err(unexpected("content twice"));
        };
        let (found, transaction, rows) = triple(result)?;
        let resumes = !self.seen.last_transaction(&self.monitored).is_nil();
        let content = match found {
            Value::Bool(true) if resumes => Content::Since(rows),
            Value::Bool(false) => Content::Whole(rows),
            _ => return Err(unexpected("content that does not say since when")),
        };
        self.give_out(transaction);
        Ok(Output::Live(schema, content))
    }
}
