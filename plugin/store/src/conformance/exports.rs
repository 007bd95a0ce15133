//! Export and import, which use nothing but the trait.

use std::path::Path;

use super::super::{CommitError, ExportSummary, ImportError, ImportMode, LineError, export, import};
use super::*;

fn open(backing: &impl Backing) -> Arc<dyn Store> {
    backing.open(HistoryLimits::default())
}

async fn filled(store: &dyn Store) -> Revision {
    let mut all: Vec<_> = (0..600).map(|n| put(&format!("/{n:03}"), r#"{"b": 1,"a":"é"}"#)).collect();
    all.push(Write::Put { key: "/bytes".into(), value: vec![0, 0xff, b'\n'] });
    commit(store, all).await
}

fn contents(entries: Vec<Entry>) -> Vec<(String, Vec<u8>)> {
    entries.into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect()
}

async fn refused_import(store: &dyn Store, path: &Path, mode: ImportMode) -> ImportError {
    soon(import(store, path, mode, "/fiberlb/leader")).await.unwrap_err()
}

pub(super) async fn an_export_comes_back_whole(backing: &impl Backing) {
    let (directory, store) = (tempfile::tempdir().unwrap(), open(backing));
    let path = directory.path().join("export.jsonl");
    let filled = filled(&*store).await;
    let before = contents(all(&*store, "").await);
    let summary = soon(export(&*store, &path, &[])).await.unwrap();
    assert_eq!(summary, ExportSummary { revision: filled, keys: 601 });
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "no draft is left");

    let target = MemoryStore::new();
    assert_eq!(
        soon(import(&target, &path, ImportMode::IntoEmpty, "/fiberlb/leader")).await.unwrap().keys,
        601
    );
    assert_eq!(contents(all(&target, "").await), before);
    commit(&*store, [put("/more", "1"), delete("/000"), put("/001", "changed")]).await;
    let summary = soon(import(&*store, &path, ImportMode::Replace, "/fiberlb/leader")).await.unwrap();
    assert_eq!((summary.keys, summary.removed, summary.exported_revision), (601, 1, filled));
    assert_eq!(contents(all(&*store, "").await), before);
    let again = directory.path().join("again.jsonl");
    soon(export(&target, &again, &[])).await.unwrap();
    if filled == soon(target.snapshot("")).await.unwrap().revision() {
        assert_eq!(
            std::fs::read(&again).unwrap(),
            std::fs::read(&path).unwrap(),
            "the export is reproducible"
        );
    }
    // The first line has the revision, and each line's check covers those before it.
    let body = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().skip(1).map(|line| line.split_once(',').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    assert!(body(&again) == body(&path), "the export is reproducible");
}

pub(super) async fn an_import_respects_what_is_there(backing: &impl Backing) {
    let (directory, store) = (tempfile::tempdir().unwrap(), open(backing));
    let path = directory.path().join("export.jsonl");
    soon(export(&*store, &path, &[])).await.unwrap();
    assert_eq!(soon(import(&*store, &path, ImportMode::IntoEmpty, "/fiberlb/leader")).await.unwrap().keys, 0);
    commit(&*store, [put("/a", "1")]).await;
    match refused_import(&*store, &path, ImportMode::IntoEmpty).await {
        ImportError::NotEmpty { key } => assert_eq!(key, "/a"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        soon(import(&*store, &path, ImportMode::Replace, "/fiberlb/leader")).await.unwrap().removed,
        1
    );
    assert!(all(&*store, "").await.is_empty());
    commit(&*store, [put("/a", "1"), put("/fiberlb/leader", "a process that has come meanwhile")]).await;
    match refused_import(&*store, &path, ImportMode::Replace).await {
        ImportError::Commit(CommitError::Conflict { keys }) => assert_eq!(keys, ["/fiberlb/leader"]),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn a_bad_export_changes_nothing(backing: &impl Backing) {
    let (directory, store) = (tempfile::tempdir().unwrap(), open(backing));
    let path = directory.path().join("export.jsonl");
    let filled = filled(&*store).await;
    soon(export(&*store, &path, &[])).await.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let bad = [
        (text.replacen("\"b\": 1", "\"b\": 2", 1), 2, LineError::Altered),
        (text[..text.len() - 1].to_owned(), 603, LineError::CutOff),
        (text[..text.len() / 2].to_owned(), 0, LineError::CutOff),
        (lines[..300].join("\n") + "\n", 301, LineError::CutOff),
        (text.clone() + "\n", 604, LineError::AfterEnd),
        (text.replace("\"version\":1", "\"version\":9"), 1, LineError::NewerVersion { found: 9 }),
        (String::new(), 1, LineError::CutOff),
        ("x".repeat(2_000_000), 1, LineError::TooLong),
    ];
    for (text, number, expected) in bad {
        std::fs::write(&path, text).unwrap();
        match refused_import(&*store, &path, ImportMode::Replace).await {
            ImportError::Line { line, reason, .. } => {
                assert_eq!(reason, expected);
                assert!(number == 0 || number == line, "line {line}, not {number}");
            }
            other => panic!("{other:?}"),
        }
    }
    let missing = refused_import(&*store, &directory.path().join("none"), ImportMode::Replace).await;
    assert!(matches!(missing, ImportError::File { .. }), "{missing:?}");
    assert_eq!(soon(store.snapshot("")).await.unwrap().revision(), filled, "nothing was written");
}
