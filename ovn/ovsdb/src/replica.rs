//! Replica of a database in memory: kept up to date by the server's updates, and compared with the content after a reconnect.
//!
//! [`UntypedReplica`](crate::untyped::UntypedReplica) holds any table as JSON. A program with more demands has a replica of its
//! own: [`Table`]s of row types that [`row!`](crate::row) makes, what it indexes, and a type for the changes that concern it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use super::operation::{Columns, Condition};
use super::schema::Schema;
use super::value::ValueError;

/// Change of one row, as the server reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowUpdate {
    /// Table of the row.
    pub table: String,
    /// UUID of the row.
    pub uuid: Uuid,
    /// Change.
    pub change: RowChange,
}

/// Kind of a row's change (ovsdb-server(7), "Update2 Notification").
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// The row exists with these columns; columns that are absent have their default (RFC 7047, section 5.2.1).
    Insert(Columns),
    /// Columns changed. Each holds a difference, as [`Column::apply`](crate::column::Column::apply) takes it.
    Modify(Columns),
    /// The row was deleted.
    Delete,
}

/// Row that does not fit the replica: a column of another type, or a change of an unknown row. It ends the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("row {uuid} of {table}, column {column}: {error}")]
pub struct ColumnError {
    /// Table of the row.
    pub table: String,
    /// UUID of the row.
    pub uuid: Uuid,
    /// Column.
    pub column: String,
    /// Difference from the expected type.
    pub error: ValueError,
}

/// Replica of a database, which a [`Client`](crate::client::Client) keeps in sync.
///
/// The client calls `set_schema` and then `reload` or `apply` when it connects, and `apply` for each transaction that commits
/// afterwards, its own ones included. Calls never overlap. They should take no longer than their work needs: readers of the
/// replica and the connection wait meanwhile.
///
/// ```
/// use std::collections::HashSet;
///
/// use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowUpdate, Table, TableRow as _};
/// use uuid::Uuid;
///
/// ovsdb::row! {
///     /// Bridge of Open vSwitch.
///     pub struct Bridge in "Bridge" {
///         /// Unique name.
///         pub name: String,
///     }
/// }
///
/// #[derive(Default)]
/// struct Bridges {
///     bridge: Table<Bridge>,
/// }
///
/// impl Replica for Bridges {
///     /// UUID of a bridge that was created, changed or deleted.
///     type Change = Uuid;
///
///     fn monitored(&self) -> Option<Vec<MonitoredTable>> {
///         Some(vec![MonitoredTable::of::<Bridge>()])
///     }
///
///     fn reload(&mut self, content: Vec<RowUpdate>) -> Result<Vec<Uuid>, ColumnError> {
///         let deleted = self.bridge.missing_in(&content);
///         self.apply(deleted.into_iter().chain(content).collect())
///     }
///
///     fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Uuid>, ColumnError> {
///         let mut changes = Vec::new();
///         for update in updates.iter().filter(|update| update.table == Bridge::TABLE) {
///             if self.bridge.apply(update.uuid, &update.change)?.is_change() {
///                 changes.push(update.uuid);
///             }
///         }
///         Ok(changes)
///     }
/// }
/// ```
pub trait Replica: Send + Sync + 'static {
    /// Change that the client's [`Event`](crate::client::Event)s carry.
    type Change: Send + 'static;

    /// Tables to monitor; `None` for all tables with all their columns. Asked at each connect.
    fn monitored(&self) -> Option<Vec<MonitoredTable>>;

    /// Takes the schema of the connected database, before the content. Does nothing unless overridden.
    fn set_schema(&mut self, _schema: &Arc<Schema>) {}

    /// Replaces the content: each row is a [`RowChange::Insert`], and rows that are absent no longer exist. Returns the
    /// differences to the previous content.
    ///
    /// # Errors
    /// [`ColumnError`]: the connection ends. The replica may then hold a part of the content; the next reload repairs it.
    fn reload(&mut self, content: Vec<RowUpdate>) -> Result<Vec<Self::Change>, ColumnError>;

    /// Applies the updates of one transaction, or of all transactions that were missed while the client was not connected.
    ///
    /// # Errors
    /// [`ColumnError`]: the connection ends. The replica may then hold a part of the updates; the next reload repairs it.
    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Self::Change>, ColumnError>;
}

/// Table to monitor.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitoredTable {
    /// Name of the table.
    pub name: String,
    /// Columns to monitor, those that the schema lacks excepted; `None` for all.
    pub columns: Option<Vec<String>>,
    /// Rows to monitor: those that meet any of the conditions (ovsdb-server(7), "Monitor_cond"). Empty for all rows.
    pub conditions: Vec<Condition>,
    /// True if a database without the table cannot be used: the client then does not connect. False: the table is skipped.
    pub required: bool,
}

impl MonitoredTable {
    /// All rows and columns of a required table.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), columns: None, conditions: Vec::new(), required: true }
    }

    /// All rows of a required table, with the columns of a row type.
    #[must_use]
    pub fn of<R: TableRow>() -> Self {
        let columns = R::COLUMNS.iter().map(|column| (*column).to_owned()).collect();
        Self { columns: Some(columns), ..Self::new(R::TABLE) }
    }

    /// The same table, which the database need not have.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// The same table, restricted to rows that meet this condition or one that was given before.
    #[must_use]
    pub fn or_where(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }
}

/// Type of row of one table; [`row!`](crate::row) implements it.
pub trait TableRow: Default + Clone + PartialEq {
    /// Name of the table in the schema.
    const TABLE: &'static str;
    /// Names of the type's columns in the schema.
    const COLUMNS: &'static [&'static str];

    /// Sets a column; one that the type does not have is ignored.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn set(&mut self, column: &str, value: &serde_json::Value) -> Result<(), ValueError>;

    /// Applies the difference of a column; one that the type does not have is ignored.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn modify(&mut self, column: &str, difference: &serde_json::Value) -> Result<(), ValueError>;
}

/// Rows of one table by their UUIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<R> {
    rows: HashMap<Uuid, R>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

/// Effect of a change on a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied<R> {
    /// None: the row was like that before.
    Nothing,
    /// The row was created, deleted or replaced; this is the previous one.
    Replaced(Option<R>),
    /// Columns of the row changed in place; the [`RowChange::Modify`] says which elements of a set.
    Modified,
}

impl<R> Applied<R> {
    /// False for [`Applied::Nothing`].
    #[must_use]
    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

impl<R: TableRow> Table<R> {
    /// Row with this UUID.
    #[must_use]
    pub fn get(&self, uuid: &Uuid) -> Option<&R> {
        self.rows.get(uuid)
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &R)> {
        self.rows.iter()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if the table has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Applies the change of a row.
    ///
    /// # Errors
    /// [`ColumnError`] for a column of another type, and for a modification of an unknown row. The row may then be changed in
    /// part.
    pub fn apply(&mut self, uuid: Uuid, change: &RowChange) -> Result<Applied<R>, ColumnError> {
        match change {
            RowChange::Insert(columns) => {
                let mut row = R::default();
                set_columns(&mut row, uuid, columns, R::set)?;
                if self.rows.get(&uuid) == Some(&row) {
                    return Ok(Applied::Nothing);
                }
                Ok(Applied::Replaced(self.rows.insert(uuid, row)))
            }
            RowChange::Modify(columns) => {
                let row = self.rows.get_mut(&uuid).ok_or_else(|| unknown_row(R::TABLE, uuid))?;
                set_columns(row, uuid, columns, R::modify)?;
                Ok(Applied::Modified)
            }
            RowChange::Delete => Ok(match self.rows.remove(&uuid) {
                Some(row) => Applied::Replaced(Some(row)),
                None => Applied::Nothing,
            }),
        }
    }

    /// Deletions of the rows that a new content lacks, for [`Replica::reload`].
    #[must_use]
    pub fn missing_in(&self, content: &[RowUpdate]) -> Vec<RowUpdate> {
        missing_in(R::TABLE, self.rows.keys(), content)
    }
}

/// Deletions of those of `rows` that a new content of their table lacks.
pub(super) fn missing_in<'a>(
    table: &str,
    rows: impl Iterator<Item = &'a Uuid>,
    content: &[RowUpdate],
) -> Vec<RowUpdate> {
    let of_table = content.iter().filter(|row| row.table == table);
    let present: HashSet<Uuid> = of_table.map(|row| row.uuid).collect();
    let missing = rows.filter(|uuid| !present.contains(uuid));
    missing
        .map(|uuid| RowUpdate { table: table.to_owned(), uuid: *uuid, change: RowChange::Delete })
        .collect()
}

/// Error for a change of a row that the replica does not have.
pub(super) fn unknown_row(table: &str, uuid: Uuid) -> ColumnError {
    let error =
        ValueError { expected: "a row of the replica", found: "a change of an unknown one".to_owned() };
    ColumnError { table: table.to_owned(), uuid, column: "_uuid".to_owned(), error }
}

type Setter<R> = fn(&mut R, &str, &serde_json::Value) -> Result<(), ValueError>;

fn set_columns<R: TableRow>(
    row: &mut R,
    uuid: Uuid,
    columns: &Columns,
    set: Setter<R>,
) -> Result<(), ColumnError> {
    columns.iter().try_for_each(|(column, value)| {
        set(row, column, value).map_err(|error| ColumnError {
            table: R::TABLE.to_owned(),
            uuid,
            column: column.clone(),
            error,
        })
    })
}
