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
        otlp: None,
    }
}

fn end(log: &AccessLog, project: &str) {
    log.listener(&record(project).labels).ended(&|| record(project));
}

fn lines(directory: &std::path::Path, project: &str) -> usize {
    let text = fs::read_to_string(directory.join(format!("{project}.log"))).unwrap_or_default();
    text.lines().count()
}

#[test]
fn projects_have_their_own_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(settings(directory.path(), 1.0)).unwrap();
    for project in ["web", "shop", "web"] {
        end(&log, project);
    }
    log.flush();
    assert_eq!((lines(directory.path(), "web"), lines(directory.path(), "shop")), (2, 1));
    assert_eq!(log.counts(), LogCounts { written: 3, lost: 0 });
}

#[test]
fn a_sample_has_about_its_part_of_the_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(settings(directory.path(), 0.25)).unwrap();
    for _ in 0..4_000 {
        end(&log, "web");
    }
    log.flush();
    assert!((800..1_200).contains(&lines(directory.path(), "web")) || log.counts().lost > 0);
}

#[test]
fn a_flood_of_one_project_is_bounded_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let few = AccessLogSettings { lines_per_second: 2, ..settings(directory.path(), 1.0) };
    let log = AccessLog::start(few).unwrap();
    let sinks = [1, 2].map(|id| {
        let labels = RecordLabels { listener: uuid::Uuid::from_u128(id), ..(*record("web").labels).clone() };
        log.listener(&labels)
    });
    let began = Instant::now();
    for _ in 0..50 {
        sinks.iter().for_each(|sink| sink.ended(&|| record("web")));
    }
    end(&log, "shop");
    if began.elapsed() < Duration::from_secs(1) {
        assert!(log.counts().lost >= 96, "{:?}", log.counts());
    }
    log.flush();
    assert_eq!(lines(directory.path(), "shop"), 1, "another project's are there");
    let counts = log.counts();
    assert_eq!(counts.written + counts.lost, 101);
    assert_eq!(counts.written as usize, 1 + lines(directory.path(), "web"));
}

#[test]
fn what_a_full_disk_loses_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    // A device that takes nothing, in place of the project's file.
    std::os::unix::fs::symlink("/dev/full", directory.path().join("web.log")).unwrap();
    let log = AccessLog::start(settings(directory.path(), 1.0)).unwrap();
    (0..100).for_each(|_| end(&log, "web"));
    log.flush();
    assert_eq!(log.counts(), LogCounts { written: 0, lost: 100 });
}

#[test]
fn without_a_place_or_a_sample_no_record_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = AccessLogSettings { directory: None, ..settings(directory.path(), 1.0) };
    for settings in [nowhere, settings(directory.path(), 0.0)] {
        let log = AccessLog::start(settings).unwrap();
        log.listener(&record("web").labels).ended(&|| unreachable!("nobody wants it"));
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn all_connections_are_there_at_a_sample_of_one_and_none_at_nought() {
    assert_eq!((chance(1.0), chance(0.0), chance(-1.0), chance(2.0)), (1 << 32, 0, 0, 1 << 32));
    assert!((chance(0.01) as f64 / 2_f64.powi(32) - 0.01).abs() < 1e-6);
}
