//! Monitors of a real ovsdb-server: all tables, single columns, and rows by conditions.

use std::collections::BTreeSet;

use ovsdb::operation::{Condition, Function};
use ovsdb::replica::MonitoredTable;
use ovsdb::untyped::UntypedReplica;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::rows::TABLE;
use fiberlb_ovn_testing::{Server, config, connect, owned, replica, row, status};

const ROW: Uuid = Uuid::from_u128(1);

#[tokio::test]
async fn all_tables_come_with_all_their_columns() {
    let server = Server::start().await;
    server.foreign(&[
        json!({"op": "insert", "table": TABLE, "uuid": ROW, "row": owned("a", "o")}),
        json!({"op": "insert", "table": "NB_Global", "row": {"nb_cfg": 7}}),
    ]);
    let (client, mut events) = connect(config(server.unix()), UntypedReplica::all_tables()).await;
    let global = client.read().rows("NB_Global").map(|(_, row)| row["nb_cfg"].clone()).collect::<Vec<_>>();
    assert_eq!(global, [json!(7)]);
    // What the server omits since it is at its default is there all the same.
    let found = server.rows(TABLE, &row(ROW)).remove(0);
    let held = client.read().get(TABLE, ROW).unwrap().clone();
    for (column, value) in found.as_object().unwrap().iter().filter(|(column, _)| !column.starts_with('_')) {
        assert_eq!(&held[column], value, "{column}");
    }
    let vips = json!(["map", [["10.0.0.9:80", ""]]]);
    server.foreign(&[json!({"op": "update", "table": TABLE, "where": row(ROW), "row": {"vips": vips}})]);
    replica(&client, &mut events, "the change", |rows| rows.get(TABLE, ROW).unwrap()["vips"] == vips).await;
}

#[tokio::test]
async fn only_rows_that_meet_a_condition_come() {
    let server = Server::start().await;
    let insert = |name: &str| json!({"op": "insert", "table": TABLE, "row": {"name": name}});
    server.foreign(&[insert("a"), insert("b"), insert("c")]);
    let columns = Some(vec!["name".to_owned()]);
    let table = MonitoredTable { columns, ..MonitoredTable::new(TABLE) }
        .or_where(Condition::equal("name", "a"))
        .or_where(Condition::equal("name", "c"));
    let (client, mut events) = connect(config(server.unix()), UntypedReplica::of(vec![table])).await;
    let names = |replica: &UntypedReplica| -> BTreeSet<String> {
        replica.rows(TABLE).map(|(_, row)| Value::Object((**row).clone()).to_string()).collect()
    };
    let named = |names: &[&str]| names.iter().map(|name| json!({"name": name}).to_string()).collect();
    assert_eq!(names(&client.read()), named(&["a", "c"]));
    // A row that no longer meets them goes.
    let rename =
        json!({"op": "update", "table": TABLE, "where": [["name", "==", "a"]], "row": {"name": "x"}});
    server.foreign(&[rename]);
    replica(&client, &mut events, "its end", |rows| names(rows) == named(&["c"])).await;
}

/// The server evaluates every function as this crate writes it.
#[tokio::test]
async fn conditions_of_all_functions_are_understood() {
    let server = Server::start().await;
    let insert = |number: i64| json!({"op": "insert", "table": "NB_Global", "row": {"nb_cfg": number}});
    server.foreign(&[insert(2)]);
    for (function, number, expected) in [
        (Function::Equal, 2_i64, 1),
        (Function::NotEqual, 2, 0),
        (Function::Less, 3, 1),
        (Function::LessOrEqual, 2, 1),
        (Function::Greater, 2, 0),
        (Function::GreaterOrEqual, 2, 1),
        (Function::Includes, 2, 1),
        (Function::Excludes, 2, 0),
    ] {
        let table = MonitoredTable::new("NB_Global").or_where(Condition::new("nb_cfg", function, number));
        let (client, _events) = connect(config(server.unix()), UntypedReplica::of(vec![table])).await;
        assert_eq!(client.read().rows("NB_Global").len(), expected, "{function:?} {number}");
    }
}

#[tokio::test]
async fn a_table_that_is_required_and_missing_is_named() {
    let server = Server::start().await;
    let missing = || MonitoredTable::new("No_Such_Table");
    let replica = UntypedReplica::of(vec![missing().optional(), MonitoredTable::new(TABLE)]);
    connect(config(server.unix()), replica).await;
    let (client, _events) =
        ovsdb::client::Client::start(config(server.unix()), UntypedReplica::of(vec![missing()]));
    status(&client, "the reason", |status| status.to_string().contains("has no table No_Such_Table")).await;
}
