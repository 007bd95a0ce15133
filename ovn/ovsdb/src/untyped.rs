//! Replica of any tables of any database, with rows as JSON.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use uuid::Uuid;

use super::cell;
use super::operation::Columns;
use super::replica::{ColumnError, MonitoredTable, Replica, RowChange, RowUpdate, missing_in, unknown_row};
use super::schema::Schema;

/// Replica that holds rows as JSON objects: a value in OVSDB's notation (RFC 7047, section 5.1) for each monitored column,
/// columns at their default included.
///
/// A set of one element is written as that element, as ovsdb-server does. [`Column::read`](crate::column::Column::read) turns a
/// value into a Rust type:
///
/// ```
/// use std::collections::BTreeSet;
///
/// use ovsdb::collections::Set;
/// use ovsdb::column::Column as _;
/// use ovsdb::untyped::UntypedReplica;
/// use ovsdb::value::ValueError;
/// use uuid::Uuid;
///
/// /// Ports of all bridges.
/// fn ports(replica: &UntypedReplica) -> Result<BTreeSet<Uuid>, ValueError> {
///     let mut ports = BTreeSet::new();
///     for (_uuid, bridge) in replica.rows("Bridge") {
///         ports.extend(bridge.get("ports").map(Set::<Uuid>::read).transpose()?.unwrap_or_default());
///     }
///     Ok(ports)
/// }
/// # assert_eq!(ports(&UntypedReplica::all_tables()), Ok(BTreeSet::new()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct UntypedReplica {
    monitored: Option<Vec<MonitoredTable>>,
    schema: Option<Arc<Schema>>,
    tables: BTreeMap<String, HashMap<Uuid, Arc<Columns>>>,
}

/// Difference of one row in an [`UntypedReplica`].
#[derive(Clone, Debug, PartialEq)]
pub struct UntypedChange {
    /// Table of the row.
    pub table: String,
    /// UUID of the row.
    pub uuid: Uuid,
    /// Previous row; `None` if it was inserted.
    pub before: Option<Arc<Columns>>,
    /// Present row; `None` if it was deleted.
    pub after: Option<Arc<Columns>>,
}

impl UntypedReplica {
    /// Empty replica that will hold these tables.
    #[must_use]
    pub fn of(tables: Vec<MonitoredTable>) -> Self {
        Self { monitored: Some(tables), ..Self::default() }
    }

    /// Empty replica that will hold all tables of the database.
    #[must_use]
    pub fn all_tables() -> Self {
        Self::default()
    }

    /// Row with this UUID.
    #[must_use]
    pub fn get(&self, table: &str, uuid: Uuid) -> Option<&Arc<Columns>> {
        self.tables.get(table)?.get(&uuid)
    }

    /// Rows of a table, in no order; none for a table that is not monitored.
    pub fn rows(&self, table: &str) -> impl ExactSizeIterator<Item = (Uuid, &Arc<Columns>)> {
        static NO_ROWS: std::sync::LazyLock<HashMap<Uuid, Arc<Columns>>> =
            std::sync::LazyLock::new(HashMap::new);
        self.tables.get(table).unwrap_or(&NO_ROWS).iter().map(|(uuid, row)| (*uuid, row))
    }

    fn update(&mut self, update: &RowUpdate) -> Result<UntypedChange, ColumnError> {
        let (table, uuid) = (update.table.as_str(), update.uuid);
        let before = self.get(table, uuid).cloned();
        let after = match &update.change {
            RowChange::Insert(columns) => Some(self.inserted(table, columns)),
            RowChange::Modify(differences) => {
                let before = before.as_deref().ok_or_else(|| unknown_row(table, uuid))?;
                Some(self.modified(table, before, differences))
            }
            RowChange::Delete => None,
        };
        let after = after.map(Arc::new);
        let rows = self.tables.entry(table.to_owned()).or_default();
        match &after {
            Some(row) => drop(rows.insert(uuid, Arc::clone(row))),
            None => drop(rows.remove(&uuid)),
        }
        Ok(UntypedChange { table: table.to_owned(), uuid, before, after })
    }

    /// Columns of a new row, with the defaults that the server omits.
    fn inserted(&self, table: &str, columns: &Columns) -> Columns {
        let defaults = self
            .monitored_columns(table)
            .filter_map(|column| Some((column.to_owned(), self.schema.as_ref()?.default_of(table, column))));
        let mut row: Columns = defaults.collect();
        row.extend(columns.iter().map(|(column, value)| (column.clone(), value.clone())));
        row
    }

    fn modified(&self, table: &str, before: &Columns, differences: &Columns) -> Columns {
        let mut row = before.clone();
        let kind = |column: &str| {
            self.schema.as_ref().map_or(crate::schema::ColumnKind::Scalar, |it| it.kind(table, column))
        };
        cell::modify(&mut row, differences, kind);
        row
    }

    /// Columns of a table that are monitored and in the schema.
    fn monitored_columns<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a str> {
        let monitored = self.monitored.iter().flatten().find(|it| it.name == table);
        let columns = monitored.and_then(|table| table.columns.as_ref());
        let is_monitored = move |column: &&str| columns.is_none_or(|all| all.iter().any(|it| it == column));
        self.schema.iter().flat_map(move |schema| schema.columns(table)).filter(is_monitored)
    }
}

impl Replica for UntypedReplica {
    type Change = UntypedChange;

    fn monitored(&self) -> Option<Vec<MonitoredTable>> {
        self.monitored.clone()
    }

    fn set_schema(&mut self, schema: &Arc<Schema>) {
        self.schema = Some(Arc::clone(schema));
    }

    fn reload(&mut self, content: Vec<RowUpdate>) -> Result<Vec<UntypedChange>, ColumnError> {
        let missing = |(table, rows): (&String, &HashMap<Uuid, _>)| missing_in(table, rows.keys(), &content);
        let deleted: Vec<RowUpdate> = self.tables.iter().flat_map(missing).collect();
        self.apply(deleted.into_iter().chain(content).collect())
    }

    /// Applies updates; returns the rows that differ afterwards.
    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<UntypedChange>, ColumnError> {
        let mut changes = Vec::new();
        for update in &updates {
            let change = self.update(update)?;
            changes.extend((change.before != change.after).then_some(change));
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ROW: Uuid = Uuid::from_u128(1);

    fn columns(row: Value) -> Columns {
        let Value::Object(columns) = row else { panic!("a row is an object") };
        columns
    }

    fn update(change: RowChange) -> Vec<RowUpdate> {
        vec![RowUpdate { table: "Bridge".to_owned(), uuid: ROW, change }]
    }

    fn replica(monitored: MonitoredTable) -> UntypedReplica {
        let set = |of: &str| json!({"type": {"key": of, "min": 0, "max": "unlimited"}});
        let map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
        let schema = json!({"version": "1.0.0", "tables": {"Bridge": {"columns": {
            "name": {"type": "string"}, "ports": set("uuid"), "ids": map, "note": {"type": {"key": "string", "min": 0}}}}}});
        let mut replica = UntypedReplica::of(vec![monitored]);
        replica.set_schema(&Arc::new(Schema::parse(&schema).unwrap()));
        replica
    }

    #[test]
    fn a_row_has_its_defaults_and_follows_the_differences() {
        let mut replica = replica(MonitoredTable::new("Bridge"));
        let inserted = replica.apply(update(RowChange::Insert(columns(json!({"name": "a"}))))).unwrap();
        let row = json!({"name": "a", "ports": ["set", []], "ids": ["map", []], "note": ["set", []]});
        assert_eq!(*inserted[0].after.clone().unwrap(), columns(row));
        assert_eq!(inserted[0].before, None);

        let id = |number| json!(["uuid", Uuid::from_u128(number)]);
        let more = json!({"ports": ["set", [id(5), id(6)]], "ids": ["map", [["k", "v"]]], "note": "n"});
        replica.apply(update(RowChange::Modify(columns(more)))).unwrap();
        let less = json!({"ports": id(5), "ids": ["map", [["k", "v"], ["l", "w"]]], "note": ["set", []]});
        let changes = replica.apply(update(RowChange::Modify(columns(less)))).unwrap();
        let row = json!({"name": "a", "ports": id(6), "ids": ["map", [["l", "w"]]], "note": ["set", []]});
        assert_eq!(*changes[0].after.clone().unwrap(), columns(row));
        assert_eq!(replica.get("Bridge", ROW), changes[0].after.as_ref());
    }

    #[test]
    fn a_reload_tells_only_what_differs() {
        let mut replica = replica(MonitoredTable::new("Bridge"));
        let content = || update(RowChange::Insert(columns(json!({"name": "a"}))));
        assert_eq!(replica.reload(content()).unwrap().len(), 1);
        assert_eq!(replica.reload(content()).unwrap(), []);
        let deleted = replica.reload(Vec::new()).unwrap();
        assert!(deleted[0].before.is_some() && deleted[0].after.is_none());
        assert_eq!(replica.rows("Bridge").len(), 0);
        assert_eq!(replica.apply(update(RowChange::Delete)).unwrap(), []);
    }

    #[test]
    fn columns_that_are_not_monitored_are_left_out() {
        let only_name =
            MonitoredTable { columns: Some(vec!["name".to_owned()]), ..MonitoredTable::new("Bridge") };
        let mut replica = replica(only_name);
        let changes = replica.apply(update(RowChange::Insert(Columns::new()))).unwrap();
        assert_eq!(*changes[0].after.clone().unwrap(), columns(json!({"name": ""})));
    }

    #[test]
    fn a_modification_of_an_unknown_row_is_an_error() {
        let mut replica = replica(MonitoredTable::new("Bridge"));
        assert!(replica.apply(update(RowChange::Modify(Columns::new()))).is_err());
        assert_eq!(replica.rows("Nothing").count(), 0);
    }
}
