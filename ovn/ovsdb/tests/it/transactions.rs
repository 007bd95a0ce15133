//! Transactions on a real ovsdb-server.

use ovsdb::client::Client;
use ovsdb::collections::{Map, Set};
use ovsdb::endpoint::Endpoint;
use ovsdb::error::{DatabaseError, TransactError};
use ovsdb::operation::{Columns, Condition, Function, Mutation, Operation};
use ovsdb::replica::MonitoredTable;
use ovsdb::untyped::UntypedReplica;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::rows::{Row, TABLE, Typed, owned_by, untyped};
use fiberlb_ovn_testing::{Server, columns, config, connect, owned, replica, row};

fn name(client: &Client<UntypedReplica>, uuid: Uuid) -> Option<String> {
    client.read().get(TABLE, uuid).map(|row| row["name"].as_str().unwrap().to_owned())
}

/// The life of a row; after each reply the replica shows it, without waiting.
async fn life_of_a_row(endpoint: Endpoint) {
    let (client, _events) = connect(config(endpoint), Typed::default()).await;
    let uuid = Uuid::from_u128(7);
    let transact = async |operation| client.transact(vec![operation]).await.unwrap()[0].count;

    let wanted = Row {
        name: "web".to_owned(),
        vips: [("[fd00::9]:80".to_owned(), "[fd00::1]:80".to_owned())].into(),
        transport: Some("tcp".to_owned()),
        selection_fields: ["ip_src".to_owned(), "ip_dst".to_owned()].into(),
    };
    assert_eq!(transact(Operation::insert(TABLE, uuid, wanted.to_row())).await, None);
    assert_eq!(client.read().rows.get(&uuid), Some(&wanted));

    let other = Row {
        vips: [("10.0.0.9:80".to_owned(), String::new())].into(),
        transport: None,
        selection_fields: ["ip_src".to_owned()].into(),
        ..wanted.clone()
    };
    assert_eq!(transact(Operation::update(TABLE, uuid, wanted.changed_columns(&other))).await, Some(1));
    assert_eq!(client.read().rows.get(&uuid), Some(&other));

    let more = Mutation::insert("vips", Map::from([("10.0.0.9:81".to_owned(), "10.0.0.1:81".to_owned())]));
    let less = Mutation::delete("vips", Set::from(["10.0.0.9:80".to_owned()]));
    assert_eq!(transact(Operation::mutate(TABLE, uuid, vec![more, less])).await, Some(1));
    let vips = client.read().rows.get(&uuid).unwrap().vips.clone();
    assert_eq!(vips, [("10.0.0.9:81".to_owned(), "10.0.0.1:81".to_owned())].into());

    assert_eq!(transact(Operation::delete(TABLE, uuid)).await, Some(1));
    assert!(client.read().rows.is_empty());
    assert_eq!(transact(Operation::delete(TABLE, uuid)).await, Some(0));
    assert_eq!(transact(Operation::update(TABLE, uuid, other.to_row())).await, Some(0));
}

#[tokio::test]
async fn the_replica_shows_a_transaction_when_its_reply_comes_over_a_unix_socket() {
    life_of_a_row(Server::start().await.unix()).await;
}

#[tokio::test]
async fn the_replica_shows_a_transaction_when_its_reply_comes_over_tcp() {
    let server = Server::start().await;
    life_of_a_row(server.tcp()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_transactions_at_once_each_get_their_own_reply() {
    let server = Server::start().await;
    let (client, _events) = connect(config(server.unix()), untyped()).await;
    let mut running = JoinSet::new();
    for number in 0..1000_u128 {
        let client = client.clone();
        running.spawn(async move {
            let uuid = Uuid::from_u128(number / 2 + 1);
            let insert = Operation::insert(TABLE, uuid, owned(&number.to_string(), "o"));
            let outcome = client.transact(vec![insert]).await;
            // Each UUID is requested twice: one of the two is refused, and the row is the other's.
            match outcome {
                Ok(_) => assert_eq!(name(&client, uuid), Some(number.to_string())),
                Err(error) => {
                    assert!(matches!(error, TransactError::Refused { operation: Some(0), .. }), "{error}");
                }
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(client.read().rows(TABLE).len(), 500);
    assert_eq!(server.rows(TABLE, &json!([])).len(), 500);
}

#[tokio::test]
async fn a_repeated_uuid_is_refused_with_all_that_stands_beside_it() {
    let server = Server::start().await;
    let (client, _events) = connect(config(server.unix()), untyped()).await;
    let insert = |number| Operation::insert(TABLE, Uuid::from_u128(number), owned("a", "o"));
    client.transact(vec![insert(1)]).await.unwrap();
    match client.transact(vec![insert(2), insert(1)]).await.unwrap_err() {
        TransactError::Refused { operation, error, .. } => {
            assert_eq!((operation, error), (Some(1), DatabaseError::DuplicateUuid));
        }
        other => panic!("{other}"),
    }
    assert_eq!(client.read().rows(TABLE).len(), 1);
}

#[tokio::test]
async fn what_is_refused_at_commit_is_no_operations_fault() {
    let server = Server::start().await;
    let (client, _events) = connect(config(server.unix()), untyped()).await;
    let nowhere = json!({"name": "s", "load_balancer_group": ["uuid", Uuid::from_u128(99)]});
    let insert = Operation::insert("Logical_Switch", Uuid::from_u128(1), columns(nowhere));
    match client.transact(vec![insert]).await.unwrap_err() {
        TransactError::Refused { operation, error, details } => {
            assert_eq!((operation, error), (None, DatabaseError::ReferentialIntegrityViolation));
            assert!(details.unwrap().contains("Load_Balancer_Group"));
        }
        other => panic!("{other}"),
    }
    let twice = |number| {
        Operation::insert("Load_Balancer_Group", Uuid::from_u128(number), columns(json!({"name": "g"})))
    };
    match client.transact(vec![twice(1), twice(2)]).await.unwrap_err() {
        TransactError::Refused { operation, error, .. } => {
            assert_eq!((operation, error), (None, DatabaseError::ConstraintViolation));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_malformed_operation_is_refused_and_harms_no_other() {
    let server = Server::start().await;
    let (client, _events) = connect(config(server.unix()), untyped()).await;
    let bad = Operation::insert("No_Such_Table", Uuid::from_u128(1), Columns::new());
    let good = Operation::insert(TABLE, Uuid::from_u128(2), owned("a", "o"));
    let (bad, good) = tokio::join!(client.transact(vec![bad]), client.transact(vec![good]));
    assert!(matches!(bad, Err(TransactError::Refused { operation: Some(0), .. })), "{bad:?}");
    good.unwrap();
    assert!(client.is_live());
}

#[tokio::test]
async fn a_dropped_call_harms_no_other() {
    let server = Server::start().await;
    let (client, _events) = connect(config(server.unix()), untyped()).await;
    for number in 1..=50 {
        let insert = |number| vec![Operation::insert(TABLE, Uuid::from_u128(number), owned("a", "o"))];
        // Polled once at most, then dropped, with or without its bytes on their way.
        let mut dropped = Box::pin(client.transact(insert(number)));
        std::future::poll_fn(|context| {
            let _ = dropped.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
        drop(dropped);
        client.transact(insert(1000 + number)).await.unwrap();
    }
    assert!(client.is_live());
}

#[tokio::test]
async fn changes_by_others_arrive() {
    let server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    let uuid = Uuid::from_u128(1);
    server.foreign(&[json!({"op": "insert", "table": TABLE, "uuid": uuid, "row": owned("theirs", "o")})]);
    replica(&client, &mut events, "the row of someone else", |it| owned_by(it, "o").len() == 1).await;
    server.foreign(&[json!({"op": "delete", "table": TABLE, "where": row(uuid)})]);
    replica(&client, &mut events, "its end", |it| owned_by(it, "o").is_empty()).await;
    assert_eq!(client.read().rows(TABLE).len(), 0);
}

#[tokio::test]
async fn numbers_are_added_and_conditions_guard() {
    let server = Server::start().await;
    let global = Uuid::from_u128(1);
    let tables = UntypedReplica::of(vec![MonitoredTable::new("NB_Global")]);
    let (client, _events) = connect(config(server.unix()), tables).await;
    client.transact(vec![Operation::insert("NB_Global", global, Columns::new())]).await.unwrap();
    let guarded = |expected: i64| {
        let condition = Condition::new("nb_cfg", Function::Equal, expected);
        let found = columns(json!({"_uuid": ["uuid", global]}));
        let add = Operation::mutate("NB_Global", global, vec![Mutation::add("nb_cfg", 1_i64)]);
        client.transact(vec![Operation::wait("NB_Global", vec![condition], vec!["_uuid"], vec![found]), add])
    };
    guarded(0).await.unwrap();
    guarded(1).await.unwrap();
    assert!(guarded(1).await.unwrap_err().is_fenced());
    assert_eq!(client.read().get("NB_Global", global).unwrap()["nb_cfg"], 2);
}
