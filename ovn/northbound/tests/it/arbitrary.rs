//! The fuzz targets, driven by random bytes: what comes from outside never panics.

use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod drive;

/// JSON in the notation of OVSDB more often than not.
fn value() -> impl Strategy<Value = Value> {
    let id = (0..8_u128).prop_map(|id| json!(["uuid", uuid::Uuid::from_u128(id)]));
    let text = prop::sample::select(vec![
        "",
        "a",
        "rp",
        "router",
        "me",
        "10.0.0.1",
        "fd00::1/64",
        "0a:00:00:00:00:01 10.0.0.1",
        "set",
        "map",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
        id
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let pairs = prop::collection::vec((text.clone(), inner.clone()), 0..4);
        prop_oneof![
            list.clone().prop_map(|list| json!(["set", list])),
            pairs.prop_map(|pairs| json!(["map", pairs])),
            list.prop_map(Value::from),
            inner.prop_map(|value| json!({"a": value})),
        ]
    })
}

/// Changes of one to three rows, most of them of rows that are there.
fn updates() -> impl Strategy<Value = Value> {
    let table = prop::sample::select(vec![
        "Load_Balancer",
        "Load_Balancer_Group",
        "Logical_Switch",
        "Logical_Switch_Port",
        "Logical_Router",
        "Logical_Router_Port",
        "Logical_Router_Policy",
        "DHCP_Options",
        "NB_Global",
        "Other",
    ]);
    let column = prop::sample::select(vec![
        "name",
        "vips",
        "ports",
        "policies",
        "type",
        "options",
        "addresses",
        "networks",
        "cidr",
        "external_ids",
        "load_balancer",
        "load_balancer_group",
        "enabled",
    ]);
    let kind = prop::sample::select(vec!["initial", "insert", "modify", "delete", "other"]);
    let row = prop::collection::btree_map(column, value(), 0..4);
    prop::collection::vec((table, 0..8_u128, kind, row), 1..4).prop_map(|rows| {
        let mut updates = json!({});
        for (table, id, kind, row) in rows {
            updates[table][uuid::Uuid::from_u128(id).to_string()] = json!({kind: row});
        }
        updates
    })
}

proptest! {
    #[test]
    fn framing_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        drive::framing(&bytes);
    }

    #[test]
    fn framing_takes_what_looks_like_json(size in any::<u8>(), text in r#"[{}\[\]"\\a \n]{0,60}"#) {
        drive::framing(&[&[size], text.as_bytes()].concat());
    }

    #[test]
    fn a_session_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        drive::session(&bytes);
    }

    #[test]
    fn a_session_takes_any_message(
        method in prop::option::of("(echo|update|update2|update3|monitor_canceled|[a-z]{1,4})"),
        id in prop_oneof![value(), Just(json!("schema")), Just(json!("monitor")), Just(json!("part")), Just(json!("server")), Just(json!("echo")), Just(json!(1))],
        (params, result, error) in (value(), value(), value()),
    ) {
        let message = json!({"id": id, "method": method, "params": params, "result": result, "error": error});
        drive::session(message.to_string().as_bytes());
    }

    #[test]
    fn a_session_takes_anything_that_a_server_says_of_itself(kind in "(initial|insert|modify|delete)", row in value()) {
        let updates = json!({"Database": {uuid::Uuid::nil().to_string(): {kind: row}}});
        let message = json!({"method": "update2", "params": ["server", updates]});
        drive::session(message.to_string().as_bytes());
    }

    #[test]
    fn a_replica_takes_any_update(several in prop::collection::vec(updates(), 1..4)) {
        for updates in several {
            drive::update(updates.to_string().as_bytes());
        }
    }
}
