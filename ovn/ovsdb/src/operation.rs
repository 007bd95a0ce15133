//! Operations of a transaction (RFC 7047, section 5.2), and their conditions and mutations.
//!
//! A row is addressed by its UUID: a client that holds a replica knows it, and knows before an insert which one the row will
//! have, so that other rows of the same transaction can refer to it.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::column::IntoValue;

/// Columns by name, with values in OVSDB's notation (RFC 7047, section 5.1). [`row!`](crate::row) makes types that write them.
pub type Columns = Map<String, Value>;

/// Name of a table or column.
pub type Name = Cow<'static, str>;

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Inserts a row under a UUID of the client's choice (ovsdb-server 2.13 or later). A repeated insert is thus refused as
    /// [`DuplicateUuid`](crate::error::DatabaseError::DuplicateUuid) instead of making a second row.
    Insert {
        /// Table.
        table: Name,
        /// UUID of the new row; [`Uuid::new_v4`], or one that is derived from an identity that the row has elsewhere.
        uuid: Uuid,
        /// Columns that are not at their default.
        row: Columns,
    },
    /// Sets columns of a row.
    Update {
        /// Table.
        table: Name,
        /// UUID of the row.
        uuid: Uuid,
        /// Columns to set; others stay as they are.
        row: Columns,
    },
    /// Changes columns of a row relative to what they hold, so that concurrent writers do not overwrite each other.
    Mutate {
        /// Table.
        table: Name,
        /// UUID of the row.
        uuid: Uuid,
        /// Mutations, carried out in turn.
        mutations: Vec<Mutation>,
    },
    /// Deletes a row. Rows of a table that is not a root (`isRoot`) need no deletion: the server deletes them once no strong
    /// reference to them is left.
    Delete {
        /// Table.
        table: Name,
        /// UUID of the row.
        uuid: Uuid,
    },
    /// Guards the transaction and changes nothing: unless the rows that meet all conditions are exactly `rows`, the whole
    /// transaction is refused with [`TimedOut`](crate::error::DatabaseError::TimedOut). The server compares once, at the
    /// operation's turn, and never waits (a `timeout` of 0).
    Wait {
        /// Table.
        table: Name,
        /// Conditions that a compared row meets, all of them.
        conditions: Vec<Condition>,
        /// Columns that are compared.
        columns: Vec<Name>,
        /// Expected values of these columns, a row each.
        rows: Vec<Columns>,
    },
}

/// Comparison of a [`Condition`] (RFC 7047, section 5.1, `<function>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `<`, for integers and reals.
    Less,
    /// `<=`, for integers and reals.
    LessOrEqual,
    /// `==`: the same value; for a set or map, the same elements.
    Equal,
    /// `!=`: another value.
    NotEqual,
    /// `>=`, for integers and reals.
    GreaterOrEqual,
    /// `>`, for integers and reals.
    Greater,
    /// `includes`: all given elements or pairs are in the column.
    Includes,
    /// `excludes`: none of the given elements or pairs is in the column.
    Excludes,
}

impl Function {
    fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
            Self::Includes => "includes",
            Self::Excludes => "excludes",
        }
    }
}

/// Condition on a column of a row (RFC 7047, section 5.1, `<condition>`), for [`Operation::Wait`] and
/// [`MonitoredTable::conditions`](crate::replica::MonitoredTable::conditions).
///
/// ```
/// use ovsdb::collections::Map;
/// use ovsdb::operation::{Condition, Function};
///
/// let named = Condition::equal("name", "br-int");
/// let tagged = Condition::new("tag", Function::GreaterOrEqual, 100_i64);
/// let owned = Condition::includes("external_ids", Map::from([("owner".to_owned(), "me".to_owned())]));
/// # let _ = (named, tagged, owned);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub(super) column: Name,
    pub(super) function: Function,
    pub(super) value: Value,
}

impl Condition {
    /// Condition that `function` holds between the column and the value.
    #[must_use]
    pub fn new(column: impl Into<Name>, function: Function, value: impl IntoValue) -> Self {
        Self { column: column.into(), function, value: value.into_value() }
    }

    /// Condition that the row has this UUID.
    #[must_use]
    pub fn row(uuid: Uuid) -> Self {
        Self::equal("_uuid", uuid)
    }

    /// Condition that the column holds exactly this value.
    #[must_use]
    pub fn equal(column: impl Into<Name>, value: impl IntoValue) -> Self {
        Self::new(column, Function::Equal, value)
    }

    /// Condition that all these elements, or pairs of a map, are in the column.
    #[must_use]
    pub fn includes(column: impl Into<Name>, elements: impl IntoValue) -> Self {
        Self::new(column, Function::Includes, elements)
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.column, self.function.as_str(), &self.value).serialize(serializer)
    }
}

/// Mutator of a [`Mutation`] (RFC 7047, section 5.1, `<mutator>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutator {
    /// `+=`
    Add,
    /// `insert`
    Insert,
    /// `delete`
    Delete,
}

/// Change of a column relative to what it holds (RFC 7047, section 5.1, `<mutation>`).
///
/// ```
/// use ovsdb::collections::{Map, Set};
/// use ovsdb::operation::Mutation;
///
/// // An `insert` leaves a key that is present as it is: delete it first to set it.
/// let set_key = [
///     Mutation::delete("external_ids", Set::from(["owner".to_owned()])),
///     Mutation::insert("external_ids", Map::from([("owner".to_owned(), "me".to_owned())])),
/// ];
/// let next_number = Mutation::add("next_cfg", 1_i64);
/// # let _ = (set_key, next_number);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Mutation {
    pub(super) column: Name,
    pub(super) mutator: Mutator,
    pub(super) value: Value,
}

impl Mutation {
    /// Adds a number to an integer or real column, or to each element of a set of those; a negative number subtracts.
    #[must_use]
    pub fn add(column: impl Into<Name>, number: impl IntoValue) -> Self {
        Self { column: column.into(), mutator: Mutator::Add, value: number.into_value() }
    }

    /// Inserts elements into a set, or pairs into a map. Those whose element or key is present stay as they are.
    #[must_use]
    pub fn insert(column: impl Into<Name>, elements: impl IntoValue) -> Self {
        Self { column: column.into(), mutator: Mutator::Insert, value: elements.into_value() }
    }

    /// Deletes elements from a set; from a map, the given pairs, or, given a set, the pairs with these keys.
    #[must_use]
    pub fn delete(column: impl Into<Name>, elements: impl IntoValue) -> Self {
        Self { column: column.into(), mutator: Mutator::Delete, value: elements.into_value() }
    }
}

impl Serialize for Mutation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mutator = match self.mutator {
            Mutator::Add => "+=",
            Mutator::Insert => "insert",
            Mutator::Delete => "delete",
        };
        (&self.column, mutator, &self.value).serialize(serializer)
    }
}

impl Operation {
    /// [`Operation::Insert`].
    #[must_use]
    pub fn insert(table: impl Into<Name>, uuid: Uuid, row: Columns) -> Self {
        Self::Insert { table: table.into(), uuid, row }
    }

    /// [`Operation::Update`].
    #[must_use]
    pub fn update(table: impl Into<Name>, uuid: Uuid, row: Columns) -> Self {
        Self::Update { table: table.into(), uuid, row }
    }

    /// [`Operation::Mutate`].
    #[must_use]
    pub fn mutate(table: impl Into<Name>, uuid: Uuid, mutations: Vec<Mutation>) -> Self {
        Self::Mutate { table: table.into(), uuid, mutations }
    }

    /// [`Operation::Delete`].
    #[must_use]
    pub fn delete(table: impl Into<Name>, uuid: Uuid) -> Self {
        Self::Delete { table: table.into(), uuid }
    }

    /// [`Operation::Wait`].
    #[must_use]
    pub fn wait(
        table: impl Into<Name>,
        conditions: Vec<Condition>,
        columns: Vec<&'static str>,
        rows: Vec<Columns>,
    ) -> Self {
        Self::Wait {
            table: table.into(),
            conditions,
            columns: columns.into_iter().map(Name::from).collect(),
            rows,
        }
    }
}

/// The `<operation>` of RFC 7047, section 5.2.
impl Serialize for Operation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let this_row = |uuid: &Uuid| [Condition::row(*uuid)];
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
                object.serialize_entry("op", "mutate")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &this_row(uuid))?;
                object.serialize_entry("mutations", mutations)?;
            }
            Self::Delete { table, uuid } => {
                object.serialize_entry("op", "delete")?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", &this_row(uuid))?;
            }
            Self::Wait { table, conditions, columns, rows } => {
                object.serialize_entry("op", "wait")?;
                object.serialize_entry("timeout", &0)?;
                object.serialize_entry("table", table)?;
                object.serialize_entry("where", conditions)?;
                object.serialize_entry("columns", columns)?;
                object.serialize_entry("until", "==")?;
                object.serialize_entry("rows", rows)?;
            }
        }
        object.end()
    }
}

/// The `transact` request (RFC 7047, section 4.1.3).
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

/// Parameters of `transact`: the name of the database and the operations, in one array.
struct Parameters<'a>(&'a Transact<'a>);

impl Serialize for Parameters<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(1 + self.0.operations.len()))?;
        array.serialize_element(self.0.database)?;
        self.0.operations.iter().try_for_each(|operation| array.serialize_element(operation))?;
        array.end()
    }
}

/// Result of an operation of a transaction that was carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationResult {
    /// Number of rows that an update, mutate or delete matched, 0 or 1. A row that does not exist is 0, not an error. `None` for
    /// an insert and a wait.
    pub count: Option<u64>,
}

#[cfg(test)]
mod tests {
    use crate::collections::Set;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_transaction_is_written_as_the_server_reads_it() {
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let row = || Columns::from_iter([("name".to_owned(), json!("a"))]);
        let mutations = vec![Mutation::delete("ports", Set::from([other])), Mutation::add("n", -1_i64)];
        let operations = [
            Operation::insert("T", id, row()),
            Operation::update("T", id, row()),
            Operation::mutate("T", id, mutations),
            Operation::delete("T", id),
            Operation::wait(
                "T",
                vec![Condition::row(id), Condition::includes("name", "a")],
                vec!["name"],
                vec![row()],
            ),
        ];
        let request = Transact { database: "DB", operations: &operations, id: 7 };
        let this_row = json!([["_uuid", "==", ["uuid", id]]]);
        let mutations = json!([["ports", "delete", ["set", [["uuid", other]]]], ["n", "+=", -1]]);
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
