//! Schema of a database (RFC 7047, section 3.2), as far as a client needs it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use thiserror::Error;

use super::value;

/// Schema of the connected database.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Version, three numbers such as `7.0.0`.
    pub version: String,
    /// Definitions of columns, `<column-schema>`, by table and column.
    tables: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Server's reply that is not a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the server's schema has no {0}")]
pub struct SchemaError(&'static str);

/// Kind of a column: how its values are written, and how differences of them are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// One value, or at most one (`"max": 1`).
    Scalar,
    /// Set of values.
    Set,
    /// Map from keys to values.
    Map,
}

impl Schema {
    /// Parses a `<database-schema>`, the result of `get_schema`.
    ///
    /// # Errors
    /// [`SchemaError`], which names the missing member.
    pub fn parse(value: &Value) -> Result<Self, SchemaError> {
        let version = value.get("version").and_then(Value::as_str).ok_or(SchemaError("version"))?;
        let tables = value.get("tables").and_then(Value::as_object).ok_or(SchemaError("tables"))?;
        let columns = |table: &Value| {
            let columns =
                table.get("columns").and_then(Value::as_object).ok_or(SchemaError("columns in a table"))?;
            Ok(columns.iter().map(|(name, column)| (name.clone(), column.clone())).collect())
        };
        let tables = tables.iter().map(|(name, table)| Ok((name.clone(), columns(table)?)));
        Ok(Self { version: version.to_owned(), tables: tables.collect::<Result<_, SchemaError>>()? })
    }

    /// Names of the tables, sorted.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Names of a table's columns, sorted, without `_uuid` and `_version`. None for an unknown table.
    pub fn columns(&self, table: &str) -> impl Iterator<Item = &str> + use<'_> {
        self.tables.get(table).into_iter().flat_map(|columns| columns.keys().map(String::as_str))
    }

    /// True if the database has the table.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// True if the table has the column.
    #[must_use]
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.column(table, column).is_some()
    }

    /// True if a string column may hold `value`: the schema lists it (`enum`), or lists no values at all.
    #[must_use]
    pub fn allows(&self, table: &str, column: &str, value: &str) -> bool {
        let Some(column) = self.column(table, column) else { return false };
        let Some(listed) = column.pointer("/type/key/enum") else { return true };
        value::elements(listed).is_ok_and(|elements| elements.iter().any(|element| element == value))
    }

    /// Kind of a column; a scalar where the schema does not have it.
    pub(crate) fn kind(&self, table: &str, column: &str) -> ColumnKind {
        let of = self.column(table, column).and_then(|column| column.get("type"));
        match of {
            Some(of) if of.get("value").is_some() => ColumnKind::Map,
            Some(of) if of.get("max").is_some_and(|max| *max != 1) => ColumnKind::Set,
            _ => ColumnKind::Scalar,
        }
    }

    /// Default of a column (RFC 7047, section 5.2.1), which servers omit from the rows that they send.
    pub(crate) fn default_of(&self, table: &str, column: &str) -> Value {
        match self.kind(table, column) {
            ColumnKind::Map => value::map([]),
            ColumnKind::Set => value::set([]),
            ColumnKind::Scalar => self.scalar_default(table, column),
        }
    }

    fn scalar_default(&self, table: &str, column: &str) -> Value {
        let of = self.column(table, column).and_then(|column| column.get("type"));
        if of.and_then(|of| of.get("min")).is_some_and(|min| *min == 0) {
            return value::set([]);
        }
        let key = of.map(|of| of.get("key").unwrap_or(of));
        let atomic = key.and_then(|key| key.get("type").unwrap_or(key).as_str());
        match atomic {
            Some("integer") => json!(0),
            Some("real") => json!(0.0),
            Some("boolean") => json!(false),
            Some("uuid") => value::uuid(uuid::Uuid::nil()),
            _ => json!(""),
        }
    }

    fn column(&self, table: &str, column: &str) -> Option<&Value> {
        self.tables.get(table)?.get(column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_tells_tables_columns_and_values() {
        let fields = json!({"type": {"key": {"type": "string", "enum": ["set", ["ip_src", "ip_dst"]]}}});
        let schema = json!({"version": "7.0.0", "tables": {"Flow": {"columns": {"fields": fields}}}});
        let schema = Schema::parse(&schema).unwrap();
        assert!(schema.has_table("Flow") && !schema.has_table("ACL"));
        assert_eq!(schema.tables().collect::<Vec<_>>(), ["Flow"]);
        assert_eq!(schema.columns("Flow").collect::<Vec<_>>(), ["fields"]);
        assert_eq!(schema.columns("ACL").count(), 0);
        assert!(schema.allows("Flow", "fields", "ip_src"));
        assert!(!schema.allows("Flow", "fields", "ipv6_src"));
    }

    #[test]
    fn the_default_of_a_column_follows_its_type() {
        use ColumnKind::{Map, Scalar, Set};
        for (of, kind, default) in [
            (json!("string"), Scalar, json!("")),
            (json!("integer"), Scalar, json!(0)),
            (json!({"key": "real"}), Scalar, json!(0.0)),
            (json!({"key": {"type": "boolean"}}), Scalar, json!(false)),
            (json!("uuid"), Scalar, value::uuid(uuid::Uuid::nil())),
            (json!({"key": "string", "min": 0, "max": 1}), Scalar, json!(["set", []])),
            (json!({"key": "string", "min": 0, "max": "unlimited"}), Set, json!(["set", []])),
            (json!({"key": {"type": "integer"}, "min": 1, "max": 3}), Set, json!(["set", []])),
            (
                json!({"key": "string", "value": "string", "min": 0, "max": "unlimited"}),
                Map,
                json!(["map", []]),
            ),
        ] {
            let schema = json!({"version": "1.0.0", "tables": {"T": {"columns": {"c": {"type": of}}}}});
            let schema = Schema::parse(&schema).unwrap();
            assert_eq!((schema.kind("T", "c"), schema.default_of("T", "c")), (kind, default), "{of}");
        }
    }

    #[test]
    fn a_hostile_schema_is_an_error() {
        for bad in [
            json!(null),
            json!({"version": "1", "tables": []}),
            json!({"version": 1}),
            json!({"version": "1", "tables": {"a": 1}}),
        ] {
            assert!(Schema::parse(&bad).is_err(), "{bad}");
        }
    }
}
