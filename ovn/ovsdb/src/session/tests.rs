//! Tests of the session from the side of its peer.

use proptest::prelude::*;

use super::*;
use crate::error::DatabaseError;

/// Table `T` with its column `name`.
fn monitored() -> Option<Vec<MonitoredTable>> {
    Some(vec![MonitoredTable { columns: Some(vec!["name".to_owned()]), ..MonitoredTable::new("T") }])
}

fn fresh(state: ResumeState) -> Session {
    let config = SessionConfig {
        database: "DB".to_owned(),
        monitored: monitored(),
        probe_interval: Duration::from_secs(5),
        max_message_bytes: 10_000,
        leader_only: true,
    };
    Session::new(config, state, Instant::now())
}

/// A session with a server that has no `_Server` database.
fn session() -> Session {
    let mut session = fresh(ResumeState::default());
    feed(&mut session, &json!({"id": "server", "error": {"error": "unknown database"}})).unwrap();
    session
}

fn feed(session: &mut Session, message: &Value) -> Result<Vec<Output>, SessionError> {
    session.buffer().extend_from_slice(message.to_string().as_bytes());
    let mut outputs = Vec::new();
    session.received(Instant::now(), &mut outputs).map(|()| outputs)
}

fn schema() -> Value {
    json!({"id": "schema", "error": null, "result": {"version": "1.0.0", "tables": {"T": {"columns": {"name": {"type": "string"}}}}}})
}

fn live() -> Session {
    let mut session = session();
    feed(&mut session, &schema()).unwrap();
    feed(&mut session, &json!({"id": "monitor", "error": null, "result": [false, Uuid::nil(), {}]})).unwrap();
    feed(&mut session, &part(&row("initial", "a"))).unwrap();
    let outputs = feed(&mut session, &part(&row("initial", "a"))).unwrap();
    assert!(
        matches!(outputs.as_slice(), [Output::Live(_, Content::Snapshot(rows))] if rows.len() == 1),
        "{outputs:?}"
    );
    session.take_output();
    session
}

/// Reply to a monitor of a part of the content.
fn part(rows: &Value) -> Value {
    json!({"id": "part", "error": null, "result": rows})
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

/// The process may have been stopped, or busy with a large reload: the server has not been probed yet.
#[test]
fn a_late_look_at_the_clock_does_not_give_a_server_up() {
    let mut session = live();
    let late = Instant::now() + Duration::from_secs(15);
    session.tick(late).unwrap();
    assert!(session.tick(late).is_ok(), "given up in the moment of the probe");
}

#[test]
fn replies_find_their_transaction_in_any_order() {
    let mut session = live();
    let delete = || vec![Operation::delete("T", Uuid::nil())];
    let (first, second) = (
        session.transact(&delete(), Instant::now()).unwrap(),
        session.transact(&delete(), Instant::now()).unwrap(),
    );
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
        let id = session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now()).unwrap();
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
    let id = session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now()).unwrap();
    let reply = json!({"id": id, "error": "unknown method", "result": null});
    match feed(&mut session, &reply).unwrap().pop() {
        Some(Output::Reply(_, Err(error))) => {
            assert_eq!(error.to_string(), "the database refused the transaction: unknown method");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_wrong_database_and_nonsense_end_the_session() {
    let mut other = session();
    let answer =
        json!({"id": "schema", "error": null, "result": {"version": "1", "tables": {"X": {"columns": {}}}}});
    assert!(matches!(feed(&mut other, &answer), Err(SessionError::MissingTable(table)) if table == "T"));
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

const LAST: Uuid = Uuid::from_u128(0x1a57);

fn member(kind: &str, row: &Value) -> Value {
    json!({"Database": {Uuid::nil().to_string(): {kind: row}}})
}

/// Description of a cluster's leader.
fn leads() -> Value {
    let row = json!({"name": "DB", "model": "clustered", "connected": true, "leader": true, "index": 7,
        "cid": ["uuid", Uuid::from_u128(1)]});
    json!({"id": "server", "error": null, "result": member("initial", &row)})
}

fn row(kind: &str, name: &str) -> Value {
    json!({"T": {Uuid::nil().to_string(): {kind: {"name": name}}}})
}

/// A session with a cluster's leader that has requested the content.
fn asking(state: ResumeState) -> Session {
    let mut session = fresh(state);
    feed(&mut session, &leads()).unwrap();
    feed(&mut session, &schema()).unwrap();
    session
}

/// A live session with a cluster's leader, with content from its beginning at this transaction.
fn live_cluster(state: ResumeState, transaction: Uuid, rows: &Value) -> Session {
    let mut session = asking(state);
    assert!(sent(&mut session).contains("monitor_cond_since"));
    let beginning = json!({"id": "monitor", "error": null, "result": [false, transaction, {}]});
    feed(&mut session, &beginning).unwrap();
    for _ in 0..2 {
        if !session.is_live() {
            feed(&mut session, &part(rows)).unwrap();
        }
    }
    sent(&mut session);
    session
}

/// A session that awaits a row of table `T`.
fn reading() -> Session {
    let mut session = asking(ResumeState::default());
    feed(&mut session, &json!({"id": "monitor", "error": null, "result": [false, LAST, {}]})).unwrap();
    feed(&mut session, &part(&row("initial", "a"))).unwrap();
    assert_eq!(session.awaited_method(), "monitor_cond");
    session
}

/// Transaction that the next session resumes from.
fn asks_since(state: ResumeState) -> String {
    let request = sent(&mut asking(state));
    let params =
        request.rsplit_once(r#""T":[{"columns":["name"],"select":{"initial":false}}]},""#).unwrap().1;
    params.split_once('"').unwrap().0.to_owned()
}

#[test]
fn a_server_is_asked_what_it_is_before_anything_else() {
    let mut session = fresh(ResumeState::default());
    let request = sent(&mut session);
    assert!(request.contains("set_db_change_aware") && request.contains("_Server"), "{request}");
    assert!(!request.contains(r#""DB""#), "{request}");
    feed(&mut session, &leads()).unwrap();
    assert!(sent(&mut session).contains("get_schema"));
}

#[test]
fn a_server_that_will_not_tell_is_not_taken_for_an_old_one() {
    let refused = json!({"id": "server", "error": {"error": "permission error"}});
    let error = feed(&mut fresh(ResumeState::default()), &refused).unwrap_err();
    assert_eq!(error.to_string(), "the server refused monitor_cond: permission error");
}

#[test]
fn an_old_server_is_no_member_of_the_cluster_that_was_used() {
    let state = live_cluster(ResumeState::default(), LAST, &json!({})).into_state();
    let unknown = json!({"id": "server", "error": {"error": "unknown database"}});
    let error = feed(&mut fresh(state), &unknown).unwrap_err();
    assert!(error.to_string().contains("but of none"), "{error}");
}

#[test]
fn a_leader_that_loses_its_place_is_left_and_what_it_answered_before_counts() {
    for lost in [json!({"leader": false}), json!({"connected": false})] {
        let mut session = live_cluster(ResumeState::default(), LAST, &row("initial", "a"));
        let id = session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now()).unwrap();
        let reply = json!({"id": id, "error": null, "result": [{"count": 1}]}).to_string();
        let lost =
            json!({"method": "update2", "params": [SERVER_MONITOR, member("modify", &lost)], "id": null});
        session.buffer().extend_from_slice((reply + &lost.to_string()).as_bytes());
        let mut outputs = Vec::new();
        let error = session.received(Instant::now(), &mut outputs).unwrap_err();
        assert!(matches!(&error, SessionError::Server(error) if error.is_transient()), "{error}");
        assert!(matches!(outputs.as_slice(), [Output::Reply(_, Ok(_))]), "{outputs:?}");
    }
}

#[test]
fn a_member_that_owes_an_answer_is_given_up_sooner() {
    let transact = |session: &mut Session, now| {
        session.transact(&[Operation::delete("T", Uuid::nil())], now).unwrap();
        session.take_output();
    };
    let start = Instant::now();
    let after = |millis: u64| start + Duration::from_millis(4000 + millis);
    let mut member = live_cluster(ResumeState::default(), LAST, &json!({}));
    // It was silent before, which counts for nothing: nobody had asked.
    transact(&mut member, after(0));
    member.tick(after(1400)).unwrap();
    assert_eq!(sent(&mut member), "");
    member.tick(after(1600)).unwrap();
    assert!(sent(&mut member).contains("echo"));
    member.tick(after(3000)).unwrap();
    assert!(matches!(member.tick(after(3200)), Err(SessionError::Silent(_))));

    let mut answering = live_cluster(ResumeState::default(), LAST, &json!({}));
    transact(&mut answering, start);
    feed(&mut answering, &json!({"id": 1, "error": null, "result": [{"count": 1}]})).unwrap();
    answering.tick(after(0)).unwrap();
    assert_eq!(sent(&mut answering), "");

    let mut alone = live();
    transact(&mut alone, start);
    alone.tick(after(0)).unwrap();
    assert_eq!(sent(&mut alone), "");
}

#[test]
fn a_database_that_goes_is_noticed() {
    let mut session = live_cluster(ResumeState::default(), LAST, &json!({}));
    let gone = member("delete", &json!(null));
    let error =
        feed(&mut session, &json!({"method": "update2", "params": [SERVER_MONITOR, gone]})).unwrap_err();
    assert!(error.to_string().contains("has no database DB"), "{error}");
}

#[test]
fn what_was_taken_is_not_asked_for_again() {
    let mut session = live_cluster(ResumeState::default(), LAST, &row("initial", "a"));
    session.acknowledge();
    let later = Uuid::from_u128(0x1a7e);
    feed(&mut session, &json!({"method": "update3", "params": [MONITOR, later, row("modify", "b")]}))
        .unwrap();
    session.acknowledge();
    let state = session.into_state();
    assert_eq!(asks_since(state.clone()), later.to_string());
    let mut session = asking(state);
    let content = json!({"id": "monitor", "error": null, "result": [true, later, {}]});
    let outputs = feed(&mut session, &content).unwrap();
    assert!(matches!(outputs.as_slice(), [Output::Live(_, Content::Delta(rows))] if rows.is_empty()));
}

#[test]
fn what_was_not_taken_makes_the_whole_content_come_again() {
    let fresh = || live_cluster(ResumeState::default(), LAST, &row("initial", "a"));
    assert_eq!(asks_since(fresh().into_state()), Uuid::nil().to_string());
    let mut session = fresh();
    session.acknowledge();
    feed(&mut session, &json!({"method": "update3", "params": [MONITOR, Uuid::max(), row("modify", "b")]}))
        .unwrap();
    assert_eq!(asks_since(session.into_state()), Uuid::nil().to_string());
}

#[test]
fn nothing_is_live_before_all_was_read_and_each_part_is_let_go_of() {
    let mut session = asking(ResumeState::default());
    sent(&mut session);
    let beginning = json!({"id": "monitor", "error": null, "result": [false, LAST, {}]});
    assert!(feed(&mut session, &beginning).unwrap().is_empty());
    assert!(sent(&mut session).contains(r#""columns":[]"#), "a list of the rows is asked for first");
    assert!(feed(&mut session, &part(&row("initial", "a"))).unwrap().is_empty());
    let request = sent(&mut session);
    assert!(request.contains("monitor_cancel") && request.contains(&Uuid::nil().to_string()), "{request}");
    assert!(session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now()).is_none());
    let change = json!({"method": "update3", "params": [MONITOR, Uuid::max(), row("modify", "b")]});
    assert!(feed(&mut session, &change).unwrap().is_empty());
    let outputs = feed(&mut session, &part(&row("initial", "b"))).unwrap();
    let [Output::Live(_, Content::Snapshot(rows))] = outputs.as_slice() else { panic!("{outputs:?}") };
    assert_eq!(rows.len(), 1);
    assert_eq!(sent(&mut session).matches("monitor_cancel").count(), 1);
    session.acknowledge();
    assert_eq!(
        asks_since(session.into_state()),
        Uuid::max().to_string(),
        "the last change was taken with it"
    );
}

#[test]
fn a_reply_that_is_late_counts_from_its_request() {
    let start = Instant::now();
    let mut session = reading();
    assert!(session.awaited_since() >= start);
    let later = session.awaited_since() + Duration::from_secs(3);
    session.buffer().extend_from_slice(br#"{"method":"echo","params":[],"id":1}"#);
    session.received(later, &mut Vec::new()).unwrap();
    assert!(session.awaited_since() < later, "a server that only echoes does not get on");
}

#[test]
fn a_delta_or_a_part_that_is_too_long_is_not_asked_for_again() {
    let long = "x".repeat(20_000);
    let mut session = live_cluster(ResumeState::default(), LAST, &row("initial", "a"));
    session.acknowledge();
    let mut resuming = asking(session.into_state());
    sent(&mut resuming);
    let delta = json!({"id": "monitor", "error": null, "result": [true, LAST, row("modify", &long)]});
    assert!(matches!(feed(&mut resuming, &delta), Err(SessionError::Framing(FramingError::TooLong(10_000)))));
    assert_eq!(asks_since(resuming.into_state()), Uuid::nil().to_string());

    let mut session = reading();
    let error = feed(&mut session, &part(&row("initial", &long))).unwrap_err();
    assert!(matches!(&error, SessionError::LongRow { table, .. } if table == "T"), "{error}");
    let uuids: Map<String, Value> =
        (0..40).map(|number| (Uuid::from_u128(number).to_string(), json!({"initial": {}}))).collect();
    let mut session = asking(ResumeState::default());
    feed(&mut session, &json!({"id": "monitor", "error": null, "result": [false, LAST, {}]})).unwrap();
    feed(&mut session, &part(&json!({"T": uuids}))).unwrap();
    let error = feed(&mut session, &part(&row("initial", &long))).unwrap_err();
    assert!(matches!(error, SessionError::LongPart { rows: 16, .. }), "{error}");
    let state = session.into_state();
    assert_eq!(state.caution(), 1);
    let next = live_cluster(state, LAST, &row("initial", "a")).into_state();
    assert_eq!(next.caution(), 0, "the content was read");
}

#[test]
fn changes_since_nothing_are_refused() {
    let mut session = asking(ResumeState::default());
    let content = json!({"id": "monitor", "error": null, "result": [true, LAST, row("modify", "a")]});
    assert!(matches!(feed(&mut session, &content), Err(SessionError::Unexpected(_))));
}

#[test]
fn what_a_cluster_has_not_agreed_on_is_unknown() {
    let mut session = live_cluster(ResumeState::default(), LAST, &json!({}));
    let id = session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now()).unwrap();
    let error = json!({"error": "cluster error", "details": "lost leadership"});
    let outputs =
        feed(&mut session, &json!({"id": id, "error": null, "result": [{"count": 1}, error]})).unwrap();
    assert!(
        matches!(outputs.as_slice(), [Output::Reply(_, Err(TransactError::Unknown { .. }))]),
        "{outputs:?}"
    );
}

proptest! {
    #[test]
    fn whatever_a_server_says_of_itself_never_panics(
        kind in prop::sample::select(vec!["initial", "insert", "modify", "delete", "what"]),
        column in prop::sample::select(vec!["name", "model", "connected", "leader", "index", "cid", "more"]),
        value in prop::sample::select(vec![
            json!(null), json!(true), json!("DB"), json!("standalone"), json!(-1), json!(["set", []]), json!(["uuid", "x"]),
            json!(["set", [1, 2]]), json!(["uuid", Uuid::nil()]), json!({}),
        ]),
        phase in 0..3,
    ) {
        let updates = member(kind, &json!({column: value}));
        let mut session = match phase {
            0 => fresh(ResumeState::default()),
            1 => reading(),
            _ => live_cluster(ResumeState::default(), LAST, &json!({})),
        };
        for message in [
            json!({"id": "server", "error": null, "result": updates}),
            json!({"id": "server", "error": value, "result": null}),
            json!({"method": "update2", "params": [SERVER_MONITOR, updates]}),
            json!({"method": "update2", "params": [value, value]}),
            json!({"method": "update2", "params": value}),
            json!({"id": "monitor", "error": null, "result": [value, value, updates]}),
            part(&updates),
        ] {
            let _ = feed(&mut session, &message);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), is_live: bool) {
        let mut session = if is_live { live() } else { reading() };
        session.buffer().extend_from_slice(&bytes);
        let _ = session.received(Instant::now(), &mut Vec::new());
    }

    #[test]
    fn arbitrary_parts_of_messages_never_panic(
        id in 0u64..3, text in "([a-z3_]{0,8}|part|update3)", results in prop::collection::vec(0u8..5, 0..4), is_live: bool,
    ) {
        let mut session = if is_live { live() } else { reading() };
        session.transact(&[Operation::delete("T", Uuid::nil())], Instant::now());
        let results: Vec<Value> = results.iter().map(|kind| match kind {
            0 => json!({}), 1 => json!({"error": text}), 2 => json!(null), 3 => json!([text]), _ => json!({"count": -1}),
        }).collect();
        for message in [
            json!({"id": id, "result": results, "error": null}),
            json!({"id": text, "result": results, "error": text}),
            json!({"id": text, "result": {text.as_str(): results}, "error": null}),
            json!({"id": text, "result": {"T": {Uuid::nil().to_string(): {text.as_str(): {}}}}, "error": null}),
            json!({"method": text, "params": results}),
            json!({"method": "update3", "params": results}),
        ] {
            let _ = feed(&mut session, &message);
        }
    }
}
