//! Operations of a transaction (RFC 7047, section 5.2). Rows are addressed by `_uuid`.

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Map, Value};
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
    /// Changes nothing: unless the rows that meet all conditions are exactly `rows`, the whole transaction is refused with
    /// [`DatabaseError::TimedOut`](super::error::DatabaseError::TimedOut). The server looks once and never waits.
    Wait {
        /// Table.
        table: &'static str,
        /// Which rows are looked at.
        conditions: Vec<Condition>,
        /// Which of their columns are compared.
        columns: Vec<&'static str>,
        /// What these must hold.
        rows: Vec<Columns>,
    },
}

/// What a row must have to be looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(super) column: &'static str,
    pub(super) function: &'static str,
    pub(super) value: Value,
}

impl Condition {
    /// The row with this UUID.
    #[must_use]
    pub fn row(uuid: Uuid) -> Self {
        Self { column: "_uuid", function: "==", value: value::uuid(uuid) }
    }

    /// All these elements, or pairs, are in the column.
    #[must_use]
    pub fn includes(column: &'static str, elements: Value) -> Self {
        Self { column, function: "includes", value: elements }
    }
}

/// Elements that come into a set column, or go.
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    pub(super) column: &'static str,
    pub(super) mutator: &'static str,
    pub(super) elements: Value,
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

    /// See [`Operation::Wait`].
    #[must_use]
    pub fn wait(
        table: &'static str,
        conditions: Vec<Condition>,
        columns: Vec<&'static str>,
        rows: Vec<Columns>,
    ) -> Self {
        Self::Wait { table, conditions, columns, rows }
    }
}

/// In OVSDB's notation.
impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let this_row = |uuid: &Uuid| [("_uuid", "==", ("uuid", *uuid))];
        let mut object = serializer.serialize_map(None)?;
        match self {
            Self::Insert { table, uuid, row } => {
                object.serialize_entry("op", "insert")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("uuid", uuid)?;
                object.serialize_entry("row", row)?;
            }
            Self::Update { table, uuid, row } => {
                object.serialize_entry("op", "update")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &this_row(uuid))?;
                object.serialize_entry("row", row)?;
            }
            Self::Mutate { table, uuid, mutations } => {
                let triples = mutations.iter().map(|it| (it.column, it.mutator, &it.elements));
                object.serialize_entry("op", "mutate")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &this_row(uuid))?;
                object.serialize_entry("mutations", &triples.collect::<Vec<_>>())?;
            }
            Self::Delete { table, uuid } => {
                object.serialize_entry("op", "delete")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &this_row(uuid))?;
            }
            Self::Wait { table, conditions, columns, rows } => {
                let triples = conditions.iter().map(|it| (it.column, it.function, &it.value));
                object.serialize_entry("op", "wait")?;
                object.serialize_entry("timeout", &0)?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &triples.collect::<Vec<_>>())?;
                object.serialize_entry("columns", columns)?;
                object.serialize_entry("until", "==")?;
                object.serialize_entry("rows", rows)?;
            }
        }
        object.end()
    }
}

/// The request that carries out operations as one transaction (RFC 7047, section 4.1.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Transact<'a> {
    pub(super) database: &'a str,
    pub(super) operations: &'a [Operation],
    pub(super) id: u64,
}

impl Serialize for Transact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(3))?;
        object.serialize_entry("method", "transact")?;
        object.serialize_entry("params", &Parameters(self))?;
        object.serialize_entry("id", &self.id)?;
        object.end()
    }
}

/// The name of the database with the operations behind it, all in one array.
struct Parameters<'a>(&'a Transact<'a>);

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(1 + self.0.operations.len()))?;
        array.serialize_element(self.0.database)?;
        self.0.operations.iter().try_for_each(|operation| array.serialize_element(operation))?;
        array.end()
    }
}

/// What an operation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationResult {
    /// Rows that an update, mutate or delete met; 0 is no error to OVSDB. `None` for an insert and a wait.
    pub count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_is_written_as_the_server_reads_it() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let row = || Columns::from_iter([("name".to_owned(), json!("a"))]);
        let operations = [
            Operation::insert("T", id, row()),
            Operation::update("T", id, row()),
            Operation::mutate("T", id, vec![Mutation::delete("ports", value::set([value::uuid(other)]))]),
            Operation::delete("T", id),
            Operation::wait(
                "T",
                vec![Condition::row(id), Condition::includes("name", json!("a"))],
                vec!["name"],
                vec![row()],
            ),
        ];
        let request = Transact { database: "DB", operations: &operations, id: 7 };
        let this_row = json!([["_uuid", "==", ["uuid", id]]]);
        let mutations = json!([["ports", "delete", ["set", [["uuid", other]]]]]);
        let expected = json!({"method": "transact", "id": 7, "params": ["DB",
            {"op": "insert", "table": "T", "uuid": id, "row": {"name": "a"}},
            {"op": "update", "table": "T", "where": this_row, "row": {"name": "a"}},
            {"op": "mutate", "table": "T", "where": this_row, "mutations": mutations},
            {"op": "delete", "table": "T", "where": this_row},
            {"op": "wait", "timeout": 0, "table": "T", "columns": ["name"], "until": "==", "rows": [{"name": "a"}],
                "where": [["_uuid", "==", ["uuid", id]], ["name", "includes", "a"]]},
        ]});
        assert_eq!(serde_json::to_value(request).unwrap(), expected);
    }
}
