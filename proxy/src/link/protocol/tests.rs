use proptest::prelude::*;

use super::*;

const INSTALLATION: Uuid = Uuid::from_u128(7);
const HEARTBEAT: Duration = Duration::from_millis(500);

fn message(epoch: u64, message: FromPlugin) -> v1::PluginMessage {
    v1::PluginMessage { epoch, message: Some(message) }
}

fn welcome() -> v1::Welcome {
    v1::Welcome {
        version: VERSION,
        heartbeat_ms: 500,
        installation: INSTALLATION.to_string(),
        renew_after_ms: 0,
    }
}

fn update(revision: u64, snapshot_end: bool) -> FromPlugin {
    let removed_pool_ids = vec![Uuid::from_u128(revision.into()).to_string()];
    FromPlugin::Update(v1::Update { revision, snapshot_end, removed_pool_ids, ..v1::Update::default() })
}

fn open(now: Instant) -> StreamProtocol {
    let mut protocol = StreamProtocol::new(now);
    let event = protocol.receive(message(5, FromPlugin::Welcome(welcome())), now).unwrap();
    assert_eq!(event, StreamEvent::Welcome { installation: INSTALLATION, renew_after: None });
    protocol
}

fn removed(change: &Change) -> u128 {
    change.removed.pools[0].as_u128()
}

#[test]
fn nothing_of_a_snapshot_counts_before_its_end() {
    let now = Instant::now();
    let mut protocol = open(now);
    for revision in 1..3 {
        assert_eq!(protocol.receive(message(5, update(revision, false)), now), Ok(StreamEvent::Alive));
    }
    let Ok(StreamEvent::Snapshot { installation, revision: 3, parts }) =
        protocol.receive(message(5, update(3, true)), now)
    else {
        panic!()
    };
    assert_eq!(installation, INSTALLATION);
    assert_eq!(parts.iter().map(removed).collect::<Vec<_>>(), [1, 2, 3]);
    let changed = protocol.receive(message(5, update(4, false)), now).unwrap();
    assert!(matches!(changed, StreamEvent::Changed { revision: 4, .. }));
}

#[test]
fn a_welcome_that_cannot_be_is_refused() {
    let refused = |change: fn(&mut v1::Welcome)| {
        let mut welcome = welcome();
        change(&mut welcome);
        StreamProtocol::new(Instant::now())
            .receive(message(1, FromPlugin::Welcome(welcome)), Instant::now())
            .unwrap_err()
    };
    assert_eq!(refused(|it| it.version = 2), Violation::Version(2));
    assert!(refused(|it| it.heartbeat_ms = 0).to_string().contains("heartbeat_ms"));
    assert!(refused(|it| it.installation.clear()).to_string().contains("installation"));
}

#[test]
fn what_has_no_meaning_ends_the_stream() {
    let now = Instant::now();
    let heartbeat = FromPlugin::Heartbeat(v1::Heartbeat {});
    let mut silent = StreamProtocol::new(now);
    assert!(silent.receive(message(0, heartbeat.clone()), now).is_err(), "before Welcome");
    assert!(StreamProtocol::new(now).receive(v1::PluginMessage::default(), now).is_err(), "no kind");
    let stale = open(now).receive(message(4, heartbeat), now);
    assert_eq!(stale, Err(Violation::Epoch { got: 4, expected: 5 }));
    assert!(open(now).receive(message(5, FromPlugin::Welcome(welcome())), now).is_err(), "Welcome twice");
    let no_id = v1::Update { revision: 1, removed_pool_ids: vec!["x".to_owned()], ..v1::Update::default() };
    let no_id = open(now).receive(message(5, FromPlugin::Update(no_id)), now).unwrap_err();
    assert!(no_id.to_string().contains("removed_pool_ids"), "{no_id}");
}

#[test]
fn heartbeats_are_said_only_when_nothing_else_is() {
    let start = Instant::now();
    let mut protocol = StreamProtocol::new(start);
    assert_eq!(protocol.tick(start + HEARTBEAT), Ok(None), "there is no epoch yet");
    let mut protocol = open(start);
    let mut sent = vec![start];
    for step in 1..=40 {
        let now = start + HEARTBEAT / 2 * step;
        protocol.receive(message(5, FromPlugin::Heartbeat(v1::Heartbeat {})), now).unwrap();
        if step % 7 == 0 {
            let message = protocol.wrap(FromNode::Ack(v1::Ack::default()), now);
            assert_eq!(message.epoch, 5);
            sent.push(now);
        }
        if let Some(heartbeat) = protocol.tick(now).unwrap() {
            assert!(step % 7 != 0, "an acknowledgement was sent just now");
            assert!(matches!(heartbeat.message, Some(FromNode::Heartbeat(_))));
            sent.push(now);
        }
    }
    assert!(sent.windows(2).all(|pair| pair[1] - pair[0] <= HEARTBEAT));
}

#[test]
fn silence_ends_the_stream_and_our_own_absence_does_not() {
    let start = Instant::now();
    let mut protocol = open(start);
    let limit = HEARTBEAT * SILENT_HEARTBEATS;
    for step in 1..8 {
        assert!(protocol.tick(start + HEARTBEAT / 2 * step).is_ok());
    }
    assert_eq!(protocol.tick(start + limit), Err(Violation::Silent(limit)));

    let mut suspended = open(start);
    assert!(suspended.tick(start + HEARTBEAT / 2).is_ok());
    assert!(suspended.tick(start + Duration::from_secs(3600)).is_ok());
    assert!(suspended.tick(start + Duration::from_secs(3600) + limit).is_ok(), "absent again");
}

/// Next message of the test's plugin, good or bad.
#[derive(Clone, Debug)]
enum PluginStep {
    Heartbeat,
    Update { gap: u64, ends: bool },
    Stale,
}

fn step() -> impl Strategy<Value = PluginStep> {
    prop_oneof![
        2 => Just(PluginStep::Heartbeat),
        10 => (prop_oneof![20 => Just(1_u64), 1 => 0..4_u64], any::<bool>()).prop_map(|(gap, ends)| PluginStep::Update { gap, ends }),
        1 => Just(PluginStep::Stale),
    ]
}

proptest! {
    #[test]
    fn all_messages_up_to_the_first_wrong_one_are_received(all in prop::collection::vec(step(), 0..40)) {
        let now = Instant::now();
        let mut protocol = open(now);
        let (mut revision, mut is_whole, mut parts, mut received) = (0, false, Vec::new(), Vec::new());
        for step in all {
            let (wire, is_good) = match step {
                PluginStep::Heartbeat => (message(5, FromPlugin::Heartbeat(v1::Heartbeat {})), true),
                PluginStep::Stale => (message(6, update(revision + 1, false)), false),
                PluginStep::Update { gap, ends } => {
                    (message(5, update(revision + gap, ends)), gap == 1 && !(ends && is_whole))
                }
            };
            let event = protocol.receive(wire.clone(), now);
            prop_assert_eq!(event.is_ok(), is_good);
            let Ok(event) = event else { break };
            let Some(FromPlugin::Update(update)) = wire.message else { continue };
            revision = update.revision;
            parts.push(u128::from(revision));
            match event {
                StreamEvent::Snapshot { parts: got, .. } => {
                    prop_assert!(update.snapshot_end && !is_whole);
                    is_whole = true;
                    received.extend(got.iter().map(removed));
                }
                StreamEvent::Changed { revision: of, change } => {
                    prop_assert!(is_whole);
                    prop_assert_eq!(of, revision);
                    received.push(removed(&change));
                }
                other => prop_assert!(other == StreamEvent::Alive && !is_whole),
            }
        }
        prop_assert_eq!(received, if is_whole { parts } else { Vec::new() });
    }
}
