use fiberlb_daemon::names::is_name;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const HEARTBEAT: Duration = Duration::from_millis(500);
const EPOCH: u64 = 7;

fn of(epoch: u64, message: FromNode) -> v1::NodeMessage {
    v1::NodeMessage { epoch, message: Some(message) }
}

fn hello() -> v1::Hello {
    v1::Hello {
        oldest_version: 1,
        newest_version: 3,
        node_id: "node-1".to_owned(),
        boot_id: "boot".to_owned(),
        ..v1::Hello::default()
    }
}

fn ack(revision: u64) -> v1::NodeMessage {
    of(EPOCH, FromNode::Ack(v1::Ack { revision, results: Vec::new() }))
}

fn verdict(id: u128, up: bool) -> v1::Verdict {
    v1::Verdict { backend_id: Uuid::from_u128(id).to_string(), up, ..v1::Verdict::default() }
}

fn verdicts(first: bool, more: bool, ids: &[u128]) -> v1::NodeMessage {
    let verdicts = ids.iter().map(|id| verdict(*id, true)).collect();
    of(EPOCH, FromNode::Verdicts(v1::Verdicts { first, verdicts, more, inconclusive: Vec::new() }))
}

fn new(certified: Option<&str>) -> (Protocol, Instant) {
    let now = Instant::now();
    (Protocol::new(certified.map(str::to_owned), HEARTBEAT, now), now)
}

/// A stream with a Welcome and two updates.
fn open() -> (Protocol, Instant) {
    let (mut protocol, now) = new(None);
    assert!(matches!(protocol.receive(of(0, FromNode::Hello(hello())), now), Ok(Event::Hello(_))));
    let welcome = protocol.welcome(EPOCH, Uuid::nil(), Duration::ZERO, now);
    assert_eq!(welcome.epoch, EPOCH);
    for revision in 1..=2 {
        let Some(FromPlugin::Update(update)) = protocol.update(v1::Update::default(), now).message else {
            panic!("an update is an update");
        };
        assert_eq!(update.revision, revision);
    }
    (protocol, now)
}

fn refused(hello: v1::Hello, certified: Option<&str>) -> ProtocolViolation {
    let (mut protocol, now) = new(certified);
    protocol.receive(of(0, FromNode::Hello(hello)), now).unwrap_err()
}

#[test]
fn only_a_version_in_common_will_do() {
    for (oldest, newest) in [(2, 3), (0, 0), (3, 1)] {
        let hello = v1::Hello { oldest_version: oldest, newest_version: newest, ..hello() };
        assert_eq!(refused(hello, None), ProtocolViolation::Version { oldest, newest });
    }
}

#[test]
fn a_node_is_who_its_certificate_says() {
    assert!(matches!(refused(hello(), Some("node-2")), ProtocolViolation::Identity { .. }));
    let (mut protocol, now) = new(Some("node-1"));
    assert!(protocol.receive(of(0, FromNode::Hello(hello())), now).is_ok());
}

#[test]
fn what_a_hello_says_is_checked_and_bounded() {
    for (field, hello) in [
        ("node_id", v1::Hello { node_id: String::new(), ..hello() }),
        ("boot_id", v1::Hello { boot_id: "a b".to_owned(), ..hello() }),
        ("zone", v1::Hello { zone: "/".to_owned(), ..hello() }),
        ("held_vip_ids", v1::Hello { held_vip_ids: vec!["x".to_owned()], ..hello() }),
        ("capabilities", v1::Hello { capabilities: vec!["x".to_owned(); 65], ..hello() }),
    ] {
        let error = refused(hello, None).to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn messages_come_in_their_order() {
    let (mut protocol, now) = new(None);
    assert!(matches!(protocol.receive(ack(0), now), Err(ProtocolViolation::Unexpected { what: "Ack", .. })));
    assert!(protocol.receive(of(0, FromNode::Hello(hello())), now).is_ok());
    let early = of(0, FromNode::Heartbeat(v1::Heartbeat {}));
    assert!(matches!(
        protocol.receive(early, now),
        Err(ProtocolViolation::Unexpected { what: "Heartbeat", .. })
    ));
    let (mut protocol, now) = open();
    let again = of(EPOCH, FromNode::Hello(hello()));
    assert!(matches!(protocol.receive(again, now), Err(ProtocolViolation::Unexpected { what: "Hello", .. })));
    assert!(protocol.receive(v1::NodeMessage { epoch: EPOCH, message: None }, now).is_err());
}

#[test]
fn a_stale_epoch_is_refused() {
    let (mut protocol, now) = open();
    let stale = of(EPOCH - 1, FromNode::Heartbeat(v1::Heartbeat {}));
    assert_eq!(
        protocol.receive(stale, now),
        Err(ProtocolViolation::Epoch { got: EPOCH - 1, expected: EPOCH })
    );
    let (mut protocol, now) = new(None);
    assert_eq!(
        protocol.receive(of(EPOCH, FromNode::Hello(hello())), now),
        Err(ProtocolViolation::Epoch { got: EPOCH, expected: 0 })
    );
}

#[test]
fn only_what_was_sent_can_be_acknowledged_and_never_less_than_before() {
    let (mut protocol, now) = open();
    for revision in [0, 1, 1, 2, 2] {
        assert!(protocol.receive(ack(revision), now).is_ok());
    }
    for revision in [1, 3] {
        assert_eq!(
            protocol.receive(ack(revision), now),
            Err(ProtocolViolation::Revision { revision, acknowledged: 2, sent: 2 })
        );
    }
}

#[test]
fn a_snapshot_of_verdicts_is_told_when_it_is_whole() {
    let (mut protocol, now) = open();
    assert_eq!(protocol.receive(verdicts(true, true, &[1, 2]), now), Ok(Event::Alive));
    assert_eq!(protocol.receive(verdicts(false, true, &[3]), now), Ok(Event::Alive));
    let Ok(Event::Verdicts { complete: true, verdicts: all, .. }) =
        protocol.receive(verdicts(false, false, &[4]), now)
    else {
        panic!("the snapshot is whole");
    };
    assert_eq!(all.iter().map(|it| it.backend.as_u128()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let Ok(Event::Verdicts { complete: false, verdicts: news, .. }) =
        protocol.receive(verdicts(false, false, &[5]), now)
    else {
        panic!("what comes later is news");
    };
    assert_eq!(news.len(), 1);
    assert!(protocol.receive(verdicts(true, false, &[]), now).is_err(), "the first comes once");
    let (mut protocol, now) = open();
    assert!(
        protocol.receive(verdicts(false, false, &[1]), now).is_err(),
        "news cannot come before the snapshot"
    );
}

#[test]
fn a_snapshot_of_verdicts_has_a_limit() {
    let (mut protocol, now) = open();
    let many: Vec<u128> = (0..input::MOST_IN_MESSAGE as u128).collect();
    for part in 0..MOST_IN_SNAPSHOT / many.len() {
        assert_eq!(protocol.receive(verdicts(part == 0, true, &many), now), Ok(Event::Alive));
    }
    assert!(matches!(
        protocol.receive(verdicts(false, true, &[1]), now),
        Err(ProtocolViolation::TooMany { .. })
    ));
}

#[test]
fn four_heartbeats_of_silence_end_it() {
    let (mut protocol, start) = open();
    let mut now = start;
    let mut ended = None;
    while ended.is_none() && now < start + HEARTBEAT * 10 {
        now += HEARTBEAT / 2;
        ended = protocol.check_silence(now).err();
    }
    assert_eq!((ended, now - start), (Some(ProtocolViolation::Silent(HEARTBEAT * 4)), HEARTBEAT * 4));
}

#[test]
fn a_node_is_not_blamed_for_a_time_in_which_nobody_looked() {
    let (mut protocol, start) = open();
    let suspended = start + HEARTBEAT * 100;
    assert_eq!(protocol.check_silence(suspended), Ok(()));
    let mut now = suspended;
    while protocol.check_silence(now).is_ok() {
        now += HEARTBEAT / 2;
    }
    assert_eq!(now - suspended, HEARTBEAT * 4, "but it is not excused for ever");
}

#[test]
fn we_say_something_in_each_heartbeat_and_no_more_than_that() {
    let (mut protocol, now) = open();
    assert!(protocol.heartbeat(now + HEARTBEAT / 4).is_none());
    let at = now + HEARTBEAT / 2;
    assert_eq!(protocol.heartbeat(at).unwrap().epoch, EPOCH);
    assert!(protocol.heartbeat(at).is_none());
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("node-1".to_owned()), Just(Uuid::nil().to_string()), any::<String>()]
}

fn message() -> impl Strategy<Value = FromNode> {
    let version = prop_oneof![Just(0u32), Just(1), any::<u32>()];
    let hello = (version.clone(), version, text(), text(), text(), prop::collection::vec(text(), 0..3))
        .prop_map(|(oldest_version, newest_version, node_id, boot_id, zone, held_vip_ids)| {
            FromNode::Hello(v1::Hello {
                oldest_version,
                newest_version,
                node_id,
                boot_id,
                zone,
                held_vip_ids,
                ..v1::Hello::default()
            })
        });
    let result = (-1..5i32, text(), any::<u64>(), text())
        .prop_map(|(kind, id, generation, error)| v1::Result { kind, id, generation, error });
    let revision = prop_oneof![0..4u64, any::<u64>()];
    let ack = (revision, prop::collection::vec(result, 0..3))
        .prop_map(|(revision, results)| FromNode::Ack(v1::Ack { revision, results }));
    let verdict = (text(), any::<bool>(), text()).prop_map(|(backend_id, up, reason)| v1::Verdict {
        backend_id,
        up,
        reason,
        since_ms: 0,
    });
    let verdicts = (any::<bool>(), any::<bool>(), prop::collection::vec(verdict, 0..3)).prop_map(
        |(first, more, verdicts)| {
            FromNode::Verdicts(v1::Verdicts { first, verdicts, more, inconclusive: Vec::new() })
        },
    );
    let trouble = (text(), text()).prop_map(|(listener_id, text)| v1::Trouble { listener_id, text });
    let troubles = prop::collection::vec(trouble, 0..3).prop_map(|troubles| v1::Troubles { troubles });
    let troubles = prop::option::of(troubles);
    let counters = (prop::collection::vec(text(), 0..3), troubles).prop_map(|(ids, troubles)| {
        let one = |listener_id| v1::ListenerCounters { listener_id, ..v1::ListenerCounters::default() };
        let of_backend = |backend_id| v1::BackendCounters { backend_id, ..v1::BackendCounters::default() };
        FromNode::Counters(v1::Counters {
            backends: ids.iter().cloned().map(of_backend).collect(),
            listeners: ids.into_iter().map(one).collect(),
            troubles,
        })
    });
    prop_oneof![hello, ack, verdicts, counters, Just(FromNode::Heartbeat(v1::Heartbeat {}))]
}

proptest! {
    /// Any messages in any order: nothing panics, nothing of another epoch is believed, and no
    /// acknowledgement is accepted for an update that was not sent.
    #[test]
    fn no_order_of_messages_breaks_it(
        mut opened in any::<bool>(),
        messages in prop::collection::vec((0..3u64, prop::option::of(message()), any::<bool>()), 0..40),
    ) {
        let (mut protocol, mut now) = new(None);
        let mut sent = 0;
        if opened {
            prop_assert!(protocol.receive(of(0, FromNode::Hello(hello())), now).is_ok());
            protocol.welcome(2, Uuid::nil(), Duration::ZERO, now);
        }
        for (epoch, message, update) in messages {
            now += Duration::from_millis(10);
            match protocol.receive(v1::NodeMessage { epoch, message }, now) {
                Ok(Event::Hello(hello)) => {
                    prop_assert!(!opened && epoch == 0 && is_name(&hello.node_id));
                    protocol.welcome(2, Uuid::nil(), Duration::ZERO, now);
                    opened = true;
                }
                Ok(event) => {
                    prop_assert!(opened && epoch == 2);
                    if let Event::Acknowledged { revision, .. } = event {
                        prop_assert!(revision <= sent);
                    }
                }
                // A session ends here; to check that nothing worse happens after it costs nothing.
                Err(violation) => prop_assert!(!violation.to_string().is_empty()),
            }
            if opened && update {
                protocol.update(v1::Update::default(), now);
                sent += 1;
            }
            prop_assert!(protocol.check_silence(now).is_ok());
        }
    }
}
