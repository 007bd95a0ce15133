//! Whatever happens to the rows, the indexes are what the rows make of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use ovsdb::replica::Replica as _;

/// Rows of a small database, as columns in OVSDB's notation, by table and number.
type Content = BTreeMap<(&'static str, u128), Map<String, Value>>;

fn ids(numbers: &BTreeSet<u128>) -> Value {
    value::set(numbers.iter().map(|number| value::uuid(Uuid::from_u128(*number))))
}

fn words(words: &BTreeSet<u8>) -> Value {
    value::set(words.iter().map(|word| json!(format!("0a:00:00:00:00:01 10.0.0.{word}"))))
}

fn map(pairs: &[(&str, String)]) -> Value {
    value::map(pairs.iter().map(|(key, value)| (json!(key), json!(value))))
}

fn row(table: &str, name: u8, refers: &BTreeSet<u128>, says: &BTreeSet<u8>) -> Map<String, Value> {
    let owned = map(&[("owner", format!("owner-{name}"))]);
    let row = match table {
        "Load_Balancer" => json!({"name": "x", "external_ids": owned,
            "vips": map(&[(&format!("10.0.0.{}:80", says.len()), String::new())])}),
        "NAT" => json!({"external_ip": format!("10.0.0.{name}")}),
        "Load_Balancer_Group" => json!({"name": format!("owner-{name}"), "load_balancer": ids(refers)}),
        "Logical_Switch" => {
            json!({"name": format!("n{name}"), "ports": ids(refers), "load_balancer_group": ids(refers),
                "acls": ids(refers), "load_balancer": ids(refers)})
        }
        "Logical_Router" => {
            json!({"external_ids": owned, "ports": ids(refers), "load_balancer_group": ids(refers),
                "load_balancer": ids(refers), "nat": ids(refers)})
        }
        "Logical_Router_Port" => {
            json!({"name": format!("p{name}"), "external_ids": owned, "networks": words(says)})
        }
        "Port_Group" => json!({"ports": ids(refers), "acls": ids(refers)}),
        "ACL" => json!({"action": if name == 0 { Acl::STATELESS } else { "allow" }}),
        _ => {
            let kind = ["router", "localnet", ""][usize::from(name)];
            json!({"type": kind, "addresses": words(says), "external_ids": owned,
                "options": map(&[("router-port", format!("p{}", says.len()))])})
        }
    };
    row.as_object().unwrap().clone()
}

/// Difference from one value of a column to another (ovsdb-server(7), "Update2 Notification").
fn difference(before: &Value, after: &Value) -> Value {
    match before.get(0).and_then(Value::as_str) {
        Some("set") => {
            let (before, after) = (value::elements(before).unwrap(), value::elements(after).unwrap());
            let left = before.iter().filter(|it| !after.contains(it));
            value::set(left.chain(after.iter().filter(|it| !before.contains(it))).cloned())
        }
        Some("map") => {
            let (before, after) = (value::pairs(before).unwrap(), value::pairs(after).unwrap());
            let changed = after.iter().filter(|pair| !before.contains(pair));
            let gone = before.iter().filter(|(key, _)| !after.iter().any(|(other, _)| other == key));
            value::map(changed.chain(gone).map(|(key, value)| ((*key).clone(), (*value).clone())))
        }
        _ => after.clone(),
    }
}

/// The update that leads from one row to another.
fn update(
    (table, number): (&str, u128),
    before: Option<&Map<String, Value>>,
    after: Option<&Map<String, Value>>,
) -> Option<RowUpdate> {
    let change = match (before, after) {
        (None, None) => return None,
        (None, Some(after)) => RowChange::Insert(after.clone()),
        (Some(_), None) => RowChange::Delete,
        (Some(before), Some(after)) => {
            let changed = after.iter().filter(|(column, value)| before.get(*column) != Some(*value));
            let columns = changed.map(|(name, now)| (name.clone(), difference(&before[name], now)));
            RowChange::Modify(columns.collect())
        }
    };
    Some(RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(number), change })
}

const TABLES: [&str; 9] = [
    "NAT",
    "ACL",
    "Port_Group",
    "Load_Balancer",
    "Load_Balancer_Group",
    "Logical_Switch",
    "Logical_Router",
    "Logical_Router_Port",
    "Logical_Switch_Port",
];

/// A port belongs to one switch or router, and a router port's name is one port's: ovsdb-server sees to both.
fn is_legal(content: &Content) -> bool {
    let once = |table: &str, column: &str| {
        let rows = content.iter().filter(|((of, _), _)| *of == table);
        let values: Vec<&Value> = rows.flat_map(|(_, row)| value::elements(&row[column]).unwrap()).collect();
        values.iter().all(|one| values.iter().filter(|other| *other == one).count() == 1)
    };
    once("Logical_Switch", "ports")
        && once("Logical_Router", "ports")
        && once("Logical_Router", "nat")
        && once("Logical_Router_Port", "name")
}

proptest! {
    #[test]
    fn indexes_are_what_the_rows_make_of_them(
        steps in prop::collection::vec(
            (0..TABLES.len(), 1u128..4, prop::option::of((0u8..3, prop::collection::btree_set(1u128..4, 0..3), prop::collection::btree_set(1u8..4, 0..3)))),
            1..40,
        ),
    ) {
        let (mut followed, mut content) = (Northbound::new("owner"), Content::new());
        for (table, number, after) in steps {
            let key = (TABLES[table], number);
            let after = after.map(|(name, refers, says)| row(key.0, name, &refers, &says));
            let mut next = content.clone();
            match &after {
                Some(row) => next.insert(key, row.clone()),
                None => next.remove(&key),
            };
            if !is_legal(&next) {
                continue;
            }
            followed.apply(update(key, content.get(&key), after.as_ref()).into_iter().collect()).unwrap();
            content = next;
        }
        let mut fresh = Northbound::new("owner");
        fresh.reload(content.iter().filter_map(|(key, row)| update(*key, None, Some(row))).collect()).unwrap();
        prop_assert_eq!(followed, fresh);
    }
}

fn modified(table: &'static str, number: u128, columns: &Value) -> RowUpdate {
    let change = RowChange::Modify(columns.as_object().unwrap().clone());
    RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(number), change }
}

fn inserted(table: &'static str, number: u128, columns: &Map<String, Value>) -> RowUpdate {
    update((table, number), None, Some(columns)).unwrap()
}

#[test]
fn a_balancer_that_is_taken_out_of_a_group_is_told_of() {
    let mut nb = Northbound::new("owner");
    let (in_group, none) = ([1, 2].into(), [].into());
    nb.apply(vec![
        inserted("Load_Balancer", 1, &row("Load_Balancer", 1, &none, &[].into())),
        inserted("Load_Balancer", 2, &row("Load_Balancer", 2, &none, &[].into())),
        inserted("Load_Balancer_Group", 9, &row("Load_Balancer_Group", 9, &in_group, &[].into())),
    ])
    .unwrap();
    let mut out = |number| {
        let change = modified("Load_Balancer_Group", 9, &json!({"load_balancer": ids(&[number].into())}));
        nb.apply(vec![change]).unwrap().into_iter().collect::<BTreeSet<_>>()
    };
    let owned = |number| Change::Owned { owner: format!("owner-{number}") };
    assert_eq!(out(1), [owned(1)].into());
    assert_eq!(out(1), [].into());
    assert_eq!(out(1), [owned(1)].into());
    assert_eq!(out(2), [owned(2), owned(9)].into());
}

#[test]
fn networks_of_an_owned_router_port_are_told_one_by_one() {
    let mut nb = Northbound::new("owner");
    let port = row("Logical_Router_Port", 1, &[].into(), &[1].into());
    nb.apply(vec![inserted("Logical_Router_Port", 1, &port)]).unwrap();
    let changed = modified("Logical_Router_Port", 1, &json!({"networks": words(&[1, 2].into())}));
    let changes: BTreeSet<Change> = nb.apply(vec![changed]).unwrap().into_iter().collect();
    let network = |word| Change::Network {
        owner: "owner-1".to_owned(),
        network: format!("0a:00:00:00:00:01 10.0.0.{word}"),
    };
    assert_eq!(changes, [network(1), network(2)].into());
}

#[test]
fn addresses_of_an_owned_switch_port_are_told_one_by_one() {
    let mut nb = Northbound::new("owner");
    let port = row("Logical_Switch_Port", 1, &[].into(), &[1].into());
    nb.apply(vec![inserted("Logical_Switch_Port", 1, &port)]).unwrap();
    let changed = modified("Logical_Switch_Port", 1, &json!({"addresses": words(&[1, 2].into())}));
    let changes: BTreeSet<Change> = nb.apply(vec![changed]).unwrap().into_iter().collect();
    let address = |word| Change::Address {
        owner: "owner-1".to_owned(),
        port: Uuid::from_u128(1),
        address: format!("0a:00:00:00:00:01 10.0.0.{word}"),
    };
    assert_eq!(changes, [address(1), address(2)].into());
    assert!(!nb.has_address("10.0.0.1".parse().unwrap()) && nb.has_address("10.0.0.2".parse().unwrap()));
}

/// `lrp-del x -- lrp-add x` is one transaction; the new row's UUID, and so its place in the update, may be the lower one.
#[test]
fn a_router_port_replaced_under_its_name_is_found() {
    let mut nb = Northbound::new("owner");
    let named = |number| inserted("Logical_Router_Port", number, json!({"name": "x"}).as_object().unwrap());
    nb.apply(vec![named(9)]).unwrap();
    let deleted = RowUpdate { change: RowChange::Delete, ..named(9) };
    nb.apply(vec![named(1), deleted]).unwrap();
    assert_eq!(nb.router_port_named("x"), Some(Uuid::from_u128(1)));
}

/// Whoever shares a router with the switch is notified: their groups belong on the new switch.
#[test]
fn a_switch_plugged_into_a_router_tells_of_the_router() {
    let mut nb = Northbound::new("owner");
    let new = |table, number, row: Value| inserted(table, number, row.as_object().unwrap());
    nb.apply(vec![
        new("Logical_Router_Port", 1, json!({"name": "rp"})),
        new("Logical_Router", 2, json!({"ports": ids(&[1].into())})),
        new("Logical_Switch", 3, json!({"name": "s"})),
    ])
    .unwrap();
    let link = json!({"name": "p", "type": "router", "options": map(&[("router-port", "rp".to_owned())])});
    let changes = nb
        .apply(vec![
            modified("Logical_Switch", 3, &json!({"ports": ids(&[4].into())})),
            new("Logical_Switch_Port", 4, link),
        ])
        .unwrap();
    assert!(changes.contains(&Change::Router { uuid: Uuid::from_u128(2) }), "{changes:?}");
}

/// Ways to physical networks and stateless rules are reported as a change of the switch, not of its ports; and rules also to those who
/// share a router with the switch.
#[test]
fn a_switch_tells_of_its_ways_to_physical_networks_and_of_stateless_rules() {
    let mut nb = Northbound::new("owner");
    let new = |table, number, row: Value| inserted(table, number, row.as_object().unwrap());
    let id = Uuid::from_u128;
    let link = json!({"type": "router", "options": map(&[("router-port", "rp".to_owned())])});
    nb.apply(vec![
        new("Logical_Router_Port", 1, json!({"name": "rp"})),
        new("Logical_Router", 2, json!({"ports": ids(&[1].into())})),
        new("Logical_Switch", 3, json!({"name": "s", "ports": ids(&[4].into())})),
        new("Logical_Switch_Port", 4, link),
    ])
    .unwrap();
    let localnet = |number| new("Logical_Switch_Port", number, json!({"type": "localnet"}));
    let ports = modified("Logical_Switch", 3, &json!({"ports": ids(&[5].into())}));
    let changes = nb.apply(vec![localnet(5), ports.clone()]).unwrap();
    assert_eq!(changes, [Change::Switch { uuid: id(3) }]);
    assert!(nb.is_physical(id(3)));
    let gone = RowUpdate { change: RowChange::Delete, ..localnet(5) };
    assert!(nb.apply(vec![ports, gone]).unwrap().contains(&Change::Switch { uuid: id(3) }));
    assert!(!nb.is_physical(id(3)));

    let acls = modified("Logical_Switch", 3, &json!({"acls": ids(&[6].into())}));
    let (switch, router) = (Change::Switch { uuid: id(3) }, Change::Router { uuid: id(2) });
    let ports = [Change::Ports { switch: id(3) }];
    assert_eq!(nb.apply(vec![acls]).unwrap(), ports, "of another action, which is not monitored");
    let stateless = new("ACL", 6, json!({"action": Acl::STATELESS}));
    let changes: BTreeSet<Change> = nb.apply(vec![stateless.clone()]).unwrap().into_iter().collect();
    assert_eq!(changes, [switch.clone(), router.clone()].into());
    assert!(nb.has_stateless_acls(id(3)));
    let gone = RowUpdate { change: RowChange::Delete, ..stateless };
    let changes: BTreeSet<Change> = nb.apply(vec![gone]).unwrap().into_iter().collect();
    assert_eq!(changes, [switch, router].into());
    assert!(!nb.knows_stateless_acls());
}

/// A rule of a port group is one of each switch that has a port in it, for as long as all three are there.
#[test]
fn a_switch_tells_of_stateless_rules_of_its_ports_groups() {
    let mut nb = Northbound::new("owner");
    let new = |table, number, row: Value| inserted(table, number, row.as_object().unwrap());
    let (switch, id) = (Change::Switch { uuid: Uuid::from_u128(3) }, Uuid::from_u128);
    nb.apply(vec![
        new("Logical_Switch", 3, json!({"name": "s", "ports": ids(&[5].into())})),
        new("Logical_Switch_Port", 5, json!({"name": "p"})),
        new("Port_Group", 7, json!({"ports": ids(&[5].into()), "acls": ids(&[6].into())})),
    ])
    .unwrap();
    assert!(!nb.has_stateless_acls(id(3)) && !nb.knows_stateless_acls());
    let rule = new("ACL", 6, json!({"action": Acl::STATELESS}));
    let told = [switch];
    assert_eq!(nb.apply(vec![rule]).unwrap(), told);
    assert!(nb.has_stateless_acls(id(3)) && nb.knows_stateless_acls());
    // The port leaves the group, and returns; so does the rule.
    for column in [json!({"ports": ids(&[5].into())}), json!({"acls": ids(&[6].into())})] {
        for has_rules in [false, true] {
            assert_eq!(nb.apply(vec![modified("Port_Group", 7, &column)]).unwrap(), told);
            assert_eq!(nb.has_stateless_acls(id(3)), has_rules, "{column}");
        }
    }
    // Another group with such rules makes no difference.
    let other = new("Port_Group", 8, json!({"ports": ids(&[5].into()), "acls": ids(&[6].into())}));
    assert_eq!(nb.apply(vec![other.clone()]).unwrap(), []);
    let gone = RowUpdate { change: RowChange::Delete, ..other };
    assert_eq!(nb.apply(vec![gone]).unwrap(), []);
    // The port leaves the switch.
    let port = modified("Logical_Switch", 3, &json!({"ports": ids(&[5].into())}));
    assert!(nb.apply(vec![port]).unwrap().contains(&told[0]));
    assert!(!nb.has_stateless_acls(id(3)));
}

/// The replica and the database are out of sync then, and only a reload repairs that.
#[test]
fn a_change_of_an_unknown_row_is_an_error() {
    let mut nb = Northbound::new("owner");
    assert!(nb.apply(vec![modified("Load_Balancer", 1, &json!({"name": "x"}))]).is_err());
}

#[test]
fn what_was_applied_in_part_is_put_right_by_a_reload() {
    let mut nb = Northbound::new("owner");
    let before = row("Load_Balancer", 1, &[].into(), &[].into());
    let content = || vec![inserted("Load_Balancer", 1, &before)];
    nb.reload(content()).unwrap();
    let owner = map(&[("owner", "thief".to_owned())]);
    nb.apply(vec![modified("Load_Balancer", 1, &json!({"external_ids": owner, "vips": 5}))]).unwrap_err();
    nb.reload(content()).unwrap();
    let mut fresh = Northbound::new("owner");
    fresh.reload(content()).unwrap();
    assert_eq!(nb, fresh);
}
