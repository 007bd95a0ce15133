//! Replicas for the tests: one table of the northbound schema, untyped and typed.

use fiberlb_ovn_testing::OWNER_KEY;
use ovsdb::collections::{Map, Set};
use ovsdb::column::Column as _;
use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowUpdate, Table, TableRow as _};
use ovsdb::untyped::UntypedReplica;
use uuid::Uuid;

/// Table that the tests write to.
pub(crate) const TABLE: &str = "Load_Balancer";

/// Empty replica of [`TABLE`].
pub(crate) fn untyped() -> UntypedReplica {
    UntypedReplica::of(vec![MonitoredTable::new(TABLE)])
}

/// Names of the rows with an owner.
pub(crate) fn owned_by(replica: &UntypedReplica, owner: &str) -> Set<String> {
    let ids = |value| Map::<String, String>::read(value).unwrap();
    let rows = replica.rows(TABLE).map(|(_, row)| row);
    let owned = rows.filter(|row| ids(&row["external_ids"]).get(OWNER_KEY).is_some_and(|of| of == owner));
    owned.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

ovsdb::row! {
    /// Row of [`TABLE`].
    pub(crate) struct Row in "Load_Balancer" {
        pub(crate) name: String,
        pub(crate) vips: Map<String, String>,
        pub(crate) transport: Option<String> = "protocol",
        pub(crate) selection_fields: Set<String>,
    }
}

/// Typed replica of [`TABLE`].
#[derive(Default)]
pub(crate) struct Typed {
    pub(crate) rows: Table<Row>,
}

impl Replica for Typed {
    type Change = Uuid;

    fn monitored(&self) -> Option<Vec<MonitoredTable>> {
        Some(vec![MonitoredTable::of::<Row>()])
    }

    fn reload(&mut self, content: Vec<RowUpdate>) -> Result<Vec<Uuid>, ColumnError> {
        let deleted = self.rows.missing_in(&content);
        self.apply(deleted.into_iter().chain(content).collect())
    }

    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Uuid>, ColumnError> {
        let mut changes = Vec::new();
        for update in updates.iter().filter(|update| update.table == Row::TABLE) {
            if self.rows.apply(update.uuid, &update.change)?.is_change() {
                changes.push(update.uuid);
            }
        }
        Ok(changes)
    }
}
