//! Servers that misbehave: each ends in a status that names the reason, and in a new attempt.

use std::time::{Duration, Instant};

use ovsdb::client::{Client, Config};
use ovsdb::endpoint::Endpoint;
use ovsdb::error::TransactError;
use ovsdb::operation::Operation;
use ovsdb::replica::Replica;
use ovsdb::untyped::UntypedReplica;
use serde_json::{Deserializer, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::rows::{TABLE, Typed, untyped};
use fiberlb_ovn_testing::{LONG, config, owned, release, status};

const ROW: &str = "00000000-0000-0000-0000-000000000001";

/// The server's end of a connection: a JSON-RPC peer that says what a test wants.
struct Peer {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    async fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    async fn accept(listener: &TcpListener) -> Self {
        Self { stream: listener.accept().await.unwrap().0, received: Vec::new() }
    }

    /// The next message of the client; `None` when it has closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let mut messages = Deserializer::from_slice(&self.received).into_iter::<Value>();
            if let Some(Ok(message)) = messages.next() {
                let used = messages.byte_offset();
                self.received.drain(..used);
                return Some(message);
            }
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Says something; the client may have gone.
    async fn say(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(text.as_ref()).await;
    }

    /// Answers the next request of this method. Asked what it is before, it is a server too old to tell.
    async fn answer(&mut self, method: &str, result: Value, error: Value) {
        while let Some(request) = self.next().await {
            let reply = |result, error| json!({"id": request["id"], "result": result, "error": error});
            if request["method"] == method {
                return self.say(reply(result, error).to_string()).await;
            }
            if request["method"] == "monitor_cond" {
                self.say(reply(Value::Null, json!({"error": "unknown database"})).to_string()).await;
            }
        }
    }

    /// Goes through the handshake of a sound server with one row.
    async fn handshake(&mut self) {
        self.answer("get_schema", schema(), Value::Null).await;
        self.answer("monitor_cond_since", json!([false, Uuid::nil(), {}]), Value::Null).await;
        let rows = json!({"Load_Balancer": {ROW: {"initial": {"name": "a"}}}});
        for _list_and_row in 0..2 {
            self.answer("monitor_cond", rows.clone(), Value::Null).await;
        }
    }

    /// Reads on to the end of a text; answers with the number of bytes.
    async fn read_until(&mut self, text: &str) -> usize {
        let (mut bytes, mut chunk) = (0, vec![0; 1 << 20]);
        let mut last = self.received.clone();
        while !last.windows(text.len()).any(|window| window == text.as_bytes()) {
            let read = self.stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "the client closed");
            bytes += read;
            let overlap = last.len().saturating_sub(text.len());
            last.drain(..overlap);
            last.extend_from_slice(&chunk[..read]);
        }
        bytes
    }

    /// Reads on until the client closes.
    async fn until_closed(mut self) {
        while self.next().await.is_some() {}
    }
}

/// A schema with the tables and columns that the replica wants.
fn schema() -> Value {
    let text = std::fs::read_to_string(release().northbound_schema()).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn endpoint(listener: &TcpListener) -> Endpoint {
    Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() }
}

/// Listens, and starts a client that connects there.
async fn world(change: impl FnOnce(&mut Config)) -> (TcpListener, Client<UntypedReplica>) {
    world_with(untyped(), change).await
}

async fn world_with<R: Replica>(replica: R, change: impl FnOnce(&mut Config)) -> (TcpListener, Client<R>) {
    let listener = Peer::listen().await;
    let mut config = config(endpoint(&listener));
    change(&mut config);
    let (client, _events) = Client::start(config, replica);
    (listener, client)
}

/// The status says `reason` after a first connection, and a second, sound one is used.
async fn misbehaves(reason: &str, behaviour: impl AsyncFnOnce(&mut Peer)) {
    misbehaves_to(untyped(), reason, behaviour).await;
}

async fn misbehaves_to<R: Replica>(replica: R, reason: &str, behaviour: impl AsyncFnOnce(&mut Peer)) {
    let (listener, client) = world_with(replica, |config| config.max_message_bytes = 1 << 20).await;
    let mut first = Peer::accept(&listener).await;
    behaviour(&mut first).await;
    status(&client, reason, |status| status.to_string().contains(reason)).await;
    drop(first);
    let mut second = Peer::accept(&listener).await;
    second.handshake().await;
    status(&client, "a live connection", |status| status.is_live()).await;
}

#[tokio::test]
async fn garbage_instead_of_messages() {
    misbehaves("not JSON-RPC", async |peer| peer.say("HTTP/1.1 400 Bad Request\r\n").await).await;
    misbehaves("malformed JSON", async |peer| peer.say("{\"a\": nonsense}").await).await;
    let many = format!("{{\"a\":[{}]}}", vec![r#"{"":0}"#; 100_000].join(","));
    misbehaves("so many parts", async |peer| peer.say(&many).await).await;
    misbehaves("nested deeper", async |peer| peer.say([b'{'; 1000]).await).await;
}

#[tokio::test]
async fn a_connection_that_ends_at_once_or_within_a_message() {
    let close = async |peer: &mut Peer| {
        let _ = peer.stream.shutdown().await;
    };
    misbehaves("closed the connection", close).await;
    misbehaves("closed the connection", async |peer| {
        peer.say("{\"id\": \"schema\", \"result\": {\"ver").await;
        close(peer).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_without_end() {
    misbehaves("more than 1048576 bytes", async |peer| {
        peer.say("{\"").await;
        for _ in 0..40 {
            peer.say(vec![b'x'; 1 << 15]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_database() {
    let schema = json!({"name": "X", "version": "1.0.0", "tables": {"T": {"columns": {}}}});
    misbehaves("has no table", async |peer| peer.answer("get_schema", schema, Value::Null).await).await;
    for malformed in
        [json!(5), json!({"version": "1", "tables": []}), json!({"version": "1", "tables": {"T": []}})]
    {
        misbehaves("schema has no", async |peer| peer.answer("get_schema", malformed, Value::Null).await)
            .await;
    }
    let error =
        json!({"error": "unknown database", "details": "get_schema request specifies unknown database"});
    misbehaves("unknown database", async |peer| peer.answer("get_schema", Value::Null, error).await).await;
}

#[tokio::test]
async fn a_server_that_says_nonsense_of_itself() {
    let database = |row: Value| json!({"Database": {ROW: {"initial": row}}});
    for (state, reason) in [
        (json!(null), "the server sent"),
        (json!([]), "the server sent"),
        (json!({"Database": {"no-uuid": {}}}), "the server sent"),
        (database(json!({"name": 5})), "column name"),
        (database(json!({"cid": ["uuid", "x"]})), "column cid"),
        (database(json!({"name": "Other"})), "has no database OVN_Northbound; it has Other"),
        (json!({}), "has no database OVN_Northbound"),
        (database(json!({"name": "OVN_Northbound", "model": "clustered"})), "no contact with the majority"),
    ] {
        misbehaves(reason, async |peer| peer.answer("monitor_cond", json!(state), Value::Null).await).await;
    }
    let error = json!({"error": "permission error"});
    misbehaves("permission error", async |peer| peer.answer("monitor_cond", Value::Null, error).await).await;
}

#[tokio::test]
async fn a_server_that_is_frozen_does_not_keep_us_from_the_next_one() {
    let (frozen, sound) = (Peer::listen().await, Peer::listen().await);
    let began = Instant::now();
    let endpoints = [&frozen, &sound].map(endpoint).to_vec();
    let config = Config { endpoints, ..config(endpoint(&frozen)) };
    let (client, _events) = Client::start(config, untyped());
    let _silent = Peer::accept(&frozen).await;
    let mut peer = Peer::accept(&sound).await;
    peer.handshake().await;
    status(&client, "a live connection", |status| status.is_live()).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_too_old_for_the_monitor() {
    misbehaves("ovsdb-server 2.12 or later is needed", async |peer| {
        peer.answer("get_schema", schema(), Value::Null).await;
        peer.answer("monitor_cond_since", Value::Null, json!("unknown method")).await;
    })
    .await;
}

#[tokio::test]
async fn content_that_is_none() {
    for content in [
        json!(null),
        json!([]),
        json!([false, "x", 5]),
        json!([false, "x", {"Load_Balancer": {"no-uuid": {}}}]),
    ] {
        misbehaves("the server sent", async |peer| {
            peer.answer("get_schema", schema(), Value::Null).await;
            peer.answer("monitor_cond_since", json!(content), Value::Null).await;
        })
        .await;
    }
}

/// An update with one row of `Load_Balancer`.
fn update(change: &Value) -> String {
    json!({"id": null, "method": "update3", "params": ["content", Uuid::nil(), {"Load_Balancer": {ROW: change}}]}).to_string()
}

#[tokio::test]
async fn a_malformed_column_names_table_row_and_column() {
    let expected = format!("row {ROW} of Load_Balancer, column vips: expected");
    for vips in
        [json!(5), json!(["map", [["k"]]]), json!(["map", {}]), json!(["set", []]), json!(["map", [[1, 2]]])]
    {
        let change = json!({"modify": {"vips": vips}});
        misbehaves_to(Typed::default(), &expected, async |peer| {
            peer.handshake().await;
            peer.say(update(&change)).await;
        })
        .await;
    }
}

#[tokio::test]
async fn notifications_that_nobody_asked_for_are_passed_over() {
    let (listener, client) = world(|_| ()).await;
    let mut peer = Peer::accept(&listener).await;
    peer.handshake().await;
    for method in ["locked", "stolen", "update", "something new"] {
        peer.say(json!({"id": null, "method": method, "params": ["x"]}).to_string()).await;
    }
    peer.say(json!({"id": 4711, "result": {}, "error": null}).to_string()).await;
    peer.say(json!({"id": "still there?", "method": "echo", "params": [1, "two"]}).to_string()).await;
    let answer = loop {
        let message = peer.next().await.expect("the client closed");
        if message["id"] == "still there?" {
            break message;
        }
    };
    assert_eq!(answer, json!({"id": "still there?", "result": [1, "two"], "error": null}));
    assert!(client.is_live());
}

#[tokio::test]
async fn a_connection_lost_with_transactions_in_flight_leaves_them_unknown() {
    let (listener, client) = world(|_| ()).await;
    let mut peer = Peer::accept(&listener).await;
    peer.handshake().await;
    status(&client, "a live connection", |status| status.is_live()).await;
    let delete = || vec![Operation::delete(TABLE, Uuid::nil())];
    let server = async {
        for _ in 0..2 {
            while peer.next().await.expect("the client closed")["method"] != "transact" {}
        }
        drop(peer);
    };
    let (first, second, ()) = tokio::join!(client.transact(delete()), client.transact(delete()), server);
    for outcome in [first, second] {
        assert!(matches!(outcome, Err(TransactError::Unknown { .. })), "{outcome:?}");
    }
}

#[tokio::test]
async fn replies_that_are_none_leave_the_outcome_unknown_or_name_the_refusal() {
    let cases = [
        (json!(null), json!(null), "unknown"),
        (json!({}), json!(null), "unknown"),
        (json!([]), json!(null), "unknown"),
        (json!(null), json!({"error": "resources exhausted", "details": "d"}), "refused"),
        (json!([{"error": "timed out"}]), json!(null), "refused"),
    ];
    for (result, error, expected) in cases {
        let (listener, client) = world(|_| ()).await;
        let mut peer = Peer::accept(&listener).await;
        peer.handshake().await;
        status(&client, "a live connection", |status| status.is_live()).await;
        let delete = vec![Operation::delete(TABLE, Uuid::nil())];
        let answer = peer.answer("transact", result.clone(), error);
        let (outcome, ()) = tokio::join!(client.transact(delete), answer);
        let kind = match outcome {
            Err(TransactError::Unknown { .. }) => "unknown",
            Err(TransactError::Refused { .. }) => "refused",
            other => panic!("{result}: {other:?}"),
        };
        assert_eq!(kind, expected, "{result}");
    }
}

#[tokio::test]
async fn a_server_that_never_speaks_is_given_up() {
    let (listener, client) = world(|config| config.probe_interval = Duration::from_millis(50)).await;
    let peer = Peer::accept(&listener).await;
    status(&client, "its silence", |status| status.to_string().contains("not answered")).await;
    peer.until_closed().await;
}

/// A transaction of about so many bytes.
fn transaction(bytes: usize) -> Vec<Operation> {
    let mut columns = owned("a", "owner");
    columns.insert("name".to_owned(), "x".repeat(bytes).into());
    vec![Operation::insert(TABLE, Uuid::from_u128(1), columns)]
}

#[tokio::test]
async fn what_a_stalled_server_does_not_take_is_not_piled_up() {
    const MIB: usize = 1 << 20;
    let (listener, client) = world(|config| {
        config.transact_timeout = Duration::from_secs(2);
        config.probe_interval = LONG;
    })
    .await;
    let mut peer = Peer::accept(&listener).await;
    peer.handshake().await;
    status(&client, "a live connection", |status| status.is_live()).await;

    // More than is kept for the server, and then more than may wait.
    let sizes = std::iter::repeat_n(MIB, 100).chain(std::iter::repeat_n(1, 1100));
    let mut calls = JoinSet::new();
    for size in sizes {
        let client = client.clone();
        calls.spawn(async move { client.transact(transaction(size)).await });
    }
    let outcomes = calls.join_all().await;
    let not_sent = |outcome: &Result<_, TransactError>| matches!(outcome, Err(TransactError::NotConnected { reason }) if reason.contains("not taken"));
    assert!(outcomes.iter().all(Result::is_err));
    assert!(outcomes.iter().any(not_sent), "more waited than may wait");

    let marker = vec![Operation::delete(TABLE, Uuid::from_u128(0xfeed))];
    let again = async {
        loop {
            let _ = client.transact(marker.clone()).await;
        }
    };
    let taken = tokio::select! {
        taken = timeout(LONG, peer.read_until("00000000feed")) => taken.expect("the client sends nothing more"),
        () = again => unreachable!(),
    };
    // What is in the sockets' buffers comes on top.
    assert!((16 * MIB..50 * MIB).contains(&taken), "{taken} bytes were kept");
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
