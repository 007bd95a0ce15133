//! Parts of messages.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Message, SessionError};
use crate::error::{DatabaseError, TransactError, rpc_error_text};
use crate::operation::OperationResult;
use crate::replica::{RowChange, RowUpdate};

/// Takes a member out of a message; null if it is absent.
pub(super) fn field(message: &mut Message, name: &str) -> Value {
    message.remove(name).unwrap_or_default()
}

pub(super) fn unexpected(what: &str) -> SessionError {
    SessionError::Unexpected(what.to_owned())
}

/// Elements of an array; none for any other value.
pub(super) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        _ => Vec::new(),
    }
}

/// Parses the common part of updates and content: a first element, the transaction (nil if it cannot be resumed from), and
/// `<table-updates2>`.
pub(super) fn content_parts(value: Value) -> Result<(Value, Uuid, Vec<RowUpdate>), SessionError> {
    let mut elements = elements(value).into_iter();
    let (Some(first), Some(transaction), Some(updates)) = (elements.next(), elements.next(), elements.next())
    else {
        return Err(unexpected("an update or content without its parts"));
    };
    let transaction = transaction.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok((first, transaction, row_updates(updates)?))
}

/// Parses `<table-updates2>` (ovsdb-server(7), "Update2 Notification").
pub(super) fn row_updates(updates: Value) -> Result<Vec<RowUpdate>, SessionError> {
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

/// Parses the reply to a transaction with this number of operations (RFC 7047, section 4.1.3).
pub(super) fn outcome(
    operations: usize,
    result: &Value,
    error: &Value,
) -> Result<Vec<OperationResult>, TransactError> {
    if !error.is_null() {
        let object = if error.is_object() { error.clone() } else { json!({"error": rpc_error_text(error)}) };
        return Err(failure(None, &object));
    }
    let Some(results) = result.as_array() else {
        return Err(TransactError::Unknown { reason: "the server's reply has no results".to_owned() });
    };
    if let Some((index, object)) = results
        .iter()
        .enumerate()
        .find(|(_, result)| result.get("error").is_some_and(|error| !error.is_null()))
    {
        // An error at commit follows the results of all operations.
        return Err(failure((index < operations).then_some(index), object));
    }
    if results.len() < operations {
        return Err(TransactError::Unknown { reason: "the server's reply has too few results".to_owned() });
    }
    let count = |result: &Value| OperationResult { count: result.get("count").and_then(Value::as_u64) };
    Ok(results.iter().take(operations).map(count).collect())
}

/// Failure of a transaction by its error object. The outcome is unknown where a cluster has not agreed yet, and where the server
/// has lost track of the transaction, as when the schema is replaced (`ovsdb_trigger_cancel`).
fn failure(operation: Option<usize>, object: &Value) -> TransactError {
    match TransactError::refused(operation, object) {
        TransactError::Refused { error: DatabaseError::Other(word), .. }
            if matches!(word.as_str(), "cluster error" | "canceled") =>
        {
            TransactError::Unknown { reason: rpc_error_text(object) }
        }
        refused => refused,
    }
}
