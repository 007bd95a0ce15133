//! The schema of a database (RFC 7047, section 3.2), as far as we ask for it.

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

/// What a database has.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// Version, such as "7.0.0".
    pub version: String,
    tables: BTreeMap<String, BTreeMap<String, Value>>,
}

/// A server's answer is not a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the server's schema has no {0}")]
pub struct SchemaError(&'static str);

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Names what is missing.
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

    /// Whether it has a table.
    #[must_use]
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Whether a table has a column.
    #[must_use]
    pub fn has_column(&self, table: &str, column: &str) -> bool {
        self.column(table, column).is_some()
    }

    /// Whether a column, if it lists the values that it takes, takes this one.
    #[must_use]
    pub fn allows(&self, table: &str, column: &str, value: &str) -> bool {
        let Some(column) = self.column(table, column) else { return false };
        let Some(listed) = column.pointer("/type/key/enum") else { return true };
        super::value::elements(listed).is_ok_and(|elements| elements.iter().any(|element| element == value))
    }

    fn column(&self, table: &str, column: &str) -> Option<&Value> {
        self.tables.get(table)?.get(column)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_tells_tables_columns_and_values() {
        let fields = json!({"type": {"key": {"type": "string", "enum": ["set", ["ip_src", "ip_dst"]]}}});
        let schema = json!({"version": "7.0.0", "tables": {"Load_Balancer": {"columns": {"selection_fields": fields}}}});
        let schema = Schema::parse(&schema).unwrap();
        assert!(schema.has_table("Load_Balancer") && !schema.has_table("ACL"));
        assert!(schema.allows("Load_Balancer", "selection_fields", "ip_src"));
        assert!(!schema.allows("Load_Balancer", "selection_fields", "ipv6_src"));
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
