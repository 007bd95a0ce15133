//! Rows of a [`Double`](super::Double), and transactions on them (RFC 7047, section 5.2; ovsdb(7), "References").

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::cell::{self, Cell};
use crate::error::{DatabaseError, TransactError};
use crate::operation::{Columns, Condition, Function, Mutation, Mutator, Operation, OperationResult};
use crate::replica::{RowChange, RowUpdate};
use crate::schema::{Schema, SchemaError};
use crate::value;

type RowId = (String, Uuid);
type Row = BTreeMap<String, Cell>;
type Rows = BTreeMap<RowId, Row>;

/// All rows of a database.
pub(super) struct Tables {
    schema: Arc<Schema>,
    /// Definitions of the tables, `<table-schema>`.
    tables: Map<String, Value>,
    rows: Rows,
}

impl Tables {
    /// Empty tables of a schema.
    pub(super) fn new(schema: &Value) -> Result<Self, SchemaError> {
        let tables = schema.get("tables").and_then(Value::as_object).cloned().unwrap_or_default();
        Ok(Self { schema: Arc::new(Schema::parse(schema)?), tables, rows: Rows::new() })
    }

    pub(super) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// All rows, as a new client receives them.
    pub(super) fn rows(&self) -> Vec<RowUpdate> {
        self.updates(&Rows::new(), &self.rows)
    }

    /// Carries out operations as one transaction, and returns its changes.
    ///
    /// # Errors
    /// [`TransactError::Refused`]; nothing has changed then.
    pub(super) fn transact(
        &mut self,
        operations: &[Operation],
    ) -> Result<(Vec<OperationResult>, Vec<RowUpdate>), TransactError> {
        let refused = |operation| move |error| TransactError::Refused { operation, error, details: None };
        let mut rows = self.rows.clone();
        let results = operations.iter().enumerate();
        let results = results.map(|(index, operation)| {
            let count = operate(&self.rows, &mut rows, operation).map_err(refused(Some(index)))?;
            Ok(OperationResult { count })
        });
        let results = results.collect::<Result<_, _>>()?;
        self.settle_references(&mut rows).map_err(refused(None))?;
        let updates = self.updates(&self.rows, &rows);
        self.rows = rows;
        Ok((results, updates))
    }

    /// Deletes unreferenced rows of tables that are not roots, and weak references to deleted rows.
    fn settle_references(&self, rows: &mut Rows) -> Result<(), DatabaseError> {
        loop {
            let referred: BTreeSet<RowId> =
                rows.iter().flat_map(|(id, row)| self.referred(id, row, false)).map(|(_, to)| to).collect();
            if referred.iter().any(|id| !rows.contains_key(id)) {
                return Err(DatabaseError::ReferentialIntegrityViolation);
            }
            let before = rows.len();
            rows.retain(|id, _| self.is_root(&id.0) || referred.contains(id));
            if rows.len() == before {
                break;
            }
        }
        let dangling = rows.iter().flat_map(|(id, row)| {
            let weak = self.referred(id, row, true).filter(|(_, to)| !rows.contains_key(to));
            weak.map(move |(column, to)| (id.clone(), column.to_owned(), to.1))
        });
        for (id, column, to) in dangling.collect::<Vec<_>>() {
            if let Some(cell) = rows.get_mut(&id).and_then(|row| row.get_mut(&column)) {
                cell.remove(&value::uuid(to).to_string());
            }
        }
        Ok(())
    }

    fn is_root(&self, table: &str) -> bool {
        self.tables.get(table).and_then(|table| table.get("isRoot")) == Some(&Value::Bool(true))
    }

    /// Rows that a row refers to, each with the column.
    fn referred<'a>(
        &'a self,
        id: &RowId,
        row: &'a Row,
        weak: bool,
    ) -> impl Iterator<Item = (&'a str, RowId)> + 'a {
        let columns = self.tables.get(&id.0).and_then(|table| table.get("columns")?.as_object());
        columns.into_iter().flatten().flat_map(move |(column, definition)| {
            let key = |name| definition.pointer("/type/key").and_then(|key| key.get(name)?.as_str());
            let table = key("refTable").filter(|_| (key("refType") == Some("weak")) == weak);
            let elements = row.get(column).filter(|_| table.is_some()).into_iter().flat_map(Cell::values);
            let to = elements.filter_map(move |it| Some((table?.to_owned(), value::as_uuid(it).ok()?)));
            to.map(move |to| (column.as_str(), to))
        })
    }

    fn updates(&self, before: &Rows, after: &Rows) -> Vec<RowUpdate> {
        let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| (id, RowChange::Delete));
        let changed = after.iter().filter_map(|(id, row)| Some((id, self.change(id, before.get(id), row)?)));
        let update =
            |((table, uuid), change): (&RowId, _)| RowUpdate { table: table.clone(), uuid: *uuid, change };
        gone.chain(changed).map(update).collect()
    }

    fn change(&self, (table, _): &RowId, before: Option<&Row>, after: &Row) -> Option<RowChange> {
        let write = |column: &String, cell: &Cell| {
            (column.clone(), cell::write(self.schema.kind(table, column), cell))
        };
        let Some(before) = before else {
            // Columns at their default are left out.
            let columns = after.iter().filter(|(_, cell)| !cell.is_empty());
            return Some(RowChange::Insert(columns.map(|(column, cell)| write(column, cell)).collect()));
        };
        let columns = before.keys().chain(after.keys()).collect::<BTreeSet<_>>().into_iter();
        let cell = |row: &Row, column| row.get(column).cloned().unwrap_or_default();
        let changes = columns.filter_map(|column| {
            let kind = self.schema.kind(table, column);
            let difference = cell::difference(kind, &cell(before, column), &cell(after, column))?;
            Some(write(column, &difference))
        });
        let changes: Columns = changes.collect();
        (!changes.is_empty()).then_some(RowChange::Modify(changes))
    }
}

fn read_row(columns: &Columns) -> impl Iterator<Item = (String, Cell)> + '_ {
    columns.iter().map(|(column, value)| (column.clone(), cell::read(value)))
}

/// Carries out one operation of a transaction that found the rows `before`; returns the number of rows that it matched.
fn operate(before: &Rows, rows: &mut Rows, operation: &Operation) -> Result<Option<u64>, DatabaseError> {
    let id = |table: &str, uuid: &Uuid| (table.to_owned(), *uuid);
    let met = |is_there: bool| Ok(Some(u64::from(is_there)));
    match operation {
        Operation::Insert { table, uuid, row } => {
            // The UUID of a row that the same transaction removed is not free yet.
            if [before, rows].iter().any(|rows| rows.contains_key(&id(table, uuid))) {
                return Err(DatabaseError::DuplicateUuid);
            }
            rows.insert(id(table, uuid), read_row(row).collect());
            Ok(None)
        }
        Operation::Update { table, uuid, row } => {
            met(rows.get_mut(&id(table, uuid)).map(|held| held.extend(read_row(row))).is_some())
        }
        Operation::Mutate { table, uuid, mutations } => {
            let held = rows.get_mut(&id(table, uuid));
            met(held.map(|held| mutations.iter().for_each(|it| mutate(held, it))).is_some())
        }
        Operation::Delete { table, uuid } => met(rows.remove(&id(table, uuid)).is_some()),
        Operation::Wait { table, conditions, columns, rows: expected } => {
            let of_table = rows.iter().filter(|(id, _)| id.0 == *table);
            let found = of_table.map(|((_, uuid), row)| with_uuid(*uuid, row));
            let found = found.filter(|row| conditions.iter().all(|it| meets(row, it)));
            let only = |row: Row| {
                columns.iter().map(|it| row.get(it.as_ref()).cloned().unwrap_or_default()).collect()
            };
            let found: BTreeSet<Vec<Vec<String>>> = found.map(|row| texts(only(row))).collect();
            let expected = expected.iter().map(|row| texts(only(read_row(row).collect()))).collect();
            if found == expected { Ok(None) } else { Err(DatabaseError::TimedOut) }
        }
    }
}

fn with_uuid(uuid: Uuid, row: &Row) -> Row {
    let own = ("_uuid".to_owned(), cell::read(&value::uuid(uuid)));
    row.clone().into_iter().chain([own]).collect()
}

/// A form of cells that can be ordered.
fn texts(cells: Vec<Cell>) -> Vec<Vec<String>> {
    cells.into_iter().map(|cell| cell.values().map(Value::to_string).collect()).collect()
}

fn meets(row: &Row, condition: &Condition) -> bool {
    let held = row.get(condition.column.as_ref()).cloned().unwrap_or_default();
    let given = cell::read(&condition.value);
    let is_held = |(key, element): (&String, &Value)| held.get(key) == Some(element);
    let compared = || number(&held).partial_cmp(&number(&given));
    match condition.function {
        Function::Equal => held == given,
        Function::NotEqual => held != given,
        Function::Includes => given.iter().all(is_held),
        Function::Excludes => !given.iter().any(is_held),
        Function::Less => compared().is_some_and(Ordering::is_lt),
        Function::LessOrEqual => compared().is_some_and(Ordering::is_le),
        Function::Greater => compared().is_some_and(Ordering::is_gt),
        Function::GreaterOrEqual => compared().is_some_and(Ordering::is_ge),
    }
}

/// The number in a cell; that of an empty one is 0, the default.
fn number(cell: &Cell) -> f64 {
    cell.values().next().and_then(Value::as_f64).unwrap_or_default()
}

fn mutate(row: &mut Row, mutation: &Mutation) {
    let cell = row.entry(mutation.column.clone().into_owned()).or_default();
    if mutation.mutator == Mutator::Add {
        *cell = add(cell, &mutation.value);
        return;
    }
    for (key, element) in cell::read(&mutation.value) {
        match mutation.mutator {
            // A key that is present stays as it is.
            Mutator::Insert => drop(cell.entry(key).or_insert(element)),
            _ => drop(cell.remove(&key)),
        }
    }
}

/// The integers of a cell, each with a number added.
fn add(cell: &Cell, number: &Value) -> Cell {
    let number = number.as_i64().unwrap_or_default();
    let held = cell.values().filter_map(Value::as_i64).chain(cell.is_empty().then_some(0));
    cell::read(&value::set(held.map(|held| serde_json::json!(held.wrapping_add(number)))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROOT: Uuid = Uuid::from_u128(1);
    const PORT: Uuid = Uuid::from_u128(2);
    const OTHER: Uuid = Uuid::from_u128(3);

    fn content() -> Tables {
        let to = |table: &str, kind: &str| {
            json!({"type": {"min": 0, "max": "unlimited",
            "key": {"type": "uuid", "refTable": table, "refType": kind}}})
        };
        let map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
        let schema = json!({"version": "1.0.0", "tables": {
            "Root": {"isRoot": true, "columns": {
                "name": {"type": "string"}, "n": {"type": "integer"},
                "ids": map, "ports": to("Port", "strong"), "likes": to("Root", "weak")}},
            "Port": {"columns": {"name": {"type": "string"}}},
        }});
        Tables::new(&schema).unwrap()
    }

    fn row(row: Value) -> Columns {
        let Value::Object(columns) = row else { panic!("a row is an object") };
        columns
    }

    fn insert(table: &'static str, uuid: Uuid, columns: Value) -> Operation {
        Operation::insert(table, uuid, row(columns))
    }

    /// A root with a port.
    fn pair() -> Tables {
        let mut content = content();
        let ports = value::uuid(PORT);
        let ids = json!(["map", [["a", "1"], ["b", "2"]]]);
        let operations = [
            insert("Port", PORT, json!({"name": "p"})),
            insert("Root", ROOT, json!({"name": "r", "ports": ports, "ids": ids})),
        ];
        content.transact(&operations).unwrap();
        content
    }

    fn refusal(content: &mut Tables, operations: &[Operation]) -> TransactError {
        let before = content.rows();
        let error = content.transact(operations).unwrap_err();
        assert_eq!(content.rows(), before, "nothing of it is done");
        error
    }

    #[test]
    fn a_refused_operation_undoes_those_before_it() {
        let operations = [insert("Root", OTHER, json!({})), insert("Root", ROOT, json!({}))];
        let error = refusal(&mut pair(), &operations);
        let duplicate = DatabaseError::DuplicateUuid;
        assert_eq!(error, TransactError::Refused { operation: Some(1), error: duplicate, details: None });
    }

    #[test]
    fn an_unmet_wait_at_the_head_is_a_fence() {
        let mut content = pair();
        let at = |text: &str| {
            let conditions =
                vec![Condition::row(ROOT), Condition::includes("ids", json!(["map", [["a", text]]]))];
            [Operation::wait(
                "Root",
                conditions,
                vec!["_uuid"],
                vec![row(json!({"_uuid": value::uuid(ROOT)}))],
            )]
        };
        assert_eq!(content.transact(&at("1")).unwrap(), (vec![OperationResult::default()], Vec::new()));
        assert!(refusal(&mut content, &at("2")).is_fenced());
        let whole = |ids: Value| {
            [Operation::wait("Root", vec![Condition::row(ROOT)], vec!["ids"], vec![row(json!({"ids": ids}))])]
        };
        assert!(content.transact(&whole(json!(["map", [["b", "2"], ["a", "1"]]]))).is_ok());
        assert!(refusal(&mut content, &whole(json!(["map", [["a", "1"]]]))).is_fenced());
    }

    #[test]
    fn updates_say_what_changed_in_the_way_of_a_server() {
        let mut content = pair();
        let ids = vec![
            Mutation::delete("ids", value::set([json!("a")])),
            Mutation::insert("ids", json!(["map", [["b", "9"], ["c", "3"]]])),
        ];
        let operations = [
            Operation::mutate("Root", ROOT, ids),
            Operation::update("Root", ROOT, row(json!({"name": "s"}))),
        ];
        let (results, updates) = content.transact(&operations).unwrap();
        assert_eq!(results.iter().map(|it| it.count).collect::<Vec<_>>(), [Some(1), Some(1)]);
        let changes = json!({"name": "s", "ids": ["map", [["a", "1"], ["c", "3"]]]});
        assert_eq!(updates.len(), 1);
        assert_eq!(updates[0].change, RowChange::Modify(row(changes)));
    }

    #[test]
    fn numbers_are_added_and_compared() {
        use Function::{Equal, Excludes, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let mut content = pair();
        let add =
            [Operation::mutate("Root", ROOT, vec![Mutation::add("n", 3_i64), Mutation::add("n", -1_i64)])];
        content.transact(&add).unwrap();
        let holds = |content: &mut Tables, condition: Condition| {
            let found = vec![row(json!({"_uuid": value::uuid(ROOT)}))];
            content.transact(&[Operation::wait("Root", vec![condition], vec!["_uuid"], found)]).is_ok()
        };
        for (function, number, expected) in [
            (Equal, 2_i64, true),
            (NotEqual, 2, false),
            (Less, 3, true),
            (Less, 2, false),
            (LessOrEqual, 2, true),
            (Greater, 2, false),
            (GreaterOrEqual, 2, true),
            (Excludes, 2, false),
        ] {
            assert_eq!(
                holds(&mut content, Condition::new("n", function, number)),
                expected,
                "{function:?} {number}"
            );
        }
    }

    #[test]
    fn a_change_of_a_row_that_is_gone_meets_none() {
        let operations = [Operation::delete("Root", OTHER), Operation::update("Root", OTHER, row(json!({})))];
        let (results, updates) = pair().transact(&operations).unwrap();
        assert!(results.iter().all(|it| it.count == Some(0)) && updates.is_empty());
    }

    #[test]
    fn what_nothing_refers_to_goes_and_weak_references_with_it() {
        let mut content = pair();
        let likes = json!({"likes": value::uuid(ROOT)});
        content.transact(&[insert("Root", OTHER, likes)]).unwrap();
        content.transact(&[Operation::delete("Root", ROOT)]).unwrap();
        let left = content.rows();
        assert_eq!(left.iter().map(|row| row.uuid).collect::<Vec<_>>(), [OTHER]);
        assert_eq!(left[0].change, RowChange::Insert(row(json!({}))));
    }

    #[test]
    fn a_strong_reference_to_nothing_is_refused_at_the_commit() {
        let ports = Mutation::insert("ports", value::uuid(OTHER));
        let error = refusal(&mut pair(), &[Operation::mutate("Root", ROOT, vec![ports])]);
        let dangling = DatabaseError::ReferentialIntegrityViolation;
        assert_eq!(error, TransactError::Refused { operation: None, error: dangling, details: None });
    }
}
