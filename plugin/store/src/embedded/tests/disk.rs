//! A disk that fills up or fails, and recovers or not.

use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::*;
use crate::embedded::open::Source;

/// Injected fault of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trouble {
    #[default]
    None,
    /// The file cannot grow.
    NoGrowth,
    /// Nothing can be written for lack of space.
    NoRoom,
    /// Fsync fails.
    Sync,
    /// Writes fail.
    Write,
}

/// A disk whose fault can change while a store runs on it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Trouble>>);

impl Disk {
    fn set(&self, trouble: Trouble) {
        *self.0.lock().unwrap() = trouble;
    }

    fn fail(&self, when: &[Trouble], kind: io::ErrorKind) -> io::Result<()> {
        if when.contains(&self.0.lock().unwrap()) { Err(kind.into()) } else { Ok(()) }
    }

    fn open(&self, directory: &Path) -> Result<EmbeddedStore, StoreError> {
        let disk = self.clone();
        let source = Source::with_backend(&directory.join("store"), 1024 * 1024, move |path| {
            let options =
                std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path);
            let inner = FileBackend::new(options.unwrap()).unwrap();
            Ok(Box::new(Shaky { inner, disk: disk.clone() }))
        });
        EmbeddedStore::start(source, HistoryLimits::default())
    }
}

#[derive(Debug)]
struct Shaky {
    inner: FileBackend,
    disk: Disk,
}

impl StorageBackend for Shaky {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.fail(&[Trouble::NoGrowth, Trouble::NoRoom], io::ErrorKind::StorageFull)?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.fail(&[Trouble::Sync], io::ErrorKind::Other)?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.fail(&[Trouble::NoRoom], io::ErrorKind::StorageFull)?;
        self.disk.fail(&[Trouble::Write], io::ErrorKind::Other)?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }
}

/// Commits until the disk is full; returns the number of commits.
async fn fill(store: &EmbeddedStore) -> usize {
    for n in 0.. {
        match store.commit(put(&format!("/fill/{n:05}"), [b'v'; 20_000])).await {
            Ok(_) => {}
            Err(CommitError::Full(_)) => return n,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

/// Commits as soon as the store accepts it again.
async fn commit_when_room(store: &EmbeddedStore, transaction: Transaction) -> Revision {
    loop {
        match store.commit(transaction.clone()).await {
            Ok(revision) => return revision,
            Err(CommitError::Full(_)) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let store = disk.open(directory.path()).unwrap();
    let mut watch = store.watch("", Revision::ZERO).await.unwrap();
    disk.set(Trouble::NoGrowth);
    let filled = fill(&store).await;
    assert_eq!(
        entries(&store).await.unwrap().len(),
        filled,
        "it stays readable, and holds what it acknowledged"
    );
    let failed = store.commit(put("/more", [b'v'; 20_000])).await;
    assert!(matches!(failed, Err(CommitError::Full(_))), "{failed:?}");

    disk.set(Trouble::None);
    let revision = commit_when_room(&store, put("/more", "1")).await;
    assert_eq!(entries(&store).await.unwrap().len(), filled + 1);
    let mut last = Revision::ZERO;
    while last < revision {
        last = watch.next().await.unwrap().revision;
    }
    store.close().await;
    assert_eq!(entries(&disk.open(directory.path()).unwrap()).await.unwrap().len(), filled + 1);
}

#[tokio::test]
async fn a_disk_too_full_to_open_the_store_is_waited_for() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let store = disk.open(directory.path()).unwrap();
    let first = store.commit(put("/a", "1")).await.unwrap();
    disk.set(Trouble::NoRoom);
    let failed = store.commit(put("/a", "2")).await;
    assert!(matches!(failed, Err(CommitError::Unknown(_) | CommitError::Full(_))), "{failed:?}");
    let failed = store.commit(put("/a", "3")).await;
    assert!(matches!(failed, Err(CommitError::Full(_))), "{failed:?}");
    assert!(matches!(store.get("/a").await, Err(StoreError::Full(_)) | Ok(Some(_))));
    disk.set(Trouble::None);
    assert!(commit_when_room(&store, put("/b", "1")).await > first);
    assert_eq!(entries(&store).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_failed_fsync_leaves_the_outcome_open_and_ends_writing() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let store = disk.open(directory.path()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    disk.set(Trouble::Sync);
    let failed = store.commit(put("/b", "1")).await;
    assert!(matches!(failed, Err(CommitError::Unknown(_))), "{failed:?}");
    disk.set(Trouble::None);
    let failed = store.commit(put("/c", "1")).await;
    assert!(matches!(failed, Err(CommitError::Unavailable(_))), "a later fsync proves nothing: {failed:?}");
    store.close().await;

    let store = disk.open(directory.path()).unwrap();
    let keys: Vec<_> = entries(&store).await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert!(keys == ["/a"] || keys == ["/a", "/b"], "{keys:?}");
    store.commit(put("/c", "1")).await.unwrap();
}

#[tokio::test]
async fn a_failing_disk_ends_writing() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let store = disk.open(directory.path()).unwrap();
    store.commit(put("/a", "1")).await.unwrap();
    disk.set(Trouble::Write);
    let failed = store.commit(put("/b", "1")).await;
    assert!(matches!(failed, Err(CommitError::Unknown(_) | CommitError::Unavailable(_))), "{failed:?}");
    disk.set(Trouble::None);
    let failed = store.commit(put("/c", "1")).await;
    assert!(matches!(failed, Err(CommitError::Unavailable(_))), "{failed:?}");
}

#[tokio::test]
async fn a_store_does_not_open_on_a_full_disk() {
    let (directory, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    disk.set(Trouble::NoRoom);
    assert!(matches!(disk.open(directory.path()), Err(StoreError::Full(_))));
    disk.set(Trouble::None);
    disk.open(directory.path()).unwrap().commit(put("/a", "1")).await.unwrap();
}
