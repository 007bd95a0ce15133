//! Content that is read in parts, so that no message has to hold all of it.
//!
//! Beside the monitor of the database, which sends changes alone, each table is listed (the UUIDs of its rows), and then read by
//! monitors of some rows each, which are cancelled as soon as they have answered. What changes meanwhile comes through the
//! monitor of the database. A server sends all changes up to now before any reply, so that a part is never older than a change
//! that came before it, nor newer than one that comes after it: a row counts as it was first seen, whether in a part or as
//! inserted, with all its changes since then; and one that was deleted is not taken from a part any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::cell;
use crate::operation::Columns;
use crate::replica::{RowChange, RowUpdate};
use crate::schema::Schema;
use crate::value;

/// Rows of the first part of each table, whatever they hold.
const FIRST_ROWS: usize = 16;
/// Factor by which a part may have more rows than the one before it.
const GROWTH: usize = 16;
/// Factor by which parts are meant to be shorter for each one that was too long, in powers of two.
const SHRINKAGE: u32 = 2;
/// Most rows of a part: a request takes about 60 bytes for each, and the server compares all rows of the table with them.
const MAX_ROWS: usize = 16_384;
/// Length that parts are meant to have, in bytes: long enough that their number does not matter.
const PART_BYTES: usize = 16 << 20;
/// Length that parts are meant to have, as a fraction of the longest message: rows may be so much longer than those before them.
const PART_FRACTION: usize = 8;

/// Reply that is awaited.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// UUIDs of the rows of a table.
    List,
    /// This number of rows.
    Part(usize),
}

/// Content that has been read so far.
#[derive(Debug)]
pub(super) struct Reading {
    schema: Arc<Schema>,
    /// Last transaction whose changes were reported.
    pub(super) transaction: Uuid,
    /// Tables with their requests; the last one is being read.
    tables: Vec<(String, Value)>,
    awaited: Awaited,
    /// Rows of the table that were not requested yet.
    unread: Vec<Uuid>,
    size: PartSize,
    /// Rows by table; `None` for deleted ones.
    rows: BTreeMap<String, HashMap<Uuid, Option<Columns>>>,
}

impl Reading {
    /// Nothing yet of the content that these `<monitor-cond-requests>` describe.
    pub(super) fn new(schema: Arc<Schema>, requests: &Value, size: PartSize) -> Self {
        let tables = requests.as_object().into_iter().flatten();
        // One request for each table, as `monitor_request` makes them.
        let tables = tables.filter_map(|(table, request)| Some((table.clone(), request.get(0)?.clone())));
        Self {
            schema,
            transaction: Uuid::nil(),
            tables: tables.collect(),
            awaited: Awaited::List,
            unread: Vec::new(),
            size,
            rows: BTreeMap::new(),
        }
    }

    /// Next `<monitor-cond-requests>`; `None` once the content is complete.
    pub(super) fn request(&self) -> Option<Value> {
        let (table, request) = self.tables.last()?;
        let mut parts = Map::new();
        let (columns, conditions) = match self.awaited {
            Awaited::List => (Some(json!([])), request.get("where").cloned()),
            Awaited::Part(rows) => (request.get("columns").cloned(), Some(self.one_of_next(rows))),
        };
        let only_present = json!({"initial": true, "insert": false, "delete": false, "modify": false});
        parts.extend(columns.map(|columns| ("columns".to_owned(), columns)));
        parts.extend(conditions.map(|conditions| ("where".to_owned(), conditions)));
        parts.insert("select".to_owned(), only_present);
        Some(json!({table: [parts]}))
    }

    /// Conditions that the next rows meet.
    fn one_of_next(&self, rows: usize) -> Value {
        let next = self.unread.iter().rev().take(rows);
        next.map(|uuid| json!(["_uuid", "==", value::uuid(*uuid)])).collect()
    }

    /// Takes the reply to the request, of this length in bytes.
    pub(super) fn reply(&mut self, reply: Vec<RowUpdate>, bytes: usize) {
        let Some((table, _)) = self.tables.last() else { return };
        let known = self.rows.entry(table.clone()).or_default();
        let ours = reply.into_iter().filter(|row| row.table == *table);
        match self.awaited {
            Awaited::List => {
                self.unread = ours.map(|row| row.uuid).filter(|uuid| !known.contains_key(uuid)).collect();
                self.size.restart();
            }
            Awaited::Part(rows) => {
                for row in ours {
                    if let RowChange::Insert(columns) = row.change {
                        known.entry(row.uuid).or_insert(Some(columns));
                    }
                }
                self.unread.truncate(self.unread.len().saturating_sub(rows));
                self.size.learn(rows, bytes);
            }
        }
        if self.unread.is_empty() {
            self.tables.pop();
            self.awaited = Awaited::List;
        } else {
            self.awaited = Awaited::Part(self.size.rows.min(self.unread.len()));
        }
    }

    /// Takes changes that happened meanwhile, up to a transaction.
    pub(super) fn update(&mut self, transaction: Uuid, updates: Vec<RowUpdate>) {
        self.transaction = transaction;
        for RowUpdate { table, uuid, change } in updates {
            let kind = |column: &str| self.schema.kind(&table, column);
            let rows = self.rows.entry(table.clone()).or_default();
            match (change, rows.get_mut(&uuid)) {
                (RowChange::Insert(columns), _) => drop(rows.insert(uuid, Some(columns))),
                (RowChange::Delete, _) => drop(rows.insert(uuid, None)),
                (RowChange::Modify(differences), Some(Some(row))) => {
                    cell::modify(row, &differences, kind);
                }
                // The part that the row will come with has the change.
                (RowChange::Modify(_), _) => {}
            }
        }
    }

    /// Table that is being read, and the number of requested rows; `None` for a list of all their UUIDs.
    pub(super) fn awaited(&self) -> Option<(String, Option<usize>)> {
        let (table, _) = self.tables.last()?;
        let rows = match self.awaited {
            Awaited::List => None,
            Awaited::Part(rows) => Some(rows),
        };
        Some((table.clone(), rows))
    }

    /// Schema and all rows.
    pub(super) fn finish(self) -> (Arc<Schema>, Vec<RowUpdate>) {
        let tables = self.rows.into_iter();
        let rows = tables.flat_map(|(table, rows)| {
            let present = rows.into_iter().filter_map(|(uuid, row)| Some((uuid, RowChange::Insert(row?))));
            present.map(move |(uuid, change)| RowUpdate { table: table.clone(), uuid, change })
        });
        (self.schema, rows.collect())
    }
}

/// Number of rows of the next part, by the length of those before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartSize {
    rows: usize,
    /// Rows of the first part of each table.
    first: usize,
    /// Length that parts are meant to have, in bytes.
    bytes: usize,
}

impl PartSize {
    /// Parts of messages of at most `max_message` bytes. They are shorter with each level of caution, down to one row.
    pub(super) fn new(max_message: usize, caution: u32) -> Self {
        let shrunk = |size: usize| size.checked_shr(caution.saturating_mul(SHRINKAGE)).unwrap_or(0);
        let first = shrunk(FIRST_ROWS).max(1);
        Self { rows: first, first, bytes: shrunk((max_message / PART_FRACTION).min(PART_BYTES)) }
    }

    /// Begins with rows of another kind.
    fn restart(&mut self) {
        self.rows = self.first;
    }

    fn learn(&mut self, rows: usize, bytes: usize) {
        let fitting = rows.saturating_mul(self.bytes) / bytes.max(1);
        self.rows = fitting.clamp(1, rows.saturating_mul(GROWTH).clamp(1, MAX_ROWS));
    }
}

#[cfg(test)]
mod tests;
