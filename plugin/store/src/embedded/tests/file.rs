//! Files that are not what they should be.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redb::{Database, TableDefinition};

use super::*;
use crate::embedded::layout::{FORMAT, META, META_FORMAT};

/// Returns the error of opening `path`, whose file stays as it was.
fn refused(path: &Path) -> StoreError {
    let before = std::fs::read(path).ok();
    let error = EmbeddedStore::open(path).unwrap_err();
    assert!(before == std::fs::read(path).ok(), "the file was changed: {error}");
    error
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    (directory, path)
}

/// A closed store with some entries.
async fn written(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    for n in 0..200 {
        store.commit(put(&format!("/{n}"), [b'v'; 300])).await.unwrap();
    }
    store.close().await;
}

#[tokio::test]
async fn a_file_in_use_is_refused_until_it_is_closed() {
    let (_directory, path) = place();
    let store = EmbeddedStore::open(&path).unwrap();
    let error = refused(&path);
    assert_eq!(error, StoreError::Locked { path: path.display().to_string() });
    assert!(error.to_string().contains("two plugins"));
    store.close().await;
    EmbeddedStore::open(&path).unwrap().close().await;
}

#[tokio::test]
async fn a_new_file_is_for_its_owner_alone() {
    let (_directory, path) = place();
    let store = EmbeddedStore::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    store.close().await;
}

#[test]
fn other_files_are_refused_untouched() {
    let (directory, path) = place();
    for content in ["x", "not a store\n", &"long ".repeat(100_000)] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&path);
        assert!(matches!(error, StoreError::Foreign { .. } | StoreError::Damaged { .. }), "{error}");
    }
    assert!(matches!(refused(directory.path()), StoreError::Foreign { .. }));
    assert!(matches!(refused(Path::new("/dev/null")), StoreError::Foreign { .. }));
}

#[test]
fn a_database_of_another_program_is_refused() {
    let (_directory, path) = place();
    let transaction_of = |database: &Database| database.begin_write().unwrap();
    let database = Database::create(&path).unwrap();
    let transaction = transaction_of(&database);
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    match EmbeddedStore::open(&path).unwrap_err() {
        StoreError::Foreign { reason, .. } => assert!(reason.contains("theirs"), "{reason}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (_directory, path) = place();
    written(&path).await;
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert(META_FORMAT, FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = EmbeddedStore::open(&path).unwrap_err();
    let known = FORMAT;
    assert_eq!(error, StoreError::NewerFormat { path: path.display().to_string(), found: known + 1, known });
}

#[test]
fn a_missing_directory_is_named() {
    let (directory, _) = place();
    let missing = directory.path().join("none");
    let error = refused(&missing.join("store"));
    assert_eq!(error, StoreError::DirectoryMissing { directory: missing.display().to_string() });
}

#[test]
fn a_file_of_others_is_refused() {
    let (_directory, path) = place();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        return println!("skipped: this user may read any file");
    }
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert_eq!(error, StoreError::Permission { path: path.display().to_string() });
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_done_again() {
    let (_directory, path) = place();
    std::fs::write(&path, "").unwrap();
    EmbeddedStore::open(&path).unwrap().close().await;
    std::fs::remove_file(&path).unwrap();
    drop(Database::create(&path).unwrap());
    let store = EmbeddedStore::open(&path).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    store.close().await;
}

/// Opens a file with any content, reads all of it and writes to it. Must end, and without a panic of ours.
async fn try_everything(path: &Path) {
    let Ok(store) = EmbeddedStore::open(path) else { return };
    let _ = entries(&store).await;
    let _ = store.get("/100").await;
    for n in 0..20 {
        let _ = store.commit(put(&format!("/{n}"), [b'w'; 300])).await;
    }
    store.close().await;
}

#[test]
fn a_damaged_file_is_an_error_and_no_crash() {
    let (_directory, path) = place();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(written(&path));
    let sound = std::fs::read(&path).unwrap();
    // Most of the file has never been used: damage where the data is.
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    let damage = (0..=used, any::<u8>(), 1..64_usize, any::<bool>());
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&damage, |(at, byte, length, cut)| {
            let mut file = sound.clone();
            if cut {
                file.truncate(at);
            } else {
                let end = file.len().min(at + length);
                file[at..end].fill(byte);
            }
            std::fs::write(&path, file).unwrap();
            runtime.block_on(try_everything(&path));
            Ok(())
        })
        .unwrap();
}
