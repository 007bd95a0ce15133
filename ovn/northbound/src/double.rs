//! Double of a northbound database, for tests in process.

use serde_json::{Value, json};

use super::Northbound;
use ovsdb::client::double::Double;
use ovsdb::schema::SchemaError;

/// Server of an empty northbound database with the tables in use.
///
/// # Errors
/// None in practice: the schema is fixed.
pub fn database() -> Result<Double<Northbound>, SchemaError> {
    Double::new(&schema())
}

/// Tables and columns in use, as in OVN 25.03 (schema 7.11.0).
fn schema() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": {"key": "string", "min": 0, "max": "unlimited"}});
    let map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
    let rows = |table: &str, kind: &str| {
        let key = json!({"type": "uuid", "refTable": table, "refType": kind});
        json!({"type": {"key": key, "min": 0, "max": "unlimited"}})
    };
    let uuids = json!({"type": {"key": "uuid", "min": 0, "max": "unlimited"}});
    let optional = |key: &str| json!({"type": {"key": key, "min": 0, "max": 1}});
    let instance = |ports: &str| {
        json!({"isRoot": true, "columns": {
            "name": text, "ports": rows(ports, "strong"), "load_balancer": rows("Load_Balancer", "weak"),
            "load_balancer_group": rows("Load_Balancer_Group", "strong"),
            "acls": rows("ACL", "strong"), "nat": rows("NAT", "strong"),
            "policies": rows("Logical_Router_Policy", "strong"),
            "other_config": map, "options": map, "enabled": optional("boolean"), "external_ids": map}})
    };
    json!({"version": "7.11.0", "tables": {
        "Load_Balancer": {"isRoot": true, "columns": {
            "name": text, "vips": map, "protocol": optional("string"), "selection_fields": texts,
            "options": map, "external_ids": map}},
        "Load_Balancer_Group": {"isRoot": true, "columns": {
            "name": text, "load_balancer": rows("Load_Balancer", "weak")}},
        "Logical_Switch": instance("Logical_Switch_Port"),
        "Logical_Router": instance("Logical_Router_Port"),
        "Logical_Router_Port": {"columns": {
            "name": text, "mac": text, "networks": texts, "gateway_chassis": uuids,
            "ha_chassis_group": optional("uuid"), "enabled": optional("boolean"), "external_ids": map}},
        "Logical_Router_Policy": {"columns": {
            "priority": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 32767}}},
            "match": text, "action": text, "nexthops": texts, "external_ids": map}},
        "Logical_Switch_Port": {"columns": {
            "name": text, "type": text, "options": map, "addresses": texts,
            "dynamic_addresses": optional("string"), "port_security": texts, "up": optional("boolean"),
            "external_ids": map}},
        "DHCP_Options": {"isRoot": true, "columns": {"cidr": text, "options": map, "external_ids": map}},
        "ACL": {"columns": {"action": text}},
        "Port_Group": {"isRoot": true, "columns": {"ports": rows("Logical_Switch_Port", "weak"), "acls": rows("ACL", "strong")}},
        "NAT": {"columns": {"external_ip": text}},
        "NB_Global": {"isRoot": true, "columns": {"options": map, "external_ids": map}},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use ovsdb::replica::Replica as _;
    use ovsdb::schema::Schema;

    #[test]
    fn it_has_what_is_monitored() {
        let schema = Schema::parse(&schema()).unwrap();
        for table in Northbound::new("owner").monitored().unwrap() {
            for column in table.columns.unwrap() {
                assert!(schema.has_column(&table.name, &column), "{} {column}", table.name);
            }
        }
    }
}
