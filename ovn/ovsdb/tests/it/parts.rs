//! Content and changes that are longer than a message may be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ovsdb::client::{Client, Config};
use ovsdb::operation::{Columns, Operation};
use ovsdb::untyped::UntypedReplica;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::cluster::{Counting, Link};
use crate::rows::{TABLE, untyped};
use fiberlb_ovn_testing::{Cluster, Server, columns, config, connect, reloaded, replica, row, status};

/// Longest message in these tests, in bytes. The schema fits in.
const MAX_MESSAGE: usize = 64 << 10;

fn bounded(config: Config) -> Config {
    Config { max_message_bytes: MAX_MESSAGE, ..config }
}

/// An insert of a row of about so many bytes.
fn insert(number: u128, bytes: usize) -> Value {
    let row = json!({"name": format!("lb-{number}"), "vips": ["map", [["10.0.0.9:80", "x".repeat(bytes)]]]});
    json!({"op": "insert", "table": TABLE, "uuid": Uuid::from_u128(number), "row": row})
}

/// Sets the name of rows.
fn rename(rows: &Value, name: &str) -> Value {
    json!({"op": "update", "table": TABLE, "where": rows, "row": {"name": name}})
}

/// Fills a database in transactions of 50 operations.
fn fill(server: &Server, operations: impl IntoIterator<Item = Value>) {
    let operations: Vec<Value> = operations.into_iter().collect();
    operations.chunks(50).for_each(|some| drop(server.foreign(some)));
}

/// Rows of a replica's table.
fn held(replica: &UntypedReplica, table: &str) -> BTreeMap<Uuid, Arc<Columns>> {
    replica.rows(table).map(|(uuid, row)| (uuid, Arc::clone(row))).collect()
}

/// Replica of a client with the default limit.
async fn truth(server: &Server) -> UntypedReplica {
    let (client, _events) = connect(config(server.unix()), UntypedReplica::all_tables()).await;
    client.read().clone()
}

fn named(rows: &UntypedReplica, name: &str) -> usize {
    rows.rows(TABLE).filter(|(_, row)| row["name"] == name).count()
}

#[tokio::test]
async fn content_longer_than_a_message_comes_in_parts() {
    let mut server = Server::start().await;
    let switches = (0..400).map(
        |number| json!({"op": "insert", "table": "Logical_Switch", "row": {"name": format!("sw-{number}")}}),
    );
    fill(&server, (1..=300).map(|number| insert(number, 1000)).chain(switches));
    let (client, mut events) = connect(bounded(config(server.unix())), UntypedReplica::all_tables()).await;
    assert!((8_000..MAX_MESSAGE).contains(&client.longest_message()), "{}", client.longest_message());
    let truth = truth(&server).await;
    for (table, rows) in [(TABLE, 300), ("Logical_Switch", 400), ("NB_Global", 0)] {
        assert_eq!(held(&client.read(), table).len(), rows, "{table}");
        assert!(held(&client.read(), table) == held(&truth, table), "{table}");
    }
    // Changes come as ever, and after a restart only differences are told.
    client
        .transact(vec![Operation::insert(TABLE, Uuid::from_u128(301), columns(json!({"name": "new"})))])
        .await
        .unwrap();
    assert_eq!(named(&client.read(), "new"), 1);
    server.kill();
    status(&client, "the end of the connection", |status| !status.is_live()).await;
    server.offline(&[json!({"op": "delete", "table": TABLE, "where": row(Uuid::from_u128(7))})]);
    server.start_again().await;
    let changes: Vec<u128> = reloaded(&mut events).await.iter().map(|change| change.uuid.as_u128()).collect();
    assert_eq!(changes, [7]);
}

/// A reader never holds half a content, nor a change twice, nor half of a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_it_is_read_is_not_missed() {
    const PAIRS: u128 = 150;
    let server = Server::start().await;
    fill(&server, (0..2 * PAIRS).map(|number| insert(number + 1, 500)));
    let (writer, _events) = connect(config(server.unix()), untyped()).await;
    // Each transaction writes both rows of a pair, inserts them or deletes them.
    let writing = tokio::spawn(async move {
        for turn in 0_u128.. {
            let pair = turn * 7 % PAIRS;
            let both = [2 * pair + 1, 2 * pair + 2].map(Uuid::from_u128);
            let vips =
                json!({"name": format!("turn-{turn}"), "vips": ["map", [["10.0.0.9:80", turn.to_string()]]]});
            let is_there = writer.read().get(TABLE, both[0]).is_some();
            let operations = both.map(|uuid| match (is_there, turn % 3) {
                (false, _) => Operation::insert(TABLE, uuid, columns(vips.clone())),
                (true, 0) => Operation::delete(TABLE, uuid),
                (true, _) => Operation::update(TABLE, uuid, columns(vips.clone())),
            });
            if writer.transact(operations.to_vec()).await.is_err() {
                return;
            }
        }
    });
    let mut readers = Vec::new();
    for _ in 0..10 {
        let (reader, events) = connect(bounded(config(server.unix())), untyped()).await;
        let first = held(&reader.read(), TABLE);
        for pair in 0..PAIRS {
            let [one, other] = [2 * pair + 1, 2 * pair + 2].map(|number| first.get(&Uuid::from_u128(number)));
            let name = |row: Option<&Arc<Columns>>| row.map(|row| row["name"].clone());
            let is_old = name(one).is_some_and(|name| name == format!("lb-{}", 2 * pair + 1));
            assert!(is_old || name(one) == name(other), "half a transaction: {one:?}, {other:?}");
        }
        readers.push((reader, events));
    }
    writing.abort();
    let _ = writing.await;
    // A last change that all of them see.
    server.foreign(&[insert(9999, 1)]);
    let truth = held(&truth(&server).await, TABLE);
    for (reader, mut events) in readers {
        replica(&reader, &mut events, "the end", |rows| rows.get(TABLE, Uuid::from_u128(9999)).is_some())
            .await;
        assert!(held(&reader.read(), TABLE) == truth, "a change was missed");
    }
}

/// Rows whose length nobody could foresee: fewer are requested, until they fit.
#[tokio::test]
async fn rows_that_are_too_long_together_come_one_by_one() {
    let server = Server::start().await;
    (1..=20).for_each(|number| fill(&server, [insert(number, MAX_MESSAGE * 3 / 4)]));
    let (client, _events) = connect(bounded(config(server.unix())), untyped()).await;
    let truth = truth(&server).await;
    assert!(held(&client.read(), TABLE) == held(&truth, TABLE));
}

#[tokio::test]
async fn a_row_longer_than_a_message_is_named_with_what_to_do() {
    let server = Server::start().await;
    fill(&server, [insert(1, MAX_MESSAGE + 1)]);
    let (client, mut events) = Client::start(bounded(config(server.unix())), untyped());
    let words = "a row of Load_Balancer is too long: the server sent a message of more than 65536 bytes: raise max_message_bytes, \
                 or remove the row";
    status(&client, words, |status| status.to_string().contains(words)).await;
    assert!(client.longest_message() > MAX_MESSAGE);
    server.foreign(&[json!({"op": "delete", "table": TABLE, "where": row(Uuid::from_u128(1))})]);
    reloaded(&mut events).await;
    assert_eq!(client.read().rows(TABLE).len(), 0);
}

#[tokio::test]
async fn more_rows_than_a_message_can_list_are_named_with_what_to_do() {
    let server = Server::start().await;
    fill(&server, (1..=1500).map(|number| insert(number, 0)));
    let (client, _events) = Client::start(bounded(config(server.unix())), untyped());
    let words = "the UUIDs of the rows of Load_Balancer alone are too long";
    status(&client, words, |status| status.to_string().contains(words)).await;
}

/// A change that is too long costs the connection; the next one reads the content in parts.
#[tokio::test]
async fn a_change_longer_than_a_message_is_read_in_parts() {
    let server = Server::start().await;
    fill(&server, (1..=100).map(|number| insert(number, 1000)));
    let (client, mut events) = connect(bounded(config(server.unix())), untyped()).await;
    server.foreign(&[rename(&json!([]), &"n".repeat(1000))]);
    reloaded(&mut events).await;
    assert_eq!(named(&client.read(), &"n".repeat(1000)), 100);
    client.transact(vec![Operation::delete(TABLE, Uuid::from_u128(1))]).await.unwrap();
}

/// A cluster knows what a client missed: it comes as one message where that is possible; and as the whole content, in parts, where
/// it is not, or where the cluster has dropped it.
#[tokio::test]
async fn what_was_missed_comes_in_one_message_or_in_parts() {
    const ROWS: usize = 300;
    let mut cluster = Cluster::start(1).await;
    let rows: Vec<Value> = (1..).take(ROWS).map(|number| insert(number, 1000)).collect();
    for some in rows.chunks(50) {
        cluster.foreign(some).await;
    }
    let link = Link::to(&cluster.endpoint(0));
    let counting = Counting::default();
    let reloads = Arc::clone(&counting.reloads);
    let (client, mut events) =
        connect(Config { endpoints: vec![link.endpoint()], ..bounded(cluster.config()) }, counting).await;
    let long = "n".repeat(1000);
    // Of 80 rows, this is longer than a message. (A cluster remembers fewer values than it has: not of all rows.)
    for (changed, name, compacts, reads) in
        [(1, "short", false, 1), (80, long.as_str(), false, 2), (1, "again", true, 3)]
    {
        link.cut();
        cluster.kill(0);
        cluster.start_again(0).await;
        let renames = (1..=changed).map(|number| rename(&row(Uuid::from_u128(number)), name));
        cluster.foreign(&renames.collect::<Vec<_>>()).await;
        if compacts {
            cluster.compact(0).await;
            cluster.kill(0);
            cluster.start_again(0).await;
        }
        link.mend();
        reloaded(&mut events).await;
        assert_eq!(client.read().rows.rows(TABLE).len(), ROWS);
        assert_eq!(named(&client.read().rows, name) as u128, changed);
        assert_eq!(reloads.load(Ordering::Relaxed), reads, "{name}");
    }
}

/// More than one message may hold by default, in rows as long as the largest of load balancers and as short as ports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "large: see make test-hostile"]
async fn hostile_content_longer_than_the_default_limit() {
    let server = Server::start().await;
    let (writer, _events) = connect(config(server.unix()), UntypedReplica::of(Vec::new())).await;
    let insert = |table: &'static str, number: u128, row: Value| {
        Operation::insert(table, spread(number), columns(row))
    };
    let backends = "x".repeat(25_000);
    let vips: Vec<_> = (0..80).map(|port| json!([format!("10.0.0.9:{port}"), backends])).collect();
    for number in 0..80 {
        writer
            .transact(vec![insert(TABLE, number, json!({"name": "a", "vips": ["map", vips]}))])
            .await
            .unwrap();
    }
    let ports = |some: u128| {
        let of_switch = (some * 1000..(some + 1) * 1000).map(|number| json!(["uuid", spread(number)]));
        let ports: Vec<Value> = of_switch.collect();
        insert("Logical_Switch", 100_000 + some, json!({"name": "sw", "ports": ["set", ports]}))
    };
    for some in 0..20 {
        let address = |number: u128| json!({"name": format!("port-{number}"), "addresses": format!("0a:00:00:00:00:01 10.0.0.{}", number % 250)});
        let rows = (some * 1000..(some + 1) * 1000)
            .map(|number| insert("Logical_Switch_Port", number, address(number)));
        writer.transact(rows.chain([ports(some)]).collect()).await.unwrap();
    }
    let (client, mut events) = Client::start(config(server.unix()), UntypedReplica::all_tables());
    timeout(Duration::from_secs(50), events.recv()).await.expect("no content");
    assert_eq!(client.read().rows(TABLE).len(), 80);
    assert_eq!(client.read().rows("Logical_Switch_Port").len(), 20_000);
    assert_eq!(client.read().get(TABLE, spread(79)).unwrap()["vips"][1].as_array().unwrap().len(), 80);
    client.transact(vec![Operation::delete(TABLE, spread(1))]).await.unwrap();
    assert_eq!(client.read().rows(TABLE).len(), 79);
}

/// UUID whose first bits differ: they alone are the server's hash.
fn spread(number: u128) -> Uuid {
    Uuid::from_u128((number + 1) << 96)
}
