//! Harnesses for fuzzers and property tests: they feed bytes, as a hostile server would, and must not panic.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::framing::Splitter;
use crate::operation::Operation;
use crate::replica::Replica;
use crate::server::ResumeState;
use crate::session::{Content, Output, Session, SessionConfig};

/// Longest message that a server may send here, in bytes.
const MAX_MESSAGE: usize = 8192;

/// Splits a byte stream into messages, in chunks whose size its first byte chooses.
///
/// # Panics
/// If the messages hold other bytes than the stream.
pub fn framing(bytes: &[u8]) {
    let Some((size, stream)) = bytes.split_first() else { return };
    let mut splitter = Splitter::new(MAX_MESSAGE);
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

/// Checks that the messages are the beginning of the stream, except for white space between them.
fn check(stream: &[u8], messages: &[u8]) {
    let mut rest = stream.iter();
    for byte in messages {
        let found = rest.find(|other| *other == byte || !other.is_ascii_whitespace());
        assert_eq!(found, Some(byte), "a message holds bytes that were not sent");
    }
}

/// Database for [`session`] and [`update`].
#[derive(Clone, Debug)]
pub struct Database {
    /// Schema, `<database-schema>`.
    pub schema: Value,
    /// Content, `<table-updates2>`, that a session begins with.
    pub content: Value,
}

/// Feeds bytes to a live session with a transaction in flight, and its outputs to a replica.
///
/// # Panics
/// If the database is not one that the replica can take.
pub fn session<R: Replica>(mut replica: R, database: &Database, bytes: &[u8]) {
    let now = Instant::now();
    let mut session = live(&mut replica, database, now);
    for chunk in bytes.chunks(512) {
        session.buffer().extend_from_slice(chunk);
        let mut outputs = Vec::new();
        let received = session.received(now, &mut outputs);
        if outputs.into_iter().try_for_each(|output| apply(&mut replica, output)).is_none()
            || received.is_err()
        {
            return;
        }
        session.acknowledge();
        session.take_output();
    }
}

/// Feeds one update, `<table-updates2>`, to a session, if the bytes are JSON.
///
/// # Panics
/// As [`session`].
pub fn update<R: Replica>(replica: R, database: &Database, bytes: &[u8]) {
    let Ok(updates) = serde_json::from_slice::<Value>(bytes) else { return };
    let message = json!({"id": null, "method": "update3", "params": ["content", Uuid::nil(), updates]});
    session(replica, database, message.to_string().as_bytes());
}

/// Applies an output as a client does; `None` where a client closes the connection.
fn apply<R: Replica>(replica: &mut R, output: Output) -> Option<()> {
    match output {
        Output::Live(schema, content) => {
            replica.set_schema(&schema);
            match content {
                Content::Snapshot(rows) => replica.reload(rows).ok().map(drop),
                Content::Delta(rows) => replica.apply(rows).ok().map(drop),
            }
        }
        Output::Updates(updates) => replica.apply(updates).ok().map(drop),
        Output::Reply(..) => Some(()),
    }
}

/// A live session with the leader of a cluster.
fn live<R: Replica>(replica: &mut R, database: &Database, now: Instant) -> Session {
    let config = SessionConfig {
        database: "DB".to_owned(),
        monitored: replica.monitored(),
        probe_interval: Duration::from_secs(5),
        max_message_bytes: MAX_MESSAGE,
        leader_only: true,
    };
    let mut session = Session::new(config, ResumeState::default(), now);
    let leader = json!({"name": "DB", "model": "clustered", "connected": true, "leader": true, "index": 5,
        "cid": ["uuid", Uuid::from_u128(9)]});
    let server = json!({"Database": {Uuid::nil().to_string(): {"initial": leader}}});
    let nothing = json!([false, Uuid::nil(), {}]);
    let mut answer = |session: &mut Session, id, result| {
        let message = json!({"id": id, "error": null, "result": result}).to_string();
        session.buffer().extend_from_slice(message.as_bytes());
        let mut outputs = Vec::new();
        let _ = session.received(now, &mut outputs);
        outputs.into_iter().try_for_each(|output| apply(replica, output));
    };
    for (id, result) in [("server", server), ("schema", database.schema.clone()), ("monitor", nothing)] {
        answer(&mut session, id, result);
    }
    // Each table is listed and read, by the same message.
    let tables = database.schema.get("tables").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    for _ in 0..2 * tables {
        if !session.is_live() {
            answer(&mut session, "part", database.content.clone());
        }
    }
    let delete = Operation::delete("T", Uuid::nil());
    assert!(session.transact(&[delete], now).is_some(), "the session is not live");
    session
}
