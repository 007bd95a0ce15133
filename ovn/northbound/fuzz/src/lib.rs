//! What the fuzz targets do with bytes. The tests drive the same functions with random ones.

use std::time::{Duration, Instant};

use fiberlb_northbound::Northbound;
use ovsdb::framing::Splitter;
use ovsdb::operation::Operation;
use ovsdb::replica::Replica;
use ovsdb::server::Seen;
use ovsdb::session::{Content, Output, Session, SessionConfig};
use serde_json::{Value, json};
use uuid::Uuid;

/// Largest message that a peer may send here.
const LARGEST: usize = 4096;

/// Splits a stream into messages, cut at places that its first byte chooses. What comes out is what went in.
pub fn framing(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let mut splitter = Splitter::new(LARGEST);
    let mut messages = Vec::new();
    for chunk in stream.chunks(usize::from(*size).max(1)) {
        splitter.buffer().extend_from_slice(chunk);
        loop {
            match splitter.split() {
                Ok(Some(message)) => messages.extend_from_slice(&message),
                Ok(None) => break,
                Err(_) => return check(stream, &messages),
            }
        }
    }
    check(stream, &messages);
}

/// Messages are what the stream begins with, white space between them aside.
fn check(stream: &[u8], messages: &[u8]) {
    let mut rest = stream.iter();
    for byte in messages {
        let found = rest.find(|other| *other == byte || !other.is_ascii_whitespace());
        assert_eq!(found, Some(byte), "a message holds bytes that were not sent");
    }
}

/// Hands bytes to a live session with transactions in flight, and what it says to a replica.
pub fn session(bytes: &[u8]) {
    let now = Instant::now();
    let mut nb = Northbound::new("owner");
    let mut session = live(&mut nb, now);
    for chunk in bytes.chunks(512) {
        session.buffer().extend_from_slice(chunk);
        let mut outputs = Vec::new();
        let received = session.received(now, &mut outputs);
        if outputs.into_iter().try_for_each(|output| take(&mut nb, output)).is_none() || received.is_err() {
            return;
        }
        session.taken();
        session.take_output();
    }
}

/// Hands one update to a replica that holds rows, if the bytes are JSON.
pub fn update(bytes: &[u8]) {
    let Ok(updates) = serde_json::from_slice::<Value>(bytes) else { return };
    let message = json!({"id": null, "method": "update3", "params": ["fiberlb", Uuid::nil(), updates]});
    session(message.to_string().as_bytes());
}

/// `None` where a client would give the connection up.
fn take(nb: &mut Northbound, output: Output) -> Option<()> {
    match output {
        Output::Live(_, Content::Whole(rows)) => nb.reload(rows).ok().map(|_| ()),
        Output::Live(_, Content::Since(rows)) => nb.apply(rows).ok().map(|_| ()),
        Output::Updates(updates) => nb.apply(updates).ok().map(|_| ()),
        Output::Reply(..) => Some(()),
    }
}

fn live(nb: &mut Northbound, now: Instant) -> Session {
    let config = SessionConfig {
        database: "OVN_Northbound".to_owned(),
        monitored: Northbound::monitored(),
        probe_interval: Duration::from_secs(5),
        max_message: LARGEST,
        leader_only: true,
    };
    let mut session = Session::new(config, Seen::default(), now);
    let content = json!([false, Uuid::nil(), content()]);
    for (id, result) in [("server", server()), ("schema", schema()), ("monitor", content)] {
        let message = json!({"id": id, "error": null, "result": result}).to_string();
        session.buffer().extend_from_slice(message.as_bytes());
        let mut outputs = Vec::new();
        let _ = session.received(now, &mut outputs);
        outputs.into_iter().try_for_each(|output| take(nb, output));
    }
    assert!(
        session.transact(&[Operation::delete("Load_Balancer", Uuid::nil())], now).is_some(),
        "the session is not live"
    );
    session
}

/// The leader of a cluster.
fn server() -> Value {
    let row = json!({"name": "OVN_Northbound", "model": "clustered", "connected": true, "leader": true, "index": 5,
        "cid": ["uuid", Uuid::from_u128(9)]});
    json!({"Database": {Uuid::nil().to_string(): {"initial": row}}})
}

fn schema() -> Value {
    let columns = |table: &[&str]| {
        Value::Object(table.iter().map(|column| ((*column).to_owned(), json!({}))).collect())
    };
    let tables = Northbound::monitored();
    let tables =
        tables.iter().map(|table| (table.name.to_owned(), json!({"columns": columns(table.columns)})));
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
        "Logical_Switch": row(3, json!({"name": "s", "ports": reference(4), "load_balancer_group": reference(2)})),
        "Logical_Switch_Port": row(4, json!({"name": "p", "type": "router", "addresses": "router 10.0.0.1",
            "options": ["map", [["router-port", "rp"]]], "external_ids": owned})),
        "Logical_Router": row(5, json!({"name": "r", "ports": reference(6), "load_balancer_group": reference(2)})),
        "Logical_Router_Port": row(6, json!({"name": "rp", "networks": "10.0.0.1/24", "external_ids": owned})),
    })
}
