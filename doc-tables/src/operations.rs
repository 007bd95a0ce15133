//! Columns and rows that operations write to an OVSDB (RFC 7047, section 5.2).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{Row, check, code, completed};

/// Kinds of operations by the cells before them.
type Kinds = BTreeMap<Row, BTreeSet<String>>;

/// Writes of many operations together.
#[derive(Debug, Default)]
pub struct Writes {
    columns: Kinds,
    rows: Kinds,
}

impl Writes {
    /// Adds operations. `name`: what the page calls a key of a column, for keys that are made of values.
    pub fn add(&mut self, operations: &[Value], name: impl Fn(&str, &str) -> String) {
        for operation in operations {
            let text = |key: &str| operation[key].as_str().unwrap_or_default().to_owned();
            let (kind, table) = (text("op"), text("table"));
            if matches!(kind.as_str(), "insert" | "delete") {
                self.rows.entry(vec![table.clone()]).or_default().insert(kind.clone());
            }
            for (column, value) in values(operation) {
                for key in keys(column, value) {
                    let key = key.map_or_else(String::new, |key| name(column, key));
                    let place = vec![table.clone(), column.to_owned(), key];
                    self.columns.entry(place).or_default().insert(kind.clone());
                }
            }
        }
    }

    /// Checks the tables `PREFIX-rows` and `PREFIX-columns` of a page.
    pub fn check(&self, page: &str, prefix: &str) {
        let head = ["table", "operations", "one for each", "why"];
        check(page, &format!("{prefix}-rows"), &head, |present| completed(rows(&self.rows), 1, 4, present));
        let head = ["table", "column", "key", "operations", "value"];
        check(page, &format!("{prefix}-columns"), &head, |present| {
            completed(rows(&self.columns), 3, 5, present)
        });
    }
}

/// Checks the table of what is read from a database: tables with their columns.
pub fn check_reads<T, C>(page: &str, name: &str, tables: impl IntoIterator<Item = (T, C)>)
where
    T: AsRef<str>,
    C: IntoIterator<Item: AsRef<str>>,
{
    let row = |(table, columns): (T, C)| {
        let columns = columns.into_iter().map(|column| code(column.as_ref()));
        vec![code(table.as_ref()), columns.collect::<Vec<_>>().join(", ")]
    };
    let rows = tables.into_iter().map(row).collect();
    check(page, name, &["table", "columns", "why"], |present| completed(rows, 1, 3, present));
}

fn rows(kinds: &Kinds) -> Vec<Row> {
    let row = |(cells, kinds): (&Row, &BTreeSet<String>)| {
        let kinds = kinds.iter().map(|kind| code(kind)).collect::<Vec<_>>().join(", ");
        cells.iter().map(|cell| code(cell)).chain([kinds]).collect()
    };
    kinds.iter().map(row).collect()
}

/// The columns that an operation writes, with their values or mutations.
fn values(operation: &Value) -> Vec<(&str, &Value)> {
    let row = operation["row"].as_object().into_iter().flat_map(Map::iter);
    let mutations = operation["mutations"].as_array().into_iter().flatten();
    let mutations = mutations.filter_map(|it| Some((it[0].as_str()?, &it[2])));
    row.map(|(column, value)| (column.as_str(), value)).chain(mutations).collect()
}

/// Keys of a map that a value sets, or of `external_ids` that it deletes; one `None` where it is no map.
fn keys<'a>(column: &str, value: &'a Value) -> Vec<Option<&'a str>> {
    let elements = || value[1].as_array().into_iter().flatten();
    match value[0].as_str() {
        Some("map") => elements().map(|pair| pair[0].as_str()).collect(),
        Some("set") if column == "external_ids" => elements().map(Value::as_str).collect(),
        None if column == "external_ids" => vec![value.as_str()],
        _ => vec![None],
    }
}
