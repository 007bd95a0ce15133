//! Replica of the local Open_vSwitch database.

use std::collections::HashSet;

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use super::rows::{Bridge, Interface, OpenVswitch, Port};
use fiberlb_northbound::plan::{Installation, OWNER_KEY, Owner};
use ovsdb::column::Column as _;
use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowChange, RowUpdate, Table, TableRow};

/// Name of the database.
pub const DATABASE: &str = "Open_vSwitch";

/// Columns of `Open_vSwitch` that tell how far ovs-vswitchd is.
const PROGRESS: [&str; 2] = ["next_cfg", "cur_cfg"];

/// Change that may require a new plan. Changes of the ports of others are not reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A bridge was created or deleted, or its columns other than `ports` changed.
    Bridge {
        /// Name of the bridge.
        name: String,
    },
    /// A Port or Interface of an owner was created, deleted, changed, or moved between bridges.
    Owned {
        /// Present or previous owner.
        owner: Owner,
    },
    /// Settings in the row of `Open_vSwitch` changed.
    Switch,
}

/// Replica of the tables in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vswitch {
    /// Rows of `Open_vSwitch`.
    pub open_vswitch: Table<OpenVswitch>,
    /// Rows of `Bridge`.
    pub bridge: Table<Bridge>,
    /// Rows of `Port`.
    pub port: Table<Port>,
    /// Rows of `Interface`.
    pub interface: Table<Interface>,
}

impl Vswitch {
    /// Empty replica.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Row of `Open_vSwitch`.
    #[must_use]
    pub fn switch(&self) -> Option<(Uuid, &OpenVswitch)> {
        self.open_vswitch.iter().next().map(|(uuid, row)| (*uuid, row))
    }

    /// Finds a bridge by its name.
    #[must_use]
    pub fn bridge_named(&self, name: &str) -> Option<(Uuid, &Bridge)> {
        self.bridge.iter().find(|(_, bridge)| bridge.name == name).map(|(uuid, bridge)| (*uuid, bridge))
    }

    /// Finds the bridge of a port.
    #[must_use]
    pub fn bridge_of_port(&self, port: Uuid) -> Option<Uuid> {
        self.bridge.iter().find(|(_, bridge)| bridge.ports.contains(&port)).map(|(uuid, _)| *uuid)
    }

    /// Interfaces of an installation with their owners; `error` is what ovs-vswitchd reports of them.
    pub fn interfaces_of(
        &self,
        installation: Installation,
    ) -> impl Iterator<Item = (Uuid, Owner, &Interface)> {
        let owned =
            move |external_ids| owner_in(external_ids).filter(|owner| owner.installation == installation);
        self.interface.iter().filter_map(move |(uuid, row)| Some((*uuid, owned(&row.external_ids)?, row)))
    }

    /// Ports of an installation.
    pub(super) fn ports_of(&self, installation: Installation) -> impl Iterator<Item = Uuid> {
        let ours =
            move |row: &Port| owner_in(&row.external_ids)?.installation.eq(&installation).then_some(());
        self.port.iter().filter_map(move |(uuid, row)| ours(row).map(|()| *uuid))
    }

    fn update(&mut self, update: &RowUpdate, changes: &mut HashSet<Change>) -> Result<(), ColumnError> {
        let (uuid, change) = (update.uuid, &update.change);
        match update.table.as_str() {
            OpenVswitch::TABLE => {
                let is_progress = |column: &String| PROGRESS.contains(&column.as_str());
                let progresses =
                    matches!(change, RowChange::Modify(columns) if columns.keys().all(is_progress));
                let applied = self.open_vswitch.apply(uuid, change)?;
                changes.extend((applied.is_change() && !progresses).then_some(Change::Switch));
            }
            Bridge::TABLE => self.update_bridge(uuid, change, changes)?,
            Port::TABLE => update_owned(&mut self.port, uuid, change, |row| &row.external_ids, changes)?,
            Interface::TABLE => {
                update_owned(&mut self.interface, uuid, change, |row| &row.external_ids, changes)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn update_bridge(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let name = |table: &Table<Bridge>| Some(table.get(&uuid)?.name.clone());
        let before = name(&self.bridge);
        let applied = self.bridge.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        if let RowChange::Modify(columns) = change {
            // The difference was applied, so it is well-formed.
            let moved = columns.get("ports").and_then(|ports| Set::<Uuid>::read(ports).ok());
            let rows = moved.iter().flatten().filter_map(|port| self.port.get(port));
            changes.extend(rows.filter_map(|row| owned(&row.external_ids)));
            if columns.keys().all(|column| column == "ports") {
                return Ok(());
            }
        }
        let names = before.into_iter().chain(name(&self.bridge));
        changes.extend(names.map(|name| Change::Bridge { name }));
        Ok(())
    }

    /// Differences to another whole content.
    fn differences(&self, next: &Self) -> HashSet<Change> {
        let mut changes = HashSet::new();
        let settings = |row: &OpenVswitch| row.external_ids.clone();
        if pairs(&self.open_vswitch, &next.open_vswitch)
            .any(|(before, after)| before.map(settings) != after.map(settings))
        {
            changes.insert(Change::Switch);
        }
        let without_ports = |row: &Bridge| Bridge { ports: Set::new(), ..row.clone() };
        for (before, after) in pairs(&self.bridge, &next.bridge) {
            if before.map(without_ports) != after.map(without_ports) {
                let names = before.into_iter().chain(after).map(|row| row.name.clone());
                changes.extend(names.map(|name| Change::Bridge { name }));
            }
        }
        for (uuid, row) in self.port.iter() {
            if self.bridge_of_owned(*uuid, row) != next.bridge_of_owned(*uuid, row) {
                changes.extend(owned(&row.external_ids));
            }
        }
        changes.extend(differences_of_owned(&self.port, &next.port, |row| &row.external_ids));
        changes.extend(differences_of_owned(&self.interface, &next.interface, |row| &row.external_ids));
        changes
    }

    fn bridge_of_owned(&self, port: Uuid, row: &Port) -> Option<Uuid> {
        owned(&row.external_ids).and_then(|_| self.bridge_of_port(port))
    }
}

/// Owner that a row names; `None` if it is not one of FiberLB's.
pub(super) fn owner_in(external_ids: &Map<String, String>) -> Option<Owner> {
    external_ids.get(OWNER_KEY)?.parse().ok()
}

fn owned(external_ids: &Map<String, String>) -> Option<Change> {
    owner_in(external_ids).map(|owner| Change::Owned { owner })
}

fn update_owned<R: TableRow>(
    table: &mut Table<R>,
    uuid: Uuid,
    change: &RowChange,
    external_ids: fn(&R) -> &Map<String, String>,
    changes: &mut HashSet<Change>,
) -> Result<(), ColumnError> {
    let owner = |table: &Table<R>| owned(external_ids(table.get(&uuid)?));
    let before = owner(table);
    if table.apply(uuid, change)?.is_change() {
        changes.extend(before.into_iter().chain(owner(table)));
    }
    Ok(())
}

/// Rows of both tables, before and after.
fn pairs<'a, R: TableRow>(
    before: &'a Table<R>,
    after: &'a Table<R>,
) -> impl Iterator<Item = (Option<&'a R>, Option<&'a R>)> {
    let came = after.iter().filter(|(uuid, _)| before.get(uuid).is_none()).map(|(_, row)| (None, Some(row)));
    before.iter().map(|(uuid, row)| (Some(row), after.get(uuid))).chain(came)
}

fn differences_of_owned<'a, R: TableRow>(
    before: &'a Table<R>,
    after: &'a Table<R>,
    external_ids: fn(&R) -> &Map<String, String>,
) -> impl Iterator<Item = Change> {
    let differing = pairs(before, after).filter(|(before, after)| before != after);
    differing
        .flat_map(|(before, after)| before.into_iter().chain(after))
        .filter_map(move |row| owned(external_ids(row)))
}

impl Replica for Vswitch {
    type Change = Change;

    fn monitored(&self) -> Option<Vec<MonitoredTable>> {
        Some(vec![
            MonitoredTable::of::<OpenVswitch>(),
            MonitoredTable::of::<Bridge>(),
            MonitoredTable::of::<Port>(),
            MonitoredTable::of::<Interface>(),
        ])
    }

    fn reload(&mut self, rows: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        let mut next = Self::new();
        next.apply(rows)?;
        let changes = self.differences(&next);
        *self = next;
        Ok(changes.into_iter().collect())
    }

    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        let mut changes = HashSet::new();
        for update in &updates {
            self.update(update, &mut changes)?;
        }
        Ok(changes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use ovsdb::value;

    const OURS: Installation = Installation(Uuid::from_u128(1));

    fn owner() -> Owner {
        OURS.network(Uuid::from_u128(9))
    }

    fn inserted(table: &str, number: u128, columns: &Value) -> RowUpdate {
        let change = RowChange::Insert(columns.as_object().unwrap().clone());
        RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(number), change }
    }

    fn bridge(number: u128, name: &str, ports: &[u128]) -> RowUpdate {
        let ports = value::set(ports.iter().map(|port| value::uuid(Uuid::from_u128(*port))));
        inserted("Bridge", number, &json!({"name": name, "ports": ports}))
    }

    fn port(number: u128, name: &str, owner: Option<Owner>) -> RowUpdate {
        let ids = value::map(owner.map(|owner| (json!(OWNER_KEY), json!(owner.to_string()))));
        inserted("Port", number, &json!({"name": name, "external_ids": ids}))
    }

    fn reload(vswitch: &mut Vswitch, rows: Vec<RowUpdate>) -> HashSet<Change> {
        vswitch.reload(rows).unwrap().into_iter().collect()
    }

    #[test]
    fn a_reload_tells_only_what_differs_and_concerns_us() {
        let mut vswitch = Vswitch::new();
        let content = |on_int: &[u128], on_other: &[u128]| {
            let bridges = [bridge(1, "br-int", on_int), bridge(2, "br-x", on_other)];
            let ports = [port(3, "ours", Some(owner())), port(4, "vm", None)];
            bridges.into_iter().chain(ports).collect::<Vec<_>>()
        };
        let named = |name: &str| Change::Bridge { name: name.to_owned() };
        let owned = || Change::Owned { owner: owner() };
        assert_eq!(
            reload(&mut vswitch, content(&[3, 4], &[])),
            [named("br-int"), named("br-x"), owned()].into()
        );
        assert_eq!(reload(&mut vswitch, content(&[3, 4], &[])), [].into());
        assert_eq!(reload(&mut vswitch, content(&[3], &[4])), [].into(), "a foreign port moved");
        assert_eq!(reload(&mut vswitch, content(&[], &[3, 4])), [owned()].into(), "ours moved");
        let without = vec![bridge(2, "br-x", &[4]), port(4, "vm", None)];
        assert_eq!(reload(&mut vswitch, without), [named("br-int"), owned()].into());
        assert_eq!(vswitch.ports_of(OURS).count(), 0);
    }

    #[test]
    fn a_malformed_reload_changes_nothing() {
        let mut vswitch = Vswitch::new();
        reload(&mut vswitch, vec![bridge(1, "br-int", &[])]);
        let before = vswitch.clone();
        let bad = inserted("Port", 3, &json!({"name": 5}));
        assert!(vswitch.reload(vec![bridge(2, "br-x", &[]), bad]).is_err());
        assert_eq!(vswitch, before);
    }

    #[test]
    fn an_owner_of_another_kind_is_nobodys() {
        let ids = Map::from([(OWNER_KEY.to_owned(), "somebody else".to_owned())]);
        assert_eq!(owner_in(&ids), None);
    }
}
