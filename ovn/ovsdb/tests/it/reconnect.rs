//! Servers that go away: what the client knows then, and how it comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use ovsdb::client::{Client, Config, ConnectionStatus, Event};
use ovsdb::error::TransactError;
use ovsdb::operation::Operation;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::rows::{TABLE, untyped};
use fiberlb_ovn_testing::{LONG, Server, config, connect, owned, reloaded, replica, row, status};

fn insert(number: u128) -> Vec<Operation> {
    vec![Operation::insert(TABLE, Uuid::from_u128(number), owned("a", &format!("owner-{number}")))]
}

#[tokio::test]
async fn after_a_restart_only_what_differs_is_told() {
    let mut server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    for number in 1..=4 {
        client.transact(insert(number)).await.unwrap();
    }
    server.kill();
    status(&client, "the end of the connection", |status| !status.is_live()).await;
    assert_eq!(client.read().rows(TABLE).len(), 4, "readers keep what was known");
    server.offline(&[
        json!({"op": "delete", "table": TABLE, "where": row(Uuid::from_u128(2))}),
        json!({"op": "update", "table": TABLE, "where": row(Uuid::from_u128(3)), "row": {"name": "renamed"}}),
        json!({"op": "insert", "table": TABLE, "uuid": Uuid::from_u128(5), "row": owned("new", "owner-5")}),
    ]);
    server.start_again().await;
    let changes = reloaded(&mut events).await;
    let changed: BTreeSet<u128> = changes.iter().map(|change| change.uuid.as_u128()).collect();
    assert_eq!((changed, changes.len()), ([2, 3, 5].into(), 3));
    assert_eq!(client.read().rows(TABLE).len(), 4);
    client.transact(insert(6)).await.unwrap();
}

#[tokio::test]
async fn without_a_server_nothing_is_sent_and_the_reason_is_told() {
    let mut server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    server.kill();
    status(&client, "a refused connection", |status| status.to_string().contains("refused")).await;
    assert!(matches!(client.transact(insert(1)).await, Err(TransactError::NotConnected { .. })));
    let disconnected = timeout(LONG, events.recv()).await.unwrap();
    assert!(matches!(disconnected, Some(Event::Disconnected)), "{disconnected:?}");
    server.start_again().await;
    reloaded(&mut events).await;
    assert!(client.read().rows(TABLE).len() == 0);
}

/// Acknowledged transactions are durable, refused and unsent ones are absent; only unknown ones may be either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_leaves_no_doubt_but_the_unknown() {
    let mut server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    let mut running = JoinSet::new();
    for number in 1..=400 {
        let client = client.clone();
        running.spawn(async move { (number, client.transact(insert(number)).await) });
    }
    let mut outcomes = vec![running.join_next().await.unwrap().unwrap()];
    server.kill();
    while let Some(outcome) = running.join_next().await {
        outcomes.push(outcome.unwrap());
    }
    server.start_again().await;
    reloaded(&mut events).await;
    let replica = client.read();
    for (number, outcome) in outcomes {
        let there = replica.get(TABLE, Uuid::from_u128(number)).is_some();
        match outcome {
            Ok(_) => assert!(there, "{number} was acknowledged and is lost"),
            Err(TransactError::NotConnected { .. }) => assert!(!there, "{number} was not sent and is there"),
            Err(TransactError::Unknown { .. }) => {}
            Err(refused @ TransactError::Refused { .. }) => panic!("{number}: {refused}"),
        }
    }
}

#[tokio::test]
async fn a_stopped_server_makes_the_outcome_unknown_and_unknown_may_mean_done() {
    let server = Server::start().await;
    let timeout = Duration::from_millis(200);
    let config = Config { transact_timeout: timeout, ..config(server.unix()) };
    let (client, mut events) = connect(config, untyped()).await;
    server.signal("STOP");
    match client.transact(insert(1)).await {
        Err(TransactError::Unknown { reason }) => assert!(reason.contains("200ms"), "{reason}"),
        other => panic!("{other:?}"),
    }
    server.signal("CONT");
    replica(&client, &mut events, "the transaction that nobody knew of", |rows| rows.rows(TABLE).len() == 1)
        .await;
    client.transact(insert(2)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_stays_silent_is_given_up_with_what_is_in_flight() {
    let server = Server::start().await;
    let probe = Duration::from_millis(200);
    let config = Config { probe_interval: probe, ..config(server.unix()) };
    let (client, mut events) = connect(config, untyped()).await;
    server.signal("STOP");
    let outcome = client.transact(insert(1)).await;
    assert!(matches!(outcome, Err(TransactError::Unknown { .. })), "{outcome:?}");
    status(&client, "its silence", |status| status.to_string().contains("not answered")).await;
    server.signal("CONT");
    reloaded(&mut events).await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_by_echoes() {
    let server = Server::start().await;
    let probe = Duration::from_millis(500);
    let config = Config { probe_interval: probe, ..config(server.unix()) };
    let (client, mut events) = connect(config, untyped()).await;
    // Without an answer to the first echo it would end after two of these.
    let ended = timeout(probe * 3, events.recv()).await;
    assert!(ended.is_err(), "the connection ended: {ended:?}");
    assert!(client.is_live());
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let server = Server::start().await;
    let nobody = "unix:/nonexistent/nb.sock".parse().unwrap();
    let endpoints = vec![nobody, server.unix()];
    let config = Config { endpoints, ..config(server.unix()) };
    let (client, _events) = connect(config, untyped()).await;
    match &*client.status().borrow() {
        ConnectionStatus::Live { endpoint, schema } => {
            assert_eq!(endpoint, &server.unix());
            assert!(schema.has_table(TABLE));
        }
        disconnected @ ConnectionStatus::Disconnected { .. } => panic!("{disconnected}"),
    };
}

#[tokio::test]
async fn the_last_client_takes_the_connection_with_it() {
    let server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    let clone = client.clone();
    drop(client);
    clone.transact(insert(1)).await.unwrap();
    drop(clone);
    let ends = async { while events.recv().await.is_some() {} };
    timeout(LONG, ends).await.expect("the task lives on");
}

#[tokio::test]
async fn a_server_of_another_database_says_what_it_has() {
    let server = Server::start().await;
    let config = Config { database: "OVN_Southbound".to_owned(), ..config(server.unix()) };
    let (client, _events) = Client::start(config, untyped());
    let words = "the server has no database OVN_Southbound; it has OVN_Northbound";
    status(&client, words, |status| status.to_string().contains(words)).await;
}

/// An upgrade of OVN while its server runs: the content comes again, as the new schema has it.
#[tokio::test]
async fn a_database_that_is_converted_is_read_anew() {
    let server = Server::start().await;
    let (client, mut events) = connect(config(server.unix()), untyped()).await;
    client.transact(insert(1)).await.unwrap();
    server.convert("99.0.0");
    reloaded(&mut events).await;
    status(&client, "the new schema", |status| status.to_string().contains("99.0.0")).await;
    assert_eq!(client.read().rows(TABLE).len(), 1);
}
