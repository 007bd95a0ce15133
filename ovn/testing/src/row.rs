//! Rows and conditions, as JSON.

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Key in `external_ids` that names a row's owner in these tests.
pub const OWNER_KEY: &str = "fiberlb:owner";

/// Columns of a row.
pub fn columns(row: Value) -> Map<String, Value> {
    let Value::Object(columns) = row else { panic!("a row is an object") };
    columns
}

/// Columns of a load balancer with an owner.
pub fn owned(name: &str, owner: &str) -> Map<String, Value> {
    columns(json!({"name": name, "external_ids": ["map", [[OWNER_KEY, owner]]]}))
}

/// The `where` that selects one row.
pub fn row(uuid: Uuid) -> Value {
    json!([["_uuid", "==", ["uuid", uuid]]])
}
