//! Rows of a [`Double`](super::Double), and transactions on them (RFC 7047, section 5.2; ovsdb(7), "References").

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::{DatabaseError, TransactError};
use crate::operation::{Columns, Condition, Mutation, Operation, OperationResult};
use crate::replica::{RowChange, RowUpdate};
use crate::value;

type RowId = (String, Uuid);
type Row = BTreeMap<String, Cell>;
type Rows = BTreeMap<RowId, Row>;

/// Elements of a column by their text, pairs by that of their keys.
type Cell = BTreeMap<String, Value>;

/// All rows of a database.
pub(super) struct Tables {
    /// Tables as the schema has them.
    tables: Map<String, Value>,
    rows: Rows,
}

impl Tables {
    /// No rows of the tables of a schema.
    pub(super) fn new(schema: &Value) -> Self {
        let tables = schema.get("tables").and_then(Value::as_object).cloned().unwrap_or_default();
        Self { tables, rows: Rows::new() }
    }

    /// All rows, as a new client gets them.
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

    /// Removes rows that are no roots and that nothing refers to, and weak references to rows that are gone.
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
        let write = |column: &String, cell: &Cell| (column.clone(), self.kind(table, column).write(cell));
        let Some(before) = before else {
            // Columns at their default are left out.
            let columns = after.iter().filter(|(_, cell)| !cell.is_empty());
            return Some(RowChange::Insert(columns.map(|(column, cell)| write(column, cell)).collect()));
        };
        let columns = before.keys().chain(after.keys()).collect::<BTreeSet<_>>().into_iter();
        let cell = |row: &Row, column| row.get(column).cloned().unwrap_or_default();
        let changes = columns.filter_map(|column| {
            let difference =
                self.kind(table, column).difference(&cell(before, column), &cell(after, column))?;
            Some(write(column, &difference))
        });
        let changes: Columns = changes.collect();
        (!changes.is_empty()).then_some(RowChange::Modify(changes))
    }

    fn kind(&self, table: &str, column: &str) -> Kind {
        let table = self.tables.get(table);
        let of = table.and_then(|table| table.get("columns")?.get(column)?.get("type"));
        match of {
            Some(of) if of.get("value").is_some() => Kind::Map,
            Some(of) if of.get("max").is_some_and(|most| *most != 1) => Kind::Set,
            _ => Kind::Scalar,
        }
    }
}

/// Kind of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// At most one element.
    Scalar,
    Set,
    Map,
}

impl Kind {
    fn write(self, cell: &Cell) -> Value {
        let elements: Vec<Value> = cell.values().cloned().collect();
        match (self, elements.as_slice()) {
            (Self::Map, _) => serde_json::json!(["map", elements]),
            (_, [one]) => one.clone(),
            _ => value::set(elements),
        }
    }

    /// The change of a column in an update (ovsdb-server(7), "Update2 Notification").
    fn difference(self, before: &Cell, after: &Cell) -> Option<Cell> {
        if before == after {
            return None;
        }
        if self == Self::Scalar {
            return Some(after.clone());
        }
        let mut difference = before.clone();
        difference.retain(|key, _| !after.contains_key(key));
        let news = after.iter().filter(|(key, element)| before.get(*key) != Some(element));
        difference.extend(news.map(|(key, element)| (key.clone(), element.clone())));
        Some(difference)
    }
}

/// Reads a value in OVSDB's notation.
fn read(value: &Value) -> Cell {
    match value::pairs(value) {
        Ok(pairs) => {
            pairs.into_iter().map(|(key, value)| (key.to_string(), serde_json::json!([key, value]))).collect()
        }
        Err(_) => {
            let elements = value::elements(value).unwrap_or_default();
            elements.iter().map(|element| (element.to_string(), element.clone())).collect()
        }
    }
}

fn read_row(columns: &Columns) -> impl Iterator<Item = (String, Cell)> + '_ {
    columns.iter().map(|(column, value)| (column.clone(), read(value)))
}

/// Carries out one operation of a transaction that found the rows `before`, and returns the number of rows that it met.
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
            let only =
                |row: Row| columns.iter().map(|it| row.get(*it).cloned().unwrap_or_default()).collect();
            let found: BTreeSet<Vec<Vec<String>>> = found.map(|row| texts(only(row))).collect();
            let expected = expected.iter().map(|row| texts(only(read_row(row).collect()))).collect();
            if found == expected { Ok(None) } else { Err(DatabaseError::TimedOut) }
        }
    }
}

fn with_uuid(uuid: Uuid, row: &Row) -> Row {
    let own = ("_uuid".to_owned(), read(&value::uuid(uuid)));
    row.clone().into_iter().chain([own]).collect()
}

/// A form of cells that can be ordered.
fn texts(cells: Vec<Cell>) -> Vec<Vec<String>> {
    cells.into_iter().map(|cell| cell.values().map(Value::to_string).collect()).collect()
}

fn meets(row: &Row, condition: &Condition) -> bool {
    let held = row.get(condition.column).cloned().unwrap_or_default();
    let wanted = read(&condition.value);
    match condition.function {
        "includes" => wanted.iter().all(|(key, element)| held.get(key) == Some(element)),
        _ => held == wanted,
    }
}

fn mutate(row: &mut Row, mutation: &Mutation) {
    let cell = row.entry(mutation.column.to_owned()).or_default();
    for (key, element) in read(&mutation.elements) {
        match mutation.mutator {
            // A key that is there stays as it is.
            "insert" => drop(cell.entry(key).or_insert(element)),
            _ => drop(cell.remove(&key)),
        }
    }
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
        Tables::new(&json!({"tables": {
            "Root": {"isRoot": true, "columns": {
                "name": {"type": "string"}, "ids": map, "ports": to("Port", "strong"), "likes": to("Root", "weak")}},
            "Port": {"columns": {"name": {"type": "string"}}},
        }}))
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
