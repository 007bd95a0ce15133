use std::collections::{BTreeSet, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proto::agent::v1;
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use super::file::{decode, encode};
use super::*;
use crate::configuration::fixture::{backend, id, listener, pool, update};
use crate::configuration::{Change, Configuration, in_probation};
use crate::verdicts::KnownVerdict;

fn memory(update: v1::Update) -> Memory {
    let known = KnownVerdict { up: false, reason: "connection refused".to_owned(), since_ms: 7 };
    let configuration = Configuration::default().changed(Change::try_from(update).unwrap());
    let unproven: BTreeSet<Uuid> = in_probation(&configuration).collect();
    // What is refused is not kept: the plugin says it again.
    let configuration = Configuration { refused: Default::default(), ..configuration };
    Memory { installation: id(1), configuration, down: HashMap::from([(id(2), known)]), unproven }
}

fn some() -> Memory {
    let backends = vec![backend(1), v1::Backend { probation: true, ..backend(2) }];
    memory(v1::Update { pools: vec![pool(1, backends)], ..v1::Update::default() })
}

#[test]
fn a_life_finds_what_the_one_before_left() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("a/b");
    let first = Directory::open(&state).unwrap();
    assert_eq!(first.load().unwrap(), Loaded::Nothing);
    first.save(&some()).unwrap();
    assert!(matches!(Directory::open(&state), Err(DiskError::InUse { .. })));
    drop(first);
    // A crash in the middle of a write leaves this.
    std::fs::write(state.join("configuration.new"), "half").unwrap();
    let second = Directory::open(&state).unwrap();
    assert_eq!(second.load().unwrap(), Loaded::Memory(Box::new(some())));
    second.forget().unwrap();
    assert_eq!(second.load().unwrap(), Loaded::Nothing);
}

#[test]
fn what_others_can_read_or_replace_is_refused_with_what_to_run() {
    let state = tempfile::tempdir().unwrap();
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let refused = || Directory::open(state.path()).err().map(|error| error.to_string());
    chmod(state.path(), 0o755);
    Directory::open(state.path()).unwrap().save(&some()).unwrap();
    chmod(state.path(), 0o777);
    let error = refused().unwrap();
    assert!(error.contains("--state-dir") && error.contains("run chmod 755"), "{error}");
    chmod(state.path(), 0o700);
    let file = state.path().join("configuration");
    chmod(&file, 0o666);
    let error = refused().unwrap();
    assert!(error.contains("0666") && error.contains("run chmod 6"), "{error}");
    chmod(&file, 0o600);
    assert_eq!(refused(), None);
}

#[test]
fn a_file_that_cannot_be_used_is_moved_aside_with_the_reason() {
    let mut newer = encode(&some());
    newer[11] = 10;
    for (bytes, part) in [
        (b"".to_vec(), "cut short"),
        (b"something else, long enough to have a header".to_vec(), "begin"),
        (newer, "newer release"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let directory = Directory::open(state.path()).unwrap();
        std::fs::write(state.path().join("configuration"), &bytes).unwrap();
        let Loaded::Damaged { aside, why } = directory.load().unwrap() else { panic!("{part}") };
        assert!(why.contains(part), "{why}");
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
        assert_eq!(directory.load().unwrap(), Loaded::Nothing);
    }
}

#[test]
fn an_agent_that_does_not_know_what_a_listener_asks_for_does_not_serve_it_without() {
    let cidrs = || vec!["10.0.0.0/8".to_owned()];
    let version_of = |listener: v1::Listener, pool: v1::Pool| {
        let update = v1::Update { listeners: vec![listener], pools: vec![pool], ..v1::Update::default() };
        let memory = memory(update);
        let bytes = encode(&memory);
        assert_eq!(decode(&bytes).unwrap(), memory);
        bytes[11]
    };
    let version = |listener: v1::Listener, header: v1::ProxyProtocol| {
        version_of(listener, v1::Pool { proxy_protocol: header.into(), ..pool(1, Vec::new()) })
    };
    let none = v1::ProxyProtocol::Unspecified;
    assert_eq!(version(listener(1), none), 1);
    assert_eq!(
        version(v1::Listener { allowed_cidrs: cidrs(), ..listener(1) }, none),
        2,
        "it refuses what is not 1"
    );
    assert_eq!(
        version(v1::Listener { trusted_proxies: cidrs(), ..listener(1) }, none),
        3,
        "nor one without headers"
    );
    assert_eq!(version(listener(1), v1::ProxyProtocol::V2), 3);
    let drains = v1::Pool { drain_timeout_ms: Some(0), ..pool(1, Vec::new()) };
    assert_eq!(version_of(listener(1), drains), 4, "nor one that cuts no connections");
    for limited in [
        v1::Listener { client_connection_limit: 1, ..listener(1) },
        v1::Listener { connection_rate: 1, ..listener(1) },
        v1::Listener { client_connection_rate: 1, ..listener(1) },
        v1::Listener { bandwidth_limit: 1, ..listener(1) },
    ] {
        assert_eq!(version_of(limited, pool(1, Vec::new())), 5, "nor one that does not count clients");
    }
    let bounded = pool(1, vec![v1::Backend { connection_limit: Some(0), ..backend(1) }]);
    let queued = v1::Pool { queue_limit: 1, ..pool(1, Vec::new()) };
    for pool in [bounded, queued] {
        assert_eq!(version_of(listener(1), pool), 5, "nor one that does not bound backends");
    }
    let checks = v1::PassiveHealthCheck {
        consecutive_failures: 5,
        ejection_ms: 10_000,
        max_ejection_ms: 10_000,
        max_ejected_percent: 50,
    };
    for pool in [
        v1::Pool { slow_start_ms: 1, ..pool(1, Vec::new()) },
        v1::Pool { passive_health_check: Some(checks), queue_limit: 1, ..pool(1, Vec::new()) },
    ] {
        assert_eq!(
            version_of(listener(1), pool),
            6,
            "nor one that sends backends their connections otherwise"
        );
    }
    let half_closing = v1::Listener { half_close_timeout_ms: 1, bandwidth_limit: 1, ..listener(1) };
    assert_eq!(version_of(half_closing, pool(1, Vec::new())), 7, "nor one that ends connections otherwise");
    let range = v1::Listener { port_count: 2, ..listener(1) };
    assert_eq!(version_of(range, pool(1, Vec::new())), 8, "nor one that listens on the first port alone");
    let weighted = |number| v1::WeightedPool { pool_id: id(number).to_string(), weight: 1 };
    let divided = v1::Listener { weighted_pools: vec![weighted(1), weighted(2)], ..listener(1) };
    assert_eq!(version_of(divided, pool(1, Vec::new())), 9, "nor one that sends its clients to no pool");
}

#[test]
fn who_was_up_is_not_on_probation_in_the_next_life() {
    let memory = Memory { unproven: BTreeSet::new(), ..some() };
    let next = decode(&encode(&memory)).unwrap();
    assert_eq!(in_probation(&next.configuration).count(), 0);
    assert_eq!(in_probation(&decode(&encode(&some())).unwrap().configuration).collect::<Vec<_>>(), [id(2)]);
}

#[test]
fn the_writer_writes_the_latest_and_at_its_end() {
    let state = tempfile::tempdir().unwrap();
    let directory = Directory::open(state.path()).unwrap();
    let writer = Writer::start(directory.clone()).unwrap();
    let written = writer.written();
    for number in 0..100 {
        writer.save(Memory { installation: id(number), ..some() });
    }
    drop(writer);
    let Loaded::Memory(memory) = directory.load().unwrap() else { panic!() };
    assert_eq!(memory.installation, id(99));
    assert!(written.borrow().writes <= 2, "{written:?}");
}

#[tokio::test]
async fn a_disk_that_refuses_is_told_and_tried_again() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("state");
    let directory = Directory::open(&path).unwrap();
    // Also root cannot write a file in the place of a directory.
    std::fs::create_dir(path.join("configuration.new")).unwrap();
    let writer = Writer::start(directory.clone()).unwrap();
    let mut written = writer.written();
    let long = Duration::from_secs(20);
    writer.save(some());
    tokio::time::timeout(long, written.wait_for(|it| it.is_behind)).await.unwrap().unwrap();
    std::fs::remove_dir(path.join("configuration.new")).unwrap();
    tokio::time::timeout(long, written.wait_for(|it| it.writes == 1 && !it.is_behind))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(directory.load().unwrap(), Loaded::Memory(Box::new(some())));
}

#[tokio::test]
async fn a_disk_that_hangs_costs_no_memory_however_often_the_state_changes() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("state");
    let directory = Directory::open(&path).unwrap();
    // Whoever opens it for writing waits for a reader.
    let new = path.join("configuration.new");
    nix::unistd::mkfifo(&new, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let writer = Writer::start(directory.clone()).unwrap();
    let mut written = writer.written();
    let held: Vec<_> = (0..100)
        .map(|number| {
            let memory = Memory { installation: id(number), ..some() };
            let weak = Arc::downgrade(memory.configuration.pools.values().next().unwrap());
            writer.save(memory);
            weak
        })
        .collect();
    let kept = held.iter().filter(|state| state.strong_count() > 0).count();
    assert!(kept <= 2, "{kept} states: one that is written, and one that waits");
    // The disk answers again.
    let reader = std::fs::File::options().read(true).write(true).open(&new).unwrap();
    let long = Duration::from_secs(20);
    tokio::time::timeout(long, written.wait_for(|it| it.failures > 0)).await.unwrap().unwrap();
    std::fs::remove_file(&new).unwrap();
    drop(reader);
    tokio::time::timeout(long, written.wait_for(|it| it.writes > 0)).await.unwrap().unwrap();
    drop(writer);
    let Loaded::Memory(memory) = directory.load().unwrap() else { panic!() };
    assert_eq!(memory.installation, id(99));
}

proptest! {
    #[test]
    fn what_is_written_is_read(update in update()) {
        let memory = memory(update);
        let read = decode(&encode(&memory)).unwrap();
        // But for the probation of backends that are not checked, which says nothing.
        prop_assert_eq!(&read.configuration.networks, &memory.configuration.networks);
        prop_assert_eq!(&read.configuration.listeners, &memory.configuration.listeners);
        prop_assert!(read.configuration.pools.keys().eq(memory.configuration.pools.keys()));
        prop_assert!(in_probation(&read.configuration).eq(in_probation(&memory.configuration)));
        prop_assert_eq!((&read.down, &read.unproven), (&memory.down, &memory.unproven));
        prop_assert_eq!(decode(&encode(&read)).unwrap(), read);
    }

    #[test]
    fn no_damage_is_taken_for_another_configuration(update in update(), at: prop::sample::Index, bit in 0..8_u8, cut: prop::sample::Index) {
        let good = encode(&memory(update));
        let memory = decode(&good).unwrap();
        let mut flipped = good.clone();
        flipped[at.index(good.len())] ^= 1 << bit;
        // A version of the format that this release reads, in the place of another one, changes nothing.
        prop_assert!(decode(&flipped).ok().is_none_or(|read| read == memory));
        prop_assert!(decode(&good[..cut.index(good.len())]).is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        fuzzing::stored(&bytes);
    }

    #[test]
    fn nor_do_contents_that_were_changed(
        update in update(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut content = Stored::from(&memory(update)).encode_to_vec();
        for (index, byte) in changes {
            let at = index.index(content.len());
            content[at] = byte;
        }
        content.truncate(cut.index(content.len() * 4).max(1));
        fuzzing::stored(&content);
    }
}
