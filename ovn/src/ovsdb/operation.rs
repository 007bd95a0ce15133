//! Operations of a transaction (RFC 7047, section 5.2). Rows are addressed by `_uuid`.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::value;

/// Columns and their values.
pub type Columns = Map<String, Value>;

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A new row with a UUID of our choice (ovsdb-server 2.13 or later); refused as `duplicate uuid` when it is there.
    Insert {
        /// Table.
        table: &'static str,
        /// The row's UUID.
        uuid: Uuid,
        /// Columns that are not at their default.
        row: Columns,
    },
    /// Sets columns of a row.
    Update {
        /// Table.
        table: &'static str,
        /// Which row.
        uuid: Uuid,
        /// Columns to set.
        row: Columns,
    },
    /// Changes sets of a row.
    Mutate {
        /// Table.
        table: &'static str,
        /// Which row.
        uuid: Uuid,
        /// What changes.
        mutations: Vec<Mutation>,
    },
    /// Removes a row.
    Delete {
        /// Table.
        table: &'static str,
        /// Which row.
        uuid: Uuid,
    },
}

/// Elements that come into a set column, or go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    column: &'static str,
    mutator: &'static str,
    elements: Value,
}

impl Mutation {
    /// Elements come.
    #[must_use]
    pub fn insert(column: &'static str, elements: Value) -> Self {
        Self { column, mutator: "insert", elements }
    }

    /// Elements go.
    #[must_use]
    pub fn delete(column: &'static str, elements: Value) -> Self {
        Self { column, mutator: "delete", elements }
    }
}

impl Operation {
    /// See [`Operation::Insert`].
    #[must_use]
    pub fn insert(table: &'static str, uuid: Uuid, row: Columns) -> Self {
        Self::Insert { table, uuid, row }
    }

    /// See [`Operation::Update`].
    #[must_use]
    pub fn update(table: &'static str, uuid: Uuid, row: Columns) -> Self {
        Self::Update { table, uuid, row }
    }

    /// See [`Operation::Mutate`].
    #[must_use]
    pub fn mutate(table: &'static str, uuid: Uuid, mutations: Vec<Mutation>) -> Self {
        Self::Mutate { table, uuid, mutations }
    }

    /// See [`Operation::Delete`].
    #[must_use]
    pub fn delete(table: &'static str, uuid: Uuid) -> Self {
        Self::Delete { table, uuid }
    }

    /// The operation in OVSDB's notation.
    #[must_use]
    pub fn into_json(self) -> Value {
        let this_row = |uuid| json!([["_uuid", "==", value::uuid(uuid)]]);
        match self {
            Self::Insert { table, uuid, row } => {
                json!({"op": "insert", "table": table, "uuid": uuid, "row": row})
            }
            Self::Update { table, uuid, row } => {
                json!({"op": "update", "table": table, "where": this_row(uuid), "row": row})
            }
            Self::Mutate { table, uuid, mutations } => {
                let mutations: Vec<Value> =
                    mutations.into_iter().map(|it| json!([it.column, it.mutator, it.elements])).collect();
                json!({"op": "mutate", "table": table, "where": this_row(uuid), "mutations": mutations})
            }
            Self::Delete { table, uuid } => json!({"op": "delete", "table": table, "where": this_row(uuid)}),
        }
    }
}

/// What an operation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationResult {
    /// Rows that an update, mutate or delete met; 0 is no error to OVSDB.
    pub count: Option<u64>,
}
