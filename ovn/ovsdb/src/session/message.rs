//! What stands in messages, as far as a session asks for it.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Message, SessionError};
use crate::error::{DatabaseError, TransactError, words};
use crate::operation::OperationResult;
use crate::replica::{RowChange, RowUpdate};

/// Takes a field out of a message; null where there is none.
pub(super) fn field(message: &mut Message, name: &str) -> Value {
    message.remove(name).unwrap_or_default()
}

pub(super) fn unexpected(what: &str) -> SessionError {
    SessionError::Unexpected(what.to_owned())
}

/// Elements of an array; none of anything else.
pub(super) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        _ => Vec::new(),
    }
}

/// Reads what updates and content have in common: a first element, the transaction (nil where there is none that could be
/// asked for), and `<table-updates2>`.
pub(super) fn triple(value: Value) -> Result<(Value, Uuid, Vec<RowUpdate>), SessionError> {
    let mut elements = elements(value).into_iter();
    let (Some(first), Some(transaction), Some(updates)) = (elements.next(), elements.next(), elements.next())
    else {
        return Err(unexpected("an update or content without its parts"));
    };
    let transaction = transaction.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok((first, transaction, row_updates(updates)?))
}

/// Reads `<table-updates2>`.
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

/// Reads the reply to a transaction of so many operations.
pub(super) fn outcome(
    operations: usize,
    result: &Value,
    error: &Value,
) -> Result<Vec<OperationResult>, TransactError> {
    if !error.is_null() {
        let object = if error.is_object() { error.clone() } else { json!({"error": words(error)}) };
        return Err(refused(None, &object));
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
        return Err(refused((index < operations).then_some(index), object));
    }
    if results.len() < operations {
        return Err(TransactError::Unknown { reason: "the server's reply has too few results".to_owned() });
    }
    let count = |result: &Value| OperationResult { count: result.get("count").and_then(Value::as_u64) };
    Ok(results.iter().take(operations).map(count).collect())
}

/// Where the cluster has not agreed, nobody knows whether it will; nor what becomes of a transaction that the server has lost
/// sight of, as when the schema is replaced (`ovsdb_trigger_cancel`).
fn refused(operation: Option<usize>, object: &Value) -> TransactError {
    match TransactError::refused(operation, object) {
        TransactError::Refused { error: DatabaseError::Other(word), .. }
            if matches!(word.as_str(), "cluster error" | "canceled") =>
        {
            TransactError::Unknown { reason: words(object) }
        }
        refused => refused,
    }
}
