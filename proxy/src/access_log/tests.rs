//! The access log as the data plane sees it.

use std::fs;
use std::time::Duration;

use super::line::tests::record;
use super::*;

fn settings(directory: &std::path::Path, sample: f64) -> AccessLogSettings {
    AccessLogSettings {
        node: "n".to_owned(),
        sample,
        directory: Some(directory.to_owned()),
        lines_per_second: 1_000_000,
        max_file_bytes: 1 << 20,
        syslog: None,
    }
}

fn end(log: &AccessLog, project: &str) {
    let record = record(project);
    log.ended(&record.labels, &|| record.clone());
}

fn lines(directory: &std::path::Path, project: &str) -> usize {
    let text = fs::read_to_string(directory.join(format!("{project}.log"))).unwrap_or_default();
    text.lines().count()
}

/// Waits until a condition holds.
fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "it does not come true");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn projects_have_their_own_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(settings(directory.path(), 1.0)).unwrap();
    for project in ["web", "shop", "web"] {
        end(&log, project);
    }
    wait_until(|| lines(directory.path(), "web") == 2 && lines(directory.path(), "shop") == 1);
    assert_eq!(log.counts(), LogCounts { written: 3, lost: 0 });
}

#[test]
fn a_sample_has_about_its_part_of_the_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(settings(directory.path(), 0.25)).unwrap();
    for _ in 0..4_000 {
        end(&log, "web");
    }
    let counts = log.counts();
    drop(log);
    let expected = 800..1_200;
    wait_until(|| expected.contains(&lines(directory.path(), "web")) || counts.lost > 0);
}

#[test]
fn a_flood_of_one_listener_is_bounded_and_counted() {
    let now = Instant::now();
    let mut rates = LineRates { most: 3, second: now, lines: HashMap::new() };
    let mut admitted = |listener, at| (0..10).filter(|_| rates.admit(Uuid::from_u128(listener), at)).count();
    assert_eq!((admitted(1, now), admitted(2, now), admitted(1, now)), (3, 3, 0));
    assert_eq!(admitted(1, now + Duration::from_secs(1)), 3);
    assert_eq!(rates.lines.len(), 1, "what was before is forgotten");

    let directory = tempfile::tempdir().unwrap();
    let few = AccessLogSettings { lines_per_second: 2, ..settings(directory.path(), 1.0) };
    let log = AccessLog::start(few).unwrap();
    let began = Instant::now();
    (0..100).for_each(|_| end(&log, "web"));
    if began.elapsed() < Duration::from_secs(1) {
        assert!(log.counts().lost >= 96, "{:?}", log.counts());
    }
}

#[test]
fn without_a_place_or_a_sample_no_record_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = AccessLogSettings { directory: None, ..settings(directory.path(), 1.0) };
    for settings in [nowhere, settings(directory.path(), 0.0)] {
        let log = AccessLog::start(settings).unwrap();
        let labels = record("web").labels;
        log.ended(&labels, &|| unreachable!("nobody wants it"));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn all_connections_are_there_at_a_sample_of_one_and_none_at_nought() {
    assert_eq!((chance(1.0), chance(0.0), chance(-1.0), chance(2.0)), (1 << 32, 0, 0, 1 << 32));
    assert!((chance(0.01) as f64 / 2_f64.powi(32) - 0.01).abs() < 1e-6);
}
