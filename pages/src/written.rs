//! What transactions write to an OVSDB.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{Page, one_sided, spans};

/// Head of a table of columns.
const COLUMNS: [&str; 5] = ["table", "column", "key", "operations", "value"];
/// Head of a table of rows that are made and removed.
const ROWS: [&str; 4] = ["table", "one for each", "operations", "why"];

/// A column, or one key of it.
type Place = (String, String, String);

/// What operations (RFC 7047, section 5.2) write, all of them together: which columns, in columns of maps which keys, and by
/// which kind of operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    columns: BTreeMap<Place, BTreeSet<String>>,
    rows: BTreeMap<String, BTreeSet<String>>,
}

impl Written {
    /// Adds operations in their own notation. `name` is what a key is called on the page: for keys that are made of values.
    pub fn add(&mut self, operations: &[Value], name: impl Fn(&str, &str) -> String) {
        for operation in operations {
            let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (kind, table) = (text("op"), text("table"));
            match kind.as_str() {
                "insert" | "delete" => {
                    self.rows.entry(table.clone()).or_default().insert(kind.clone());
                }
                _ => {}
            }
            for (column, value) in values(operation) {
                for key in keys(column, value) {
                    let place = (
                        table.clone(),
                        column.to_owned(),
                        key.map_or_else(String::new, |key| name(column, key)),
                    );
                    self.columns.entry(place).or_default().insert(kind.clone());
                }
            }
        }
    }

    /// What the tables of columns and of rows on a page say differently.
    #[must_use]
    pub fn faults(&self, page: &Page) -> Vec<String> {
        let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
        let listed =
            |kinds: &BTreeSet<String>| kinds.iter().map(|kind| code(kind)).collect::<Vec<_>>().join(", ");
        let column = |((table, column, key), kinds): (&Place, &BTreeSet<String>)| {
            [code(table), code(column), code(key), listed(kinds)].join(" | ")
        };
        let said =
            |rows: Vec<Vec<String>>| rows.into_iter().filter_map(|row| Some(row.get(..4)?.join(" | ")));
        let mut faults =
            one_sided(&self.columns.iter().map(column).collect(), &said(page.tables(&COLUMNS)).collect());
        let row = |(table, kinds): (&String, &BTreeSet<String>)| [code(table), listed(kinds)].join(" | ");
        let said = page
            .tables(&ROWS)
            .into_iter()
            .filter_map(|row| Some([row.first()?.as_str(), row.get(2)?].join(" | ")));
        faults.extend(one_sided(&self.rows.iter().map(row).collect(), &said.collect()));
        faults
    }
}

/// The columns that an operation writes, with what it writes there.
fn values(operation: &Value) -> Vec<(&str, &Value)> {
    if operation.get("op").and_then(Value::as_str) == Some("wait") {
        return Vec::new();
    }
    let row = operation.get("row").and_then(Value::as_object).into_iter().flat_map(Map::iter);
    let row = row.map(|(column, value)| (column.as_str(), value));
    let mutations = operation.get("mutations").and_then(Value::as_array).into_iter().flatten();
    row.chain(mutations.filter_map(|it| Some((it.get(0)?.as_str()?, it.get(2)?)))).collect()
}

/// The keys of a map that a value sets or, where it is a set of keys to be deleted from `external_ids`, removes; one `None`
/// where it is no map.
fn keys<'a>(column: &str, value: &'a Value) -> Vec<Option<&'a str>> {
    let elements = || value.get(1).and_then(Value::as_array).into_iter().flatten();
    match value.get(0).and_then(Value::as_str) {
        Some("map") => elements().map(|pair| pair.get(0).and_then(Value::as_str)).collect(),
        Some("set") if column == "external_ids" => elements().map(Value::as_str).collect(),
        None if column == "external_ids" => vec![value.as_str()],
        _ => vec![None],
    }
}

/// What the table with the head `table`, `columns`, `why` on a page says differently from these tables and their columns.
pub fn read_faults(page: &Page, tables: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let known =
        tables.iter().flat_map(|(table, columns)| columns.iter().map(move |it| format!("`{table}`.`{it}`")));
    let row = |row: Vec<String>| {
        let table = row.first().cloned().unwrap_or_default();
        let columns: Vec<String> =
            row.get(1).map(|cell| spans(cell).into_iter().map(str::to_owned).collect()).unwrap_or_default();
        columns.into_iter().map(move |column| format!("{table}.`{column}`"))
    };
    let said = page.tables(&["table", "columns", "why"]).into_iter().flat_map(row);
    one_sided(&known.collect(), &said.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written() -> Written {
        let mut written = Written::default();
        let operations = [
            json!({"op": "wait", "table": "W", "rows": [{"x": 1}], "columns": ["x"]}),
            json!({"op": "insert", "table": "T", "row": {"name": "a", "ids": ["map", [["k", "v"], ["n:1", "v"]]], "none": ["map", []]}}),
            json!({"op": "update", "table": "T", "row": {"name": "b"}}),
            json!({"op": "mutate", "table": "S", "mutations": [["ports", "insert", ["uuid", "1"]],
                ["external_ids", "delete", ["set", ["f"]]], ["external_ids", "insert", ["map", [["f", "2"]]]]]}),
            json!({"op": "delete", "table": "T"}),
        ];
        written.add(&operations, |_, key| key.replace('1', "N"));
        written
    }

    const RIGHT: [&str; 5] = [
        "| `S` | `external_ids` | `f` | `mutate` | |",
        "| `S` | `ports` | | `mutate` | |",
        "| `T` | `ids` | `k` | `insert` | |",
        "| `T` | `ids` | `n:N` | `insert` | |",
        "| `T` | `name` | | `insert`, `update` | |",
    ];

    fn faults(columns: &[&str], row: &str) -> Vec<String> {
        let columns_head = "| table | column | key | operations | value |\n|---|---|---|---|---|\n";
        let rows_head = "| table | one for each | operations | why |\n|---|---|---|---|\n";
        written().faults(&Page::of(&format!("{columns_head}{}\n\n{rows_head}{row}", columns.join("\n"))))
    }

    #[test]
    fn all_that_is_written_is_compared() {
        let row = "| `T` | x | `delete`, `insert` | |";
        assert_eq!(faults(&RIGHT, row), Vec::<String>::new());
        for missing in 0..RIGHT.len() {
            let mut rows = RIGHT.to_vec();
            rows.remove(missing);
            assert_eq!(faults(&rows, row).len(), 1, "{missing}");
        }
        assert_eq!(faults(&[&RIGHT[..], &["| `T` | `x` | | `insert` | |"]].concat(), row).len(), 1);
        assert_eq!(faults(&RIGHT, "| `T` | x | `insert` | |").len(), 2);
        assert_eq!(faults(&RIGHT, "").len(), 1);
    }

    #[test]
    fn what_is_read_is_compared() {
        let page = Page::of("| table | columns | why |\n|---|---|---|\n| `T` | `a`, `b` | |\n");
        let tables = |columns: &[&str]| {
            BTreeMap::from([("T".to_owned(), columns.iter().map(|it| (*it).to_owned()).collect())])
        };
        assert_eq!(read_faults(&page, &tables(&["a", "b"])), Vec::<String>::new());
        assert_eq!(read_faults(&page, &tables(&["a"])), ["`T`.`b` is on the page and does not exist"]);
        assert_eq!(read_faults(&page, &tables(&["a", "b", "c"])), ["`T`.`c` is not on the page"]);
    }
}
