//! Opens a store file, and explains why one cannot be opened.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use super::file::{Fault, Faults, Watched};
use super::layout::{self, Content, ENTRIES, FORMAT, META, META_FORMAT, META_REVISION};
use super::panics::caught;
use crate::{Revision, StoreError, directory_of};

/// Location of a store's bytes; opened at the start and again after the disk was full.
pub(super) struct Source {
    path: PathBuf,
    cache_bytes: usize,
    backend: Box<BackendOf>,
}

type BackendOf = dyn Fn(&Path) -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync;

/// An opened store.
pub(super) struct Opened {
    /// The database, with its tables made.
    pub(super) database: Database,
    /// Reports faults of its file.
    pub(super) faults: Faults,
    /// The revision of its newest transaction.
    pub(super) revision: Revision,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Source {
    /// The file `path`.
    pub(super) fn file(path: &Path, cache_bytes: usize) -> Self {
        Self::with_backend(path, cache_bytes, |path| {
            let backend = FileBackend::new(open_file(path)?).map_err(|error| database_error(path, error))?;
            Ok(Box::new(backend))
        })
    }

    /// The bytes that `backend` makes, called `path` in messages.
    pub(super) fn with_backend(
        path: &Path,
        cache_bytes: usize,
        backend: impl Fn(&Path) -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { path: path.to_owned(), cache_bytes, backend: Box::new(backend) }
    }

    /// The path, for messages.
    pub(super) fn name(&self) -> Arc<str> {
        self.path.display().to_string().into()
    }

    /// Opens the store; creates it if it does not exist yet. After a crash this reads the whole file.
    pub(super) fn open(&self) -> Result<Opened, StoreError> {
        // redb may panic on a file that something else has damaged.
        caught(|| self.open_trusting())
            .unwrap_or_else(|_| Err(damaged(&self.path, "its structure makes no sense".into())))
    }

    fn open_trusting(&self) -> Result<Opened, StoreError> {
        let faults = Faults::default();
        let backend = Watched::new((self.backend)(&self.path)?, faults.clone());
        let explain = |error| explain(&self.path, error, &faults);
        let database = Builder::new()
            .set_cache_size(self.cache_bytes)
            .create_with_backend(backend)
            .map_err(|error| explain(error.into()))?;
        let content = content(&database).map_err(explain)?;
        let revision = match content {
            Content::Nothing => initialise(&database).map_err(explain)?,
            Content::Store { format, revision } if format <= FORMAT => revision,
            Content::Store { format, .. } => return Err(self.newer(format)),
            Content::Foreign(reason) => return Err(foreign(&self.path, reason)),
        };
        Ok(Opened { database, faults, revision })
    }

    fn newer(&self, found: u64) -> StoreError {
        StoreError::NewerFormat { path: self.path.display().to_string(), found, known: FORMAT }
    }
}

fn content(database: &Database) -> Result<Content, redb::Error> {
    Ok(layout::inspect(&database.begin_read()?)?)
}

fn initialise(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(ENTRIES)?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT)?;
        meta.insert(META_REVISION, Revision::ZERO.0)?;
    }
    transaction.commit()?;
    Ok(Revision::ZERO)
}

/// Opens `path` for reading and writing; creates it, readable by its owner alone, if it is absent.
fn open_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.open(path) {
        Ok(file) => regular(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = options.create(true).truncate(false).open(path);
            file.and_then(|file| sync_directory(path).map(|()| file)).map_err(|error| io_error(path, &error))
        }
        Err(error) => Err(io_error(path, &error)),
    }
}

fn regular(path: &Path, file: File) -> Result<File, StoreError> {
    let kind = file.metadata().map_err(|error| io_error(path, &error))?.file_type();
    if kind.is_file() { Ok(file) } else { Err(foreign(path, "it is not a regular file".into())) }
}

/// Makes the name of a new file durable: its own fsync does not.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// Explains `error` of the store `path`, whose file had `faults`, to the operator.
fn explain(path: &Path, error: redb::Error, faults: &Faults) -> StoreError {
    match faults.first() {
        Some(Fault::NoRoom(text)) => StoreError::Full(text),
        _ => database_error(path, error),
    }
}

fn database_error(path: &Path, error: impl Into<redb::Error>) -> StoreError {
    let name = path.display().to_string();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::Locked { path: name }
        }
        redb::Error::UpgradeRequired(version) => {
            foreign(path, format!("a redb file of the old format {version}"))
        }
        redb::Error::Corrupted(reason) => damaged(path, reason),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            foreign(path, error.to_string())
        }
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            damaged(path, "it is cut off".into())
        }
        redb::Error::Io(error) => io_error(path, &error),
        error => StoreError::Unavailable(format!("{name}: {error}")),
    }
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    let name = path.display().to_string();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Permission { path: name }
        }
        io::ErrorKind::NotFound => {
            StoreError::DirectoryMissing { directory: directory_of(path).display().to_string() }
        }
        io::ErrorKind::IsADirectory => foreign(path, "it is a directory".into()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(name),
        _ => StoreError::Unavailable(format!("{name}: {error}")),
    }
}

fn foreign(path: &Path, reason: String) -> StoreError {
    StoreError::Foreign { path: path.display().to_string(), reason }
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.display().to_string(), reason }
}
