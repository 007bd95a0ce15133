//! The session as its peer sees it.

use proptest::prelude::*;

use super::*;
use crate::ovsdb::error::DatabaseError;

const TABLES: &[MonitoredTable] = &[MonitoredTable { name: "T", columns: &["name"], required: true }];

fn session() -> Session {
    let config = SessionConfig {
        database: "DB".to_owned(),
        monitored: TABLES.to_vec(),
        probe_interval: Duration::from_secs(5),
        max_message: 10_000,
    };
    Session::new(config, Instant::now())
}

fn feed(session: &mut Session, message: &Value) -> Result<Vec<Output>, SessionError> {
    session.buffer().extend_from_slice(message.to_string().as_bytes());
    session.received(Instant::now())
}

fn schema() -> Value {
    json!({"id": "schema", "error": null, "result": {"version": "1.0.0", "tables": {"T": {"columns": {"name": {"type": "string"}}}}}})
}

fn live() -> Session {
    let mut session = session();
    feed(&mut session, &schema()).unwrap();
    let content = json!({"id": "monitor", "error": null, "result": [false, Uuid::nil(), {"T": {Uuid::nil().to_string(): {"initial": {"name": "a"}}}}]});
    assert!(
        matches!(feed(&mut session, &content).unwrap().as_slice(), [Output::Live(_, rows)] if rows.len() == 1)
    );
    session.take_output();
    session
}

fn sent(session: &mut Session) -> String {
    String::from_utf8(session.take_output()).unwrap()
}

#[test]
fn it_asks_for_the_schema_then_for_the_content_with_the_columns_that_are_there() {
    let mut session = session();
    assert!(sent(&mut session).contains("get_schema"));
    feed(&mut session, &schema()).unwrap();
    let request = sent(&mut session);
    assert!(request.contains("monitor_cond_since") && request.contains("name"), "{request}");
}

#[test]
fn a_server_that_asks_is_answered() {
    let mut session = live();
    feed(&mut session, &json!({"method": "echo", "params": ["x"], "id": 7})).unwrap();
    assert_eq!(sent(&mut session), r#"{"error":null,"id":7,"result":["x"]}"#);
}

#[test]
fn a_server_that_asks_and_does_not_read_is_given_up() {
    let mut session = live();
    let echo = json!({"method": "echo", "params": ["x".repeat(4000)], "id": 7});
    for _ in 0..3 {
        feed(&mut session, &echo).unwrap();
    }
    assert!(matches!(feed(&mut session, &echo), Err(SessionError::Unread)));
    session.take_output();
    feed(&mut session, &echo).unwrap();
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let (mut session, start) = (live(), Instant::now());
    assert!(session.tick(start + Duration::from_secs(4)).is_ok());
    assert_eq!(sent(&mut session), "");
    session.tick(start + Duration::from_secs(6)).unwrap();
    assert!(sent(&mut session).contains("echo"));
    session.tick(start + Duration::from_secs(7)).unwrap();
    assert!(matches!(session.tick(start + Duration::from_secs(11)), Err(SessionError::Silent(_))));
}

#[test]
fn replies_find_their_transaction_in_any_order() {
    let mut session = live();
    let delete = || vec![Operation::delete("T", Uuid::nil())];
    let (first, second) = (session.transact(&delete()).unwrap(), session.transact(&delete()).unwrap());
    let reply = |id| json!({"id": id, "error": null, "result": [{"count": 1}]});
    for id in [second, first] {
        let outputs = feed(&mut session, &reply(id)).unwrap();
        assert!(matches!(outputs.as_slice(), [Output::Reply(answered, Ok(_))] if *answered == id));
    }
    assert!(feed(&mut session, &reply(99)).unwrap().is_empty());
}

#[test]
fn refusals_say_which_operation_or_none_at_commit() {
    let mut session = live();
    let error = json!({"error": "constraint violation", "details": "d"});
    let mut refused = |results: Value| {
        let id = session.transact(&[Operation::delete("T", Uuid::nil())]).unwrap();
        match feed(&mut session, &json!({"id": id, "error": null, "result": results})).unwrap().pop() {
            Some(Output::Reply(_, Err(TransactError::Refused { operation, error, .. }))) => {
                (operation, error)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(json!([error])), (Some(0), DatabaseError::ConstraintViolation));
    assert_eq!(refused(json!([{"count": 1}, error])), (None, DatabaseError::ConstraintViolation));
}

#[test]
fn a_refusal_that_is_a_mere_string_is_shown_as_it_is() {
    let mut session = live();
    let id = session.transact(&[Operation::delete("T", Uuid::nil())]).unwrap();
    let reply = json!({"id": id, "error": "unknown method", "result": null});
    match feed(&mut session, &reply).unwrap().pop() {
        Some(Output::Reply(_, Err(error))) => {
            assert_eq!(error.to_string(), "the database refused it: unknown method");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_database_and_nonsense_end_the_session() {
    let mut other = session();
    let answer =
        json!({"id": "schema", "error": null, "result": {"version": "1", "tables": {"X": {"columns": {}}}}});
    assert!(matches!(feed(&mut other, &answer), Err(SessionError::MissingTable("T"))));
    for nonsense in [
        json!({"id": "schema", "error": "no such database", "result": null}),
        json!({"id": "schema", "error": null, "result": 5}),
        json!({"id": "monitor", "error": null, "result": []}),
        json!({"method": "update3", "params": []}),
    ] {
        assert!(feed(&mut session(), &nonsense).is_err(), "{nonsense}");
    }
    for nonsense in [
        json!({"method": "update3", "params": []}),
        json!({"method": "update3", "params": ["m", "t", {"T": {"not-a-uuid": {}}}]}),
        json!({"method": "update3", "params": ["m", "t", {"T": {Uuid::nil().to_string(): {"what": {}}}}]}),
        json!({"method": "monitor_canceled", "params": []}),
        schema(),
    ] {
        assert!(feed(&mut live(), &nonsense).is_err(), "{nonsense}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut session = live();
        session.buffer().extend_from_slice(&bytes);
        let _ = session.received(Instant::now());
    }

    #[test]
    fn arbitrary_parts_of_messages_never_panic(id in 0u64..3, text in "[a-z3_]{0,8}", results in prop::collection::vec(0u8..5, 0..4)) {
        let mut session = live();
        session.transact(&[Operation::delete("T", Uuid::nil())]);
        let results: Vec<Value> = results.iter().map(|kind| match kind {
            0 => json!({}), 1 => json!({"error": text}), 2 => json!(null), 3 => json!([text]), _ => json!({"count": -1}),
        }).collect();
        for message in [
            json!({"id": id, "result": results, "error": null}),
            json!({"id": text, "result": results, "error": text}),
            json!({"method": text, "params": results}),
            json!({"method": "update3", "params": results}),
        ] {
            let _ = feed(&mut session, &message);
        }
    }
}
