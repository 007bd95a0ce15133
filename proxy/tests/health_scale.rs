//! Ten thousand targets. In a process of its own, whose memory and descriptors it measures.
#![cfg(test)]

#[path = "health/world.rs"]
mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_proxy::health::{
    Check, CheckKind, CheckerConfig, HealthChecker, Report, Target, TargetKey, Targets,
};
use fiberlb_proxy::sockets::SocketFactory;
use uuid::Uuid;

use crate::world::World;

const TARGETS: u32 = 10_000;

#[tokio::test]
async fn ten_thousand_targets_are_cheap_to_hold() {
    let Some(world) = World::new("ten_thousand_targets_are_cheap_to_hold") else { return };
    let listener = world.listen("0.0.0.0:80");
    // On a busy machine a probe is looked at late, and its connection gets through.
    let backends = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let (sender, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
    let report = move |report| {
        if let Report::Verdict(verdict) = report {
            let _ = sender.send(verdict);
        }
    };
    let checker = HealthChecker::start(CheckerConfig::default(), report).unwrap();
    let (memory, files) = (resident(), descriptors());
    let began = Instant::now();
    checker.apply(targets(&world)).unwrap();
    for _ in 0..TARGETS {
        let verdict = tokio::time::timeout(Duration::from_secs(60), verdicts.recv()).await.unwrap().unwrap();
        assert!(verdict.up, "{}", verdict.reason);
    }
    // First probes take the delay, 2 s, on an idle machine; a queue that overflows on a busy one costs a second try.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let snapshot = checker.snapshot().await.unwrap();
    assert_eq!(snapshot.verdicts.len(), usize::try_from(TARGETS).unwrap());
    drop(snapshot);
    let metrics = checker.metrics();
    assert_eq!((metrics.up, metrics.down), (u64::from(TARGETS), 0), "{metrics:?}");
    let grown = resident().saturating_sub(memory);
    assert!(grown < 40 * 1024 * 1024, "{grown} bytes for {TARGETS} targets, with their verdicts twice");
    assert!(
        descriptors() < files + 2000,
        "{} descriptors for probes that end at once",
        descriptors() - files
    );

    checker.apply(Targets::default()).unwrap();
    assert!(checker.snapshot().await.unwrap().verdicts.is_empty());
    backends.abort();
    assert!(backends.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(descriptors(), files - 1, "sockets are left");
}

fn targets(world: &Arc<World>) -> Targets {
    let seconds = Duration::from_secs;
    let check = Arc::new(Check::new(CheckKind::Tcp, seconds(2), seconds(2), 1, 10).unwrap());
    let network = Uuid::from_u128(1);
    let target = |number: u32| {
        let address = ([127, 1, (number / 250) as u8, (number % 250) as u8], 80).into();
        let key = TargetKey { network, address, check: Arc::clone(&check) };
        Target { key, backends: vec![Uuid::from_u128(u128::from(number))], has_route: true }
    };
    let factory: Arc<dyn SocketFactory> = Arc::clone(world) as _;
    Targets { networks: HashMap::from([(network, factory)]), targets: (0..TARGETS).map(target).collect() }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
