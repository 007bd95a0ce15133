//! What a database holds, typed: kept up to date by its updates, and compared with it after a reconnect.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use super::value::ValueError;

/// One table's part of an update: rows that changed.
#[derive(Clone, Debug, PartialEq)]
pub struct RowUpdate {
    /// Table.
    pub table: String,
    /// Row.
    pub uuid: Uuid,
    /// What happened to it.
    pub change: RowChange,
}

/// What happened to a row (ovsdb-server(7), "Update2 Notification").
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    /// It is there, with these columns; columns that are left out have their default.
    Insert(Map<String, Value>),
    /// Columns changed: a new value where a column holds at most one, else the difference of the sets or maps.
    Modify(Map<String, Value>),
    /// It is gone.
    Delete,
}

/// The server sent a column that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("row {uuid} of {table}, column {column}: {error}")]
pub struct ColumnError {
    /// Table.
    pub table: String,
    /// Row.
    pub uuid: Uuid,
    /// Column.
    pub column: String,
    /// What is wrong.
    pub error: ValueError,
}

/// A typed replica of a database.
pub trait Replica: Send + Sync + 'static {
    /// What it says of a change.
    type Change: Send + 'static;

    /// Tables and columns to monitor. A table whose name is `required` must be in the schema.
    fn monitored() -> Vec<MonitoredTable>;

    /// Takes the whole content of the database, and says what differs from what it held: nothing else changes.
    ///
    /// # Errors
    /// [`ColumnError`]; the replica may then hold part of it, and a later reload puts that right.
    fn reload(&mut self, rows: Vec<RowUpdate>) -> Result<Vec<Self::Change>, ColumnError>;

    /// Takes the changes of one transaction.
    ///
    /// # Errors
    /// [`ColumnError`]; the replica may then hold part of them, and a later reload puts that right.
    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Self::Change>, ColumnError>;
}

/// A table to monitor.
#[derive(Clone, Copy, Debug)]
pub struct MonitoredTable {
    /// Its name.
    pub name: &'static str,
    /// Columns; those that the schema lacks are left out.
    pub columns: &'static [&'static str],
    /// Whether a database without it is of no use.
    pub required: bool,
}

/// A typed row.
pub trait TableRow: Default + Clone + PartialEq {
    /// OVSDB's name of the table.
    const TABLE: &'static str;
    /// The columns that the type has.
    const COLUMNS: &'static [&'static str];

    /// Sets a column; one that the type does not have is left alone.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn set(&mut self, column: &str, value: &Value) -> Result<(), ValueError>;

    /// Applies the difference of a column.
    ///
    /// # Errors
    /// [`ValueError`] for a value of another type.
    fn modify(&mut self, column: &str, difference: &Value) -> Result<(), ValueError>;
}

/// The rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<R> {
    rows: HashMap<Uuid, R>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: HashMap::new() }
    }
}

/// What a change did to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied<R> {
    /// Nothing: the row is as it was.
    Nothing,
    /// It came, went, or is another; this was there before.
    Replaced(Option<R>),
    /// Columns of it changed in place: rows with large sets change by a few elements at a time.
    Modified,
}

impl<R: TableRow> Table<R> {
    /// A row.
    #[must_use]
    pub fn get(&self, uuid: &Uuid) -> Option<&R> {
        self.rows.get(uuid)
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &R)> {
        self.rows.iter()
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Applies a change.
    ///
    /// # Errors
    /// [`ColumnError`], also for a change of a row that is not there. The row may then be changed in part.
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
                let row = self.rows.get_mut(&uuid).ok_or_else(|| not_there::<R>(uuid))?;
                set_columns(row, uuid, columns, R::modify)?;
                Ok(Applied::Modified)
            }
            RowChange::Delete => Ok(match self.rows.remove(&uuid) {
                Some(row) => Applied::Replaced(Some(row)),
                None => Applied::Nothing,
            }),
        }
    }

    /// The rows that are not among `present`.
    pub fn others<'a>(&'a self, present: &'a HashSet<Uuid>) -> impl Iterator<Item = Uuid> + 'a {
        self.rows.keys().copied().filter(|uuid| !present.contains(uuid))
    }
}

fn not_there<R: TableRow>(uuid: Uuid) -> ColumnError {
    let error =
        ValueError { expected: "a row that is there", found: "a change of one that is not".to_owned() };
    ColumnError { table: R::TABLE.to_owned(), uuid, column: "_uuid".to_owned(), error }
}

type Setter<R> = fn(&mut R, &str, &Value) -> Result<(), ValueError>;

fn set_columns<R: TableRow>(
    row: &mut R,
    uuid: Uuid,
    columns: &Map<String, Value>,
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
