//! Values of columns whose types are known from the schema alone: compared, written and changed as sets of elements.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::operation::Columns;
use super::schema::ColumnKind;
use super::value;

/// Elements of a column by their JSON text; pairs of a map by the text of their keys.
pub(crate) type Cell = BTreeMap<String, Value>;

/// Reads a value in OVSDB's notation. A malformed one is a single element.
pub(crate) fn read(value: &Value) -> Cell {
    match value::pairs(value) {
        Ok(pairs) => pairs.into_iter().map(|(key, value)| (key.to_string(), json!([key, value]))).collect(),
        Err(_) => {
            let elements = value::elements(value).unwrap_or(std::slice::from_ref(value));
            elements.iter().map(|element| (element.to_string(), element.clone())).collect()
        }
    }
}

/// Writes a cell as ovsdb-server does: a set of one element is that element.
pub(crate) fn write(kind: ColumnKind, cell: &Cell) -> Value {
    let elements: Vec<Value> = cell.values().cloned().collect();
    match (kind, elements.as_slice()) {
        (ColumnKind::Map, _) => json!(["map", elements]),
        (_, [one]) => one.clone(),
        _ => value::set(elements),
    }
}

/// Applies the difference that an update carries (ovsdb-server(7), "Update2 Notification").
pub(crate) fn apply(kind: ColumnKind, cell: &mut Cell, difference: Cell) {
    if kind == ColumnKind::Scalar {
        *cell = difference;
        return;
    }
    for (key, element) in difference {
        if cell.get(&key) == Some(&element) {
            cell.remove(&key);
        } else {
            cell.insert(key, element);
        }
    }
}

/// Applies the differences of a row's columns, whose kinds `kind` tells.
pub(crate) fn modify(row: &mut Columns, differences: &Columns, kind: impl Fn(&str) -> ColumnKind) {
    for (column, difference) in differences {
        let kind = kind(column);
        let value = row.entry(column.clone()).or_insert_with(|| value::set([]));
        let mut changed = read(value);
        apply(kind, &mut changed, read(difference));
        *value = write(kind, &changed);
    }
}

/// Difference from `before` to `after`, which [`apply`] takes; `None` if they are equal.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn difference(kind: ColumnKind, before: &Cell, after: &Cell) -> Option<Cell> {
    if before == after {
        return None;
    }
    if kind == ColumnKind::Scalar {
        return Some(after.clone());
    }
    let mut difference = before.clone();
    difference.retain(|key, _| !after.contains_key(key));
    let changed = after.iter().filter(|(key, element)| before.get(*key) != Some(element));
    difference.extend(changed.map(|(key, element)| (key.clone(), element.clone())));
    Some(difference)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells(kind: ColumnKind) -> BoxedStrategy<Value> {
        match kind {
            ColumnKind::Scalar => "[a-c]".prop_map(|text| json!(text)).boxed(),
            ColumnKind::Set => prop::collection::btree_set("[a-c]", 0..4)
                .prop_map(|set| value::set(set.into_iter().map(|text| json!(text))))
                .boxed(),
            ColumnKind::Map => prop::collection::btree_map("[a-c]", "[xy]", 0..4)
                .prop_map(|map| value::map(map.into_iter().map(|(key, value)| (json!(key), json!(value)))))
                .boxed(),
        }
    }

    fn kinds() -> impl Strategy<Value = (ColumnKind, Value, Value)> {
        prop::sample::select(vec![ColumnKind::Scalar, ColumnKind::Set, ColumnKind::Map])
            .prop_flat_map(|kind| (Just(kind), cells(kind), cells(kind)))
    }

    proptest! {
        #[test]
        fn the_difference_of_two_values_leads_from_one_to_the_other((kind, before, after) in kinds()) {
            let (mut cell, after) = (read(&before), read(&after));
            match difference(kind, &cell, &after) {
                Some(difference) => apply(kind, &mut cell, read(&write(kind, &difference))),
                None => prop_assert_eq!(&cell, &after),
            }
            prop_assert_eq!(&cell, &after);
            prop_assert_eq!(read(&write(kind, &cell)), after);
        }
    }
}
