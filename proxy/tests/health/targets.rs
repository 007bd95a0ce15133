//! Sets of targets that change while probes are in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proxy::health::{Check, CheckKind, CheckerConfig, Targets};
use uuid::Uuid;

use crate::backend::{Backend, Behaviour};
use crate::watch::{NETWORK, Watch, check, http, target};
use crate::world::World;

#[tokio::test]
async fn what_several_pools_share_is_probed_once() {
    let Some(world) = World::new("what_several_pools_share_is_probed_once") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    let pools = [check(http("200"), 1, 1), check(http("200"), 1, 1)];
    watch.apply(
        &world,
        vec![target(backend.address, &pools[0], &[1]), target(backend.address, &pools[1], &[2])],
    );
    let verdict = watch.verdict().await;
    assert_eq!(verdict.backends, [Uuid::from_u128(1), Uuid::from_u128(2)]);
    let metrics = watch.until(|metrics| metrics.ok >= 5).await;
    let requests = backend.requests().len() as u64;
    assert!(requests <= metrics.started + 1, "{requests} requests, {metrics:?}");
    assert_eq!((metrics.targets, watch.unread().len()), (1, 0));
}

#[tokio::test]
async fn the_same_address_of_two_networks_is_two_targets() {
    let Some(world) = World::new("the_same_address_of_two_networks_is_two_targets") else { return };
    let Some(empty) = World::new("the_same_address_of_two_networks_is_two_targets") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    let check = check(http("200"), 1, 1);
    let here = target(backend.address, &check, &[1]);
    let mut there = target(backend.address, &check, &[2]);
    there.key.network = Uuid::from_u128(8);
    let networks = HashMap::from([(NETWORK, world as _), (Uuid::from_u128(8), empty as _)]);
    watch.checker.apply(Targets { networks, targets: vec![here, there] }).unwrap();
    let mut verdicts = [watch.verdict().await, watch.verdict().await];
    verdicts.sort_by_key(|verdict| verdict.backends.clone());
    assert_eq!((verdicts[0].up, verdicts[1].up), (true, false));
    assert_eq!(verdicts[1].reason, "connection refused");
}

#[tokio::test]
async fn an_unchanged_target_keeps_its_verdict() {
    let Some(world) = World::new("an_unchanged_target_keeps_its_verdict") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let other = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    let check = check(http("200"), 1, 1);
    let first = target(backend.address, &check, &[1]);
    watch.apply(&world, vec![first.clone()]);
    watch.verdict().await;

    watch.apply(&world, vec![first.clone(), target(other.address, &check, &[2])]);
    assert_eq!(watch.verdict().await.backends, [Uuid::from_u128(2)]);

    // A backend that comes to share a verdict is told it, the others are not told again.
    let shared = target(backend.address, &check, &[3]);
    watch.apply(&world, vec![first, shared]);
    let verdict = watch.verdict().await;
    assert_eq!((verdict.up, verdict.backends), (true, vec![Uuid::from_u128(3)]));
    let started = watch.checker.metrics().started;
    let metrics = watch.until(|metrics| metrics.started > started + 3).await;
    assert_eq!((metrics.targets, metrics.up, watch.unread().len()), (1, 1, 0));
}

#[tokio::test]
async fn a_schedule_does_not_begin_anew_with_each_set() {
    let Some(world) = World::new("a_schedule_does_not_begin_anew_with_each_set") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let check =
        Arc::new(Check::new(http("200"), Duration::from_secs(60), Duration::from_secs(1), 1, 1).unwrap());
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check, &[1])]);
    watch.verdict().await;
    for port in 1..50 {
        let other = target(([192, 0, 2, 9], port).into(), &check, &[2]);
        watch.apply(&world, vec![target(backend.address, &check, &[1]), other]);
        watch.checker.snapshot().await.unwrap();
    }
    watch.until(|metrics| metrics.in_flight == 1).await;
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_removed_target_ends_at_once() {
    let Some(world) = World::new("a_removed_target_ends_at_once") else { return };
    let check =
        Arc::new(Check::new(CheckKind::Tcp, Duration::from_secs(5), Duration::from_secs(5), 1, 1).unwrap());
    let silent = target("192.0.2.9:80".parse().unwrap(), &check, &[1]);
    let mut watch = Watch::start();
    watch.apply(&world, vec![silent]);
    watch.until(|metrics| metrics.in_flight == 1).await;
    watch.apply(&world, vec![]);
    assert!(watch.checker.snapshot().await.unwrap().verdicts.is_empty());
    let metrics = watch.checker.metrics();
    assert_eq!((metrics.in_flight, metrics.targets, metrics.failed), (0, 0, 0));
    assert!(watch.unread().is_empty());
}

#[tokio::test]
async fn a_changed_check_begins_without_a_verdict() {
    let Some(world) = World::new("a_changed_check_begins_without_a_verdict") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 1), &[1])]);
    assert!(watch.verdict().await.up);
    watch.apply(&world, vec![target(backend.address, &check(http("204"), 1, 1), &[1])]);
    let verdict = watch.verdict().await;
    assert_eq!((verdict.up, verdict.reason.as_str()), (false, "HTTP 200, expected 204"));
    assert_eq!(watch.checker.metrics().up, 0);
}

#[tokio::test]
async fn a_namespace_that_was_made_anew_is_used_from_then_on() {
    let Some(world) = World::new("a_namespace_that_was_made_anew_is_used_from_then_on") else { return };
    let Some(empty) = World::new("a_namespace_that_was_made_anew_is_used_from_then_on") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    let targets = vec![target(backend.address, &check(http("200"), 1, 1), &[1])];
    watch.apply(&world, targets.clone());
    assert!(watch.verdict().await.up);
    watch.apply(&empty, targets);
    assert_eq!(watch.verdict().await.reason, "connection refused");
    watch.checker.snapshot().await.unwrap();
    assert_eq!(Arc::strong_count(&world), 1, "the old namespace is still held");
}

#[tokio::test]
async fn silent_backends_of_one_network_do_not_delay_another() {
    let Some(world) = World::new("silent_backends_of_one_network_do_not_delay_another") else { return };
    let Some(hostile) = World::new("silent_backends_of_one_network_do_not_delay_another") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::bounded(CheckerConfig { max_in_flight: 20, ..CheckerConfig::default() });
    let slow =
        Arc::new(Check::new(CheckKind::Tcp, Duration::from_secs(5), Duration::from_secs(5), 1, 1).unwrap());
    let mut targets: Vec<_> =
        (1..200).map(|port| target(([192, 0, 2, 9], port).into(), &slow, &[2])).collect();
    let hog = Uuid::from_u128(8);
    targets.iter_mut().for_each(|target| target.key.network = hog);
    let networks: HashMap<_, _> = HashMap::from([(NETWORK, Arc::clone(&world) as _), (hog, hostile as _)]);
    watch.checker.apply(Targets { networks: networks.clone(), targets: targets.clone() }).unwrap();
    watch.until(|metrics| metrics.in_flight == 10).await;

    targets.push(target(backend.address, &check(http("200"), 1, 1), &[1]));
    watch.checker.apply(Targets { networks, targets }).unwrap();
    assert!(watch.verdict().await.up);
    let metrics = watch.until(|metrics| metrics.ok >= 10).await;
    // Before any of the silent ones has ended and made room.
    assert_eq!(metrics.failed, 0, "the network that answers was delayed");
    let metrics = watch.until(|metrics| metrics.late > 0).await;
    assert!(metrics.in_flight <= 20, "{metrics:?}");
}
