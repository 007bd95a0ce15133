//! The file under redb, watched for faults.
//!
//! redb stops for good at the first fault of its file and does not report which one. The store must know: a
//! full disk passes once there is room, while after a failed fsync the content of the disk is unknown.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

/// The first fault of a file, shared between the file and its observers.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<Option<Fault>>>);

/// Kind of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A write found no room. What was durable before still is.
    NoRoom(String),
    /// An fsync failed: writes since the previous one may or may not be on the disk.
    Sync(String),
    /// The disk failed in another way.
    Device(String),
}

impl Faults {
    /// The first fault, if there was one.
    pub(super) fn first(&self) -> Option<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }
}

/// A storage backend that records the first fault of `inner`.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    faults: Faults,
}

impl Watched {
    /// Watches `inner`, reporting to `faults`.
    pub(super) fn new(inner: Box<dyn StorageBackend>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn note<T>(&self, action: &str, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.faults.record(classify(action, error));
        }
        result
    }
}

fn classify(action: &str, error: &io::Error) -> Fault {
    let text = format!("{action}: {error}");
    match error.kind() {
        _ if action == SYNC => Fault::Sync(text),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Fault::NoRoom(text)
        }
        _ => Fault::Device(text),
    }
}

const SYNC: &str = "fsync";

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.note("length", self.inner.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note("read", self.inner.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note("resize", self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(SYNC, self.inner.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note("write", self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
