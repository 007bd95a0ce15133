//! Fuzz targets: the harnesses of [`ovsdb::fuzzing`] with the replica of the northbound database. Tests drive the same functions
//! with random bytes.

use fiberlb_northbound::Northbound;
use ovsdb::fuzzing::{self, Database};
use ovsdb::replica::Replica as _;
use serde_json::{Value, json};
use uuid::Uuid;

/// See [`fuzzing::framing`].
pub fn framing(bytes: &[u8]) {
    fuzzing::framing(bytes);
}

/// See [`fuzzing::session`].
pub fn session(bytes: &[u8]) {
    fuzzing::session(Northbound::new("owner"), &database(), bytes);
}

/// See [`fuzzing::update`].
pub fn update(bytes: &[u8]) {
    fuzzing::update(Northbound::new("owner"), &database(), bytes);
}

fn database() -> Database {
    Database { schema: schema(), content: content() }
}

fn schema() -> Value {
    let columns =
        |table: Vec<String>| Value::Object(table.into_iter().map(|column| (column, json!({}))).collect());
    let tables = Northbound::new("owner").monitored().unwrap_or_default().into_iter();
    let tables =
        tables.map(|table| (table.name, json!({"columns": columns(table.columns.unwrap_or_default())})));
    json!({"version": "7.0.0", "tables": Value::Object(tables.collect())})
}

/// A row in each of the tables that have indexes.
fn content() -> Value {
    let id = Uuid::from_u128;
    let reference = |uuid: u128| json!(["uuid", id(uuid)]);
    let row = |uuid: u128, row: Value| json!({id(uuid).to_string(): {"initial": row}});
    let owned = json!(["map", [["owner", "me"]]]);
    json!({
        "Load_Balancer": row(1, json!({"name": "a", "vips": ["map", [["10.0.0.9:80", ""]]], "external_ids": owned})),
        "Load_Balancer_Group": row(2, json!({"name": "g", "load_balancer": reference(1)})),
        "DHCP_Options": row(7, json!({"cidr": "10.0.0.0/24", "external_ids": ["map", [["neutron:network_id", "n"]]]})),
        "Logical_Switch": row(3, json!({"name": "s", "ports": reference(4), "load_balancer_group": reference(2),
            "acls": reference(8)})),
        "ACL": row(8, json!({"action": "allow-stateless"})),
        "Port_Group": row(9, json!({"ports": reference(4), "acls": reference(8)})),
        "Logical_Switch_Port": row(4, json!({"name": "p", "type": "router", "addresses": "router 10.0.0.1",
            "options": ["map", [["router-port", "rp"]]], "external_ids": owned})),
        "NAT": row(8, json!({"external_ip": "10.0.0.1"})),
        "Logical_Router": row(5, json!({"name": "r", "nat": reference(8), "ports": reference(6), "load_balancer_group": reference(2)})),
        "Logical_Router_Port": row(6, json!({"name": "rp", "networks": "10.0.0.1/24", "external_ids": owned})),
    })
}
