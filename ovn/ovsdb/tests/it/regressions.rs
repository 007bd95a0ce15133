//! Defects that were found and mended. Each test says what must hold.

use std::time::{Duration, Instant};

use fiberlb_northbound::{Change, Northbound};
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
use ovsdb::server::Seen;
use ovsdb::session::{Session, SessionConfig};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::hostile::{Peer, world};
use fiberlb_ovn_testing::{OWNER_KEY, status};

fn update(table: &str, uuid: u128, kind: &str, row: Value) -> RowUpdate {
    let Value::Object(columns) = row else { panic!("a row is an object") };
    let change = match kind {
        "insert" => RowChange::Insert(columns),
        "modify" => RowChange::Modify(columns),
        _ => RowChange::Delete,
    };
    RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(uuid), change }
}

/// `lrp-del x -- lrp-add x` is one transaction; the new row's UUID, and so its place in the update, may be the lower one.
#[test]
fn a_router_port_replaced_under_its_name_is_found() {
    let mut nb = Northbound::new(OWNER_KEY);
    nb.apply(vec![update("Logical_Router_Port", 9, "insert", json!({"name": "x"}))]).unwrap();
    nb.apply(vec![
        update("Logical_Router_Port", 1, "insert", json!({"name": "x"})),
        update("Logical_Router_Port", 9, "delete", json!({})),
    ])
    .unwrap();
    assert_eq!(nb.router_port_named("x"), Some(Uuid::from_u128(1)));
}

/// Whoever shares a router with the switch must hear of it: their groups belong on the new switch.
#[test]
fn a_switch_plugged_into_a_router_tells_of_the_router() {
    let mut nb = Northbound::new(OWNER_KEY);
    nb.apply(vec![
        update("Logical_Router_Port", 1, "insert", json!({"name": "rp"})),
        update("Logical_Router", 2, "insert", json!({"ports": ["uuid", Uuid::from_u128(1)]})),
        update("Logical_Switch", 3, "insert", json!({"name": "s"})),
    ])
    .unwrap();
    let link = json!({"name": "p", "type": "router", "options": ["map", [["router-port", "rp"]]]});
    let changes = nb
        .apply(vec![
            update("Logical_Switch", 3, "modify", json!({"ports": ["uuid", Uuid::from_u128(4)]})),
            update("Logical_Switch_Port", 4, "insert", link),
        ])
        .unwrap();
    assert!(changes.contains(&Change::Router { uuid: Uuid::from_u128(2) }), "{changes:?}");
}

/// The replica and the database are out of step then, and only a reload puts that right.
#[test]
fn a_change_of_a_row_that_is_not_there_is_an_error() {
    let mut nb = Northbound::new(OWNER_KEY);
    assert!(nb.apply(vec![update("Load_Balancer", 1, "modify", json!({"name": "x"}))]).is_err());
}

/// The process may have been stopped, or busy with a large reload: the server has not been asked yet.
#[test]
fn a_late_look_at_the_clock_does_not_give_a_server_up() {
    let start = Instant::now();
    let probe_interval = Duration::from_secs(5);
    let config = SessionConfig {
        database: "DB".to_owned(),
        monitored: Vec::new(),
        probe_interval,
        max_message: 1000,
        leader_only: true,
    };
    let mut session = Session::new(config, Seen::default(), start);
    let late = start + probe_interval * 3;
    session.tick(late).unwrap();
    assert!(session.tick(late).is_ok(), "given up in the moment of the question");
}

/// It listens, it lives, and it is of no use.
#[tokio::test]
async fn a_server_that_only_echoes_is_given_up() {
    let (listener, client) = world(|config| config.probe_interval = Duration::from_millis(50)).await;
    let mut peer = Peer::accept(&listener).await;
    let echoes = async {
        while let Some(request) = peer.next().await {
            if request["method"] == "echo" {
                peer.say(json!({"id": request["id"], "result": [], "error": null}).to_string()).await;
            }
        }
    };
    timeout(Duration::from_secs(15), echoes).await.expect("the client still waits");
    status(&client, "the reason", |status| status.to_string().contains("monitor_cond")).await;
}
