use std::time::{Duration, Instant};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};
use v1::node_message::Message as FromNode;

use super::*;
use crate::agents::protocol::{Event, Protocol};

const EPOCH: u64 = 7;

#[test]
fn texts_are_cut_between_characters_and_stay_on_one_line() {
    assert_eq!(kept("connection\nrefused\u{1b}[31m"), "connection refused [31m");
    let long = "é".repeat(300);
    assert_eq!(kept(&long).len(), 256);
    assert_eq!(kept(&format!("x{long}")).len(), 255);
    assert_eq!(kept(""), "");
}

#[test]
fn an_unknown_kind_or_id_is_refused_by_its_field() {
    let result = v1::Result { kind: 9, id: Uuid::nil().to_string(), ..v1::Result::default() };
    assert!(Acknowledgement::try_from(result).unwrap_err().to_string().contains("Result.kind"));
    let verdict = v1::Verdict { backend_id: "10.0.0.1".to_owned(), ..v1::Verdict::default() };
    assert!(Verdict::try_from(verdict).unwrap_err().to_string().contains("10.0.0.1"));
    let many = vec![v1::Verdict::default(); MOST_IN_MESSAGE + 1];
    assert!(matches!(all::<_, Verdict>("x", many), Err(ProtocolViolation::TooMany { .. })));
}

#[test]
fn a_node_without_capabilities_is_of_an_old_release() {
    let hello = |words: &[&str]| v1::Hello {
        node_id: "n1".to_owned(),
        boot_id: "b".to_owned(),
        capabilities: words.iter().map(|word| (*word).to_owned()).collect(),
        ..v1::Hello::default()
    };
    let stated = |words: &[&str]| Hello::try_from(hello(words)).unwrap().capabilities;
    assert_eq!(stated(&[]), NodeFeatures::of_old_agents());
    assert_eq!(stated(&["tcp"]), stated(&[]));
    assert!(!stated(&["unknown"]).cover(&NodeFeatures::of_old_agents()));
    assert!(Hello::try_from(hello(&["a b"])).is_err());
}

/// A message of each kind with one entry in each list, as it is sent on an open stream.
fn messages() -> Vec<(&'static str, DynamicMessage)> {
    let pool = DescriptorPool::decode(fiberlb_proto::AGENT_FILE_DESCRIPTOR_SET).unwrap();
    let kinds = ["Hello", "Ack", "Verdicts", "Counters", "Heartbeat", "Access_Log"];
    let described = pool.get_message_by_name("fiberlb.agent.v1.NodeMessage").unwrap();
    let known: Vec<String> =
        described.oneofs().next().unwrap().fields().map(|it| it.name().to_owned()).collect();
    assert_eq!(known, kinds.map(str::to_lowercase), "each kind is tried here");
    let id = || Uuid::nil().to_string();
    let hello = v1::Hello {
        oldest_version: 1,
        newest_version: 1,
        node_id: "n".to_owned(),
        boot_id: "b".to_owned(),
        capabilities: vec!["tcp".to_owned()],
        held_vip_ids: vec![id()],
        ..v1::Hello::default()
    };
    let result = v1::Result { kind: 1, id: id(), ..v1::Result::default() };
    let verdict = v1::Verdict { backend_id: id(), ..v1::Verdict::default() };
    let check = v1::InconclusiveCheck { backend_id: id(), ..v1::InconclusiveCheck::default() };
    let reason = v1::ReasonCount { reason: "r".to_owned(), connections_total: 0 };
    let durations = Some(v1::DurationCounts { counts: vec![0], sum_us: 0 });
    let listener = v1::ListenerCounters {
        listener_id: id(),
        reasons: vec![reason.clone()],
        durations,
        drain: Some(v1::Drain { parent_id: id(), connections: 0, deadline_ms: 0 }),
        ..v1::ListenerCounters::default()
    };
    let omitted = v1::OmittedEntries { listener_id: id(), connections: 1 };
    let address = || "10.0.0.1:1".to_owned();
    let entry = v1::AccessLogEntry {
        listener_id: id(),
        client: address(),
        peer: address(),
        pool_id: id(),
        backend_id: id(),
        backend: address(),
        ..v1::AccessLogEntry::default()
    };
    let backend =
        v1::BackendCounters { backend_id: id(), reasons: vec![reason], ..v1::BackendCounters::default() };
    let trouble = v1::Trouble { listener_id: id(), text: "t".to_owned() };
    let troubles = Some(v1::Troubles { troubles: vec![trouble] });
    let all = [
        FromNode::Hello(hello),
        FromNode::Ack(v1::Ack { revision: 0, results: vec![result] }),
        FromNode::Verdicts(v1::Verdicts {
            first: true,
            verdicts: vec![verdict],
            more: false,
            inconclusive: vec![check],
        }),
        FromNode::Counters(v1::Counters { listeners: vec![listener], backends: vec![backend], troubles }),
        FromNode::Heartbeat(v1::Heartbeat {}),
        FromNode::AccessLog(v1::AccessLog { entries: vec![entry], omitted: vec![omitted] }),
    ];
    let message = |message: FromNode| {
        let epoch = if matches!(message, FromNode::Hello(_)) { 0 } else { EPOCH };
        let bytes = v1::NodeMessage { epoch, message: Some(message) }.encode_to_vec();
        DynamicMessage::decode(described.clone(), bytes.as_slice()).unwrap()
    };
    kinds.into_iter().zip(all.map(message)).collect()
}

/// Fields in a message, and in the first entries of its lists, each with a way to set it.
fn fields(message: &DynamicMessage, path: &[FieldDescriptor]) -> Vec<Vec<FieldDescriptor>> {
    let mut found = Vec::new();
    for field in message.descriptor().fields() {
        let path = [path, std::slice::from_ref(&field)].concat();
        let inner = match message.get_field(&field).as_ref() {
            Value::Message(inner) if message.has_field(&field) => fields(inner, &path),
            Value::List(list) => match list.first() {
                Some(Value::Message(inner)) => fields(inner, &path),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        if !matches!(field.kind(), Kind::Message(_)) || field.is_list() {
            found.push(path);
        }
        found.extend(inner);
    }
    found
}

fn set(message: &mut DynamicMessage, path: &[FieldDescriptor], value: &Value) {
    let Some((field, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        return message.set_field(field, value.clone());
    }
    match message.get_field_mut(field) {
        Value::Message(inner) => set(inner, rest, value),
        Value::List(list) => match list.first_mut() {
            Some(Value::Message(inner)) => set(inner, rest, value),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn repeated(message: &DynamicMessage, path: &[FieldDescriptor], count: usize) -> Option<Value> {
    let (field, rest) = path.split_first()?;
    let value = message.get_field(field).into_owned();
    match (value, rest.is_empty()) {
        (Value::List(list), true) => Some(Value::List(vec![list.first()?.clone(); count])),
        (Value::Message(inner), false) => repeated(&inner, rest, count),
        (Value::List(list), false) => repeated(list.first()?.as_message()?, rest, count),
        _ => None,
    }
}

/// Result of a message on an open stream, or of a Hello on a new one.
fn received(message: &DynamicMessage) -> Result<Event, ProtocolViolation> {
    let now = Instant::now();
    let wire = v1::NodeMessage::decode(message.encode_to_vec().as_slice()).unwrap();
    let mut protocol = Protocol::new(None, Duration::from_secs(1), now);
    if !matches!(wire.message, Some(FromNode::Hello(_))) {
        protocol.welcome(EPOCH, Uuid::nil(), Duration::ZERO, now);
    }
    protocol.receive(wire, now)
}

/// Values of a field that are beyond all reason.
fn absurd(message: &DynamicMessage, path: &[FieldDescriptor]) -> Vec<Value> {
    let field = path.last().unwrap();
    match field.kind() {
        _ if field.is_list() => repeated(message, path, 20_000).into_iter().collect(),
        Kind::String => vec![Value::String("x".repeat(900_000)), Value::String("\u{202e}\n".repeat(200_000))],
        Kind::Uint64 => vec![Value::U64(u64::MAX)],
        Kind::Uint32 => vec![Value::U32(u32::MAX)],
        Kind::Enum(_) => vec![Value::EnumNumber(i32::MAX), Value::EnumNumber(i32::MIN)],
        Kind::Bool => vec![Value::Bool(true), Value::Bool(false)],
        other => panic!("{}: bound it, and try it here: {other:?}", field.full_name()),
    }
}

/// Fields whose type is their bound: nothing is kept of them but what is compared.
const BOUND_BY_TYPE: [&str; 5] =
    ["Hello.oldest_version", "Hello.newest_version", "Verdict.up", "Verdicts.first", "Verdicts.more"];

#[test]
fn a_value_beyond_reason_in_any_field_ends_the_stream_in_few_words() {
    let mut tried = 0;
    for (kind, message) in messages() {
        received(&message).unwrap_or_else(|error| panic!("{kind}: {error}"));
        for path in fields(&message, &[]) {
            let name = path.last().unwrap().full_name().trim_start_matches("fiberlb.agent.v1.").to_owned();
            for value in absurd(&message, &path) {
                let mut broken = message.clone();
                set(&mut broken, &path, &value);
                let received = received(&broken);
                let is_bounded = BOUND_BY_TYPE.contains(&name.as_str());
                assert!(received.is_err() || is_bounded, "{name} is not bounded");
                if let Err(error) = received {
                    let words = error.to_string();
                    assert!(words.len() < 3000, "{name}: {} bytes", words.len());
                    assert!(!words.contains('\n'), "{name}: {words}");
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 25, "{tried}");
}

#[test]
fn each_bound_is_met_and_not_exceeded() {
    let strings = |bytes: usize| Value::String("x".repeat(bytes));
    let numbers = [
        ("Verdict.since_ms", LATEST_MS),
        ("InconclusiveCheck.since_ms", LATEST_MS),
        ("Result.generation", LARGEST_COUNTER),
        ("ListenerCounters.connections_total", LARGEST_COUNTER),
        ("ListenerCounters.connections_active", MOST_CONNECTIONS),
        ("ListenerCounters.connections_failed_total", LARGEST_COUNTER),
        ("ListenerCounters.bytes_in_total", LARGEST_COUNTER),
        ("ListenerCounters.bytes_out_total", LARGEST_COUNTER),
        ("ReasonCount.connections_total", LARGEST_COUNTER),
        ("DurationCounts.sum_us", LARGEST_COUNTER),
        ("Drain.connections", MOST_CONNECTIONS),
        ("Drain.deadline_ms", LATEST_MS),
        ("AccessLogEntry.start_ms", LATEST_MS),
        ("AccessLogEntry.duration_us", LARGEST_DURATION_US),
        ("AccessLogEntry.connect_us", LARGEST_DURATION_US),
        ("AccessLogEntry.bytes_in", LARGEST_COUNTER),
        ("AccessLogEntry.bytes_out", LARGEST_COUNTER),
        ("OmittedEntries.connections", LARGEST_COUNTER),
    ];
    let texts = [
        "Hello.chassis",
        "Hello.release",
        "Result.error",
        "Verdict.reason",
        "InconclusiveCheck.reason",
        "Trouble.text",
    ];
    let names = ["Hello.node_id", "Hello.boot_id", "Hello.zone"];
    let lists = [
        ("Hello.capabilities", MOST_CAPABILITIES),
        ("Hello.held_vip_ids", MOST_IN_MESSAGE),
        ("Ack.results", MOST_IN_MESSAGE),
        ("Verdicts.verdicts", MOST_IN_MESSAGE),
        ("Verdicts.inconclusive", MOST_IN_MESSAGE),
        ("Counters.listeners", MOST_IN_MESSAGE),
        ("Troubles.troubles", MOST_TROUBLES),
        ("ListenerCounters.reasons", MOST_REASONS),
        ("BackendCounters.reasons", MOST_REASONS),
        ("DurationCounts.counts", MOST_DURATIONS),
        ("AccessLog.entries", MOST_LOGGED),
        ("AccessLog.omitted", MOST_LOGGED),
    ];
    let mut met = BTreeSet::new();
    for (_, message) in messages() {
        for path in fields(&message, &[]) {
            let name = path.last().unwrap().full_name().trim_start_matches("fiberlb.agent.v1.").to_owned();
            let number = numbers.iter().find(|(it, _)| *it == name).map(|(_, most)| *most);
            let list = lists.iter().find(|(it, _)| *it == name).map(|(_, most)| *most);
            let (at, beyond) = if let Some(most) = number {
                (Value::U64(most), Value::U64(most + 1))
            } else if let Some(most) = list {
                (repeated(&message, &path, most).unwrap(), repeated(&message, &path, most + 1).unwrap())
            } else if texts.contains(&name.as_str()) {
                (strings(TEXT_BYTES), strings(TEXT_BYTES + 1))
            } else if names.contains(&name.as_str()) {
                (strings(64), strings(65))
            } else {
                continue;
            };
            let (mut good, mut bad) = (message.clone(), message.clone());
            set(&mut good, &path, &at);
            set(&mut bad, &path, &beyond);
            assert!(received(&good).is_ok(), "{name}: {:?}", received(&good));
            let error = received(&bad).unwrap_err().to_string();
            assert!(error.contains(&name), "{name}: {error}");
            met.insert(name);
        }
    }
    assert_eq!(met.len(), numbers.len() + texts.len() + names.len() + lists.len());
}

#[test]
fn no_text_that_is_kept_is_longer_than_a_line() {
    for (_, message) in messages() {
        for path in fields(&message, &[]) {
            let field = path.last().unwrap();
            if field.kind() != Kind::String || field.is_list() {
                continue;
            }
            let mut long = message.clone();
            set(&mut long, &path, &Value::String("\u{7}é".repeat(TEXT_BYTES / 3)));
            if let Ok(event) = received(&long) {
                let text = format!("{event:?}");
                assert!(text.len() < 2000 && !text.contains("\\u{7}"), "{}: {text}", field.full_name());
            }
        }
    }
}

#[test]
fn durations_in_other_buckets_say_nothing() {
    let counted = |counts: Vec<u64>| {
        let durations = Some(v1::DurationCounts { counts, sum_us: 9 });
        let wire = v1::BackendCounters {
            backend_id: Uuid::nil().to_string(),
            durations,
            ..v1::BackendCounters::default()
        };
        TrafficReport::try_from(wire).map(|report| report.durations)
    };
    let counts = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(counted(counts.into()).unwrap(), Durations { counts, sum_us: 9 });
    assert_eq!(counted(vec![1; 9]).unwrap(), Durations::default());
    assert!(counted(vec![u64::MAX; 8]).is_err());
}
