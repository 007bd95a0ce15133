//! Verdicts that turn, and who is told.

use std::sync::Arc;

use fiberlb_proxy::health::VerdictSnapshot;
use uuid::Uuid;

use crate::backend::{Backend, Behaviour};
use crate::watch::{DELAY, Watch, check, http, target};
use crate::world::World;

#[tokio::test]
async fn verdicts_turn_after_fall_and_rise() {
    let Some(world) = World::new("verdicts_turn_after_fall_and_rise") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 3, 2), &[1])]);
    let up = watch.verdict().await;
    assert_eq!((up.up, up.sequence, watch.checker.metrics().up), (true, 1, 1));

    backend.becomes(Behaviour::code(500));
    let down = watch.verdict().await;
    assert_eq!((down.up, down.reason.as_str(), down.sequence), (false, "HTTP 500, expected 200", 2));
    let metrics = watch.checker.metrics();
    assert!(metrics.failed >= 2 && metrics.down == 1 && metrics.up == 0, "{metrics:?}");

    backend.becomes(Behaviour::code(200));
    let good = metrics.ok;
    let up = watch.verdict().await;
    assert_eq!((up.up, up.sequence), (true, 3));
    assert!(watch.checker.metrics().ok >= good + 3);
    assert!(up.at >= down.at);
}

#[tokio::test]
async fn only_turns_are_told() {
    let Some(world) = World::new("only_turns_are_told") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 3), &[1])]);
    watch.verdict().await;
    // One bad probe now and then is less than `fall`.
    for round in 1..4 {
        let failed = watch.checker.metrics().failed;
        backend.becomes(Behaviour::code(500));
        watch.until(|metrics| metrics.failed > failed).await;
        backend.becomes(Behaviour::code(200));
        let good = watch.checker.metrics().ok;
        watch.until(|metrics| metrics.ok > good).await;
        assert!(watch.unread().is_empty(), "in round {round}");
    }
}

#[tokio::test]
async fn sockets_are_as_new_whatever_the_last_backend_did() {
    let Some(world) = World::new("sockets_are_as_new_whatever_the_last_backend_did") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 1), &[1])]);
    assert!(watch.verdict().await.up);
    let bad = [
        Behaviour::Silent,
        Behaviour::Closes,
        Behaviour::Resets,
        Behaviour::Endless("no HTTP"),
        Behaviour::Endless("HTTP/1.1 500 Oh\r\n"),
        Behaviour::Says("HTTP/1.1 20".to_owned()),
    ];
    for behaviour in bad {
        backend.becomes(behaviour.clone());
        assert!(!watch.verdict().await.up, "{behaviour:?}");
        backend.becomes(Behaviour::code(200));
        let verdict = watch.verdict().await;
        assert!(verdict.up, "after {behaviour:?}: {}", verdict.reason);
    }
}

#[tokio::test]
async fn a_snapshot_has_all_verdicts_and_their_number() {
    let Some(world) = World::new("a_snapshot_has_all_verdicts_and_their_number") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    assert_eq!(watch.checker.snapshot().await.unwrap(), VerdictSnapshot::default());
    let check = check(http("200"), 1, 1);
    let refused = "127.0.0.1:9".parse().unwrap();
    watch.apply(&world, vec![target(backend.address, &check, &[1]), target(refused, &check, &[2])]);
    let mut told = vec![watch.verdict().await, watch.verdict().await];
    let snapshot = watch.checker.snapshot().await.unwrap();
    assert_eq!(snapshot.sequence, 2);
    let mut known: Vec<_> = snapshot.verdicts;
    known.sort_by_key(|verdict| verdict.backends.clone());
    told.sort_by_key(|verdict| verdict.backends.clone());
    for (known, told) in known.iter().zip(&told) {
        assert_eq!(
            (&known.key, known.up, &known.reason, known.at),
            (&told.key, told.up, &told.reason, told.at)
        );
    }
    assert_eq!(known.len(), 2);
    assert_eq!(known[1].backends, [Uuid::from_u128(2)]);
}

#[tokio::test]
async fn the_first_backends_by_id_are_told_with_their_latest_probe() {
    let Some(world) = World::new("the_first_backends_by_id_are_told_with_their_latest_probe") else { return };
    let silent = Backend::start(&world, "127.0.0.1:0", Behaviour::Silent);
    let mut watch = Watch::start();
    let check = check(http("200"), 1, 1);
    let refused = "127.0.0.1:9".parse().unwrap();
    let targets = vec![target(silent.address, &check, &[3, 1]), target(refused, &check, &[2])];
    watch.apply(&world, targets);
    let verdicts = [watch.verdict().await, watch.verdict().await];
    assert!(verdicts.iter().all(|verdict| !verdict.up));
    let told = watch.checker.backends(2).unwrap();
    let known: Vec<_> = told.iter().map(|it| (it.backend.as_u128(), it.address, it.up)).collect();
    assert_eq!(known, [(1, silent.address, Some(false)), (2, refused, Some(false))]);
    assert!(told[0].took.unwrap() >= DELAY, "as long as it may take: {told:?}");
    assert!(told[1].took.is_some(), "{told:?}");
}

#[tokio::test]
async fn the_checker_ends_with_its_handle() {
    let Some(world) = World::new("the_checker_ends_with_its_handle") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 1), &[1])]);
    watch.verdict().await;
    let weak = Arc::downgrade(&world);
    drop(watch);
    drop(world);
    assert!(weak.upgrade().is_none(), "the checker still holds the network");
}
