//! Tables of the local Open_vSwitch database in `docs/ovn.md`.

use std::collections::BTreeMap;

use fiberlb_doc_tables::{Writes, check_reads};
use fiberlb_node::ovs::{Plan, Plug, Vswitch, plug, sweep, unplug};
use fiberlb_northbound::plan::{Installation, Owner};
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::world::name;

const OURS: Installation = Installation(Uuid::from_u128(1));
const BRIDGE: Uuid = Uuid::from_u128(0xb1);
const OTHER_BRIDGE: Uuid = Uuid::from_u128(0xb2);

fn link(owner: Owner) -> Plug {
    Plug { owner, link: name("fl1"), iface_id: format!("port of {owner}") }
}

/// A database by hand: two bridges, and what operations make of them.
struct Database(BTreeMap<(String, Uuid), Map<String, Value>>);

impl Database {
    fn new() -> Self {
        let bridge = |uuid, name: &str| {
            let row = json!({"name": name, "ports": ["set", []]});
            (("Bridge".to_owned(), uuid), row.as_object().unwrap().clone())
        };
        let switch = (("Open_vSwitch".to_owned(), Uuid::from_u128(1)), Map::new());
        Self([switch, bridge(BRIDGE, "br-int"), bridge(OTHER_BRIDGE, "other")].into())
    }

    fn replica(&self) -> Vswitch {
        let rows = self.0.iter().map(|((table, uuid), row)| RowUpdate {
            table: table.clone(),
            uuid: *uuid,
            change: RowChange::Insert(row.clone()),
        });
        let mut replica = Vswitch::new();
        replica.reload(rows.collect()).unwrap();
        replica
    }

    /// Carries out what makes new rows, and puts ports on bridges.
    fn apply(&mut self, plan: &[Value]) {
        for operation in plan {
            let table = operation["table"].as_str().unwrap().to_owned();
            match operation["op"].as_str().unwrap() {
                "insert" => {
                    let uuid = operation["uuid"].as_str().unwrap().parse().unwrap();
                    self.0.insert((table, uuid), operation["row"].as_object().unwrap().clone());
                }
                "mutate" => {
                    let uuid = operation["where"][0][2][1].as_str().unwrap().parse().unwrap();
                    let row = self.0.get_mut(&(table, uuid)).unwrap();
                    row.insert("ports".to_owned(), operation["mutations"][0][2].clone());
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Sets a column of each row of a table, as somebody else may.
    fn harm(&mut self, table: &str, column: &str, value: &Value) {
        for (_, row) in self.0.iter_mut().filter(|((it, _), _)| it == table) {
            row.insert(column.to_owned(), value.clone());
        }
    }
}

fn operations(plan: &Plan) -> Vec<Value> {
    assert_eq!(plan.refused, []);
    plan.operations.iter().map(|operation| serde_json::to_value(operation).unwrap()).collect()
}

#[test]
fn writes_are_as_on_the_page() {
    let [before, after] = [2, 3].map(|network| OURS.network(Uuid::from_u128(network)));
    let mut writes = Writes::default();
    let mut add = |plan: &Plan| {
        let operations = operations(plan);
        writes.add(&operations, |_, key| key.to_owned());
        operations
    };
    let mut database = Database::new();
    let made = add(&plug(&database.replica(), "other", &link(before)));
    database.apply(&made);
    assert_eq!(add(&plug(&database.replica(), "other", &link(before))), Vec::<Value>::new());

    database.harm("Interface", "type", &json!("internal"));
    database.harm("Port", "interfaces", &json!(["uuid", Uuid::from_u128(99)]));
    add(&sweep(&database.replica(), "br-int", OURS, &[link(after)]));
    add(&sweep(&database.replica(), "br-int", OURS, &[]));
    add(&unplug(&database.replica(), before));
    writes.check("ovn.md", "vswitch");
}

#[test]
fn reads_are_as_on_the_page() {
    let tables = Vswitch::new().monitored().unwrap().into_iter();
    check_reads("ovn.md", "vswitch-read", tables.map(|it| (it.name, it.columns.unwrap())));
}
