//! `store export`: a whole store, as it was at one revision, in one text file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::dump::Encoder;
use super::{Revision, Snapshot, Store, StoreError};

/// Summary of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportSummary {
    /// The revision of the store that was exported.
    pub revision: Revision,
    /// Number of keys.
    pub keys: u64,
}

/// An export was not written. No file was left, and a file that was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error("the store cannot be exported: {0}")]
    Store(#[from] StoreError),
    /// The file cannot be written.
    #[error("the export cannot be written to {path}: {source}")]
    File {
        /// The file that failed.
        path: String,
        /// Cause, from the operating system.
        source: io::Error,
    },
}

/// Writes the store to the file `path`, as it is at one revision, except the keys that start with one of `without`;
/// writers are not blocked.
///
/// The file is durable when this returns, readable by its owner alone, and replaces one of that name. It is whole
/// or not there: it is written beside `path` and renamed at the end.
///
/// # Errors
/// [`ExportError`]; nothing has changed then.
pub async fn export(
    store: &dyn Store,
    path: &Path,
    without: &[String],
) -> Result<ExportSummary, ExportError> {
    let mut snapshot = store.snapshot("").await?;
    let revision = snapshot.revision();
    let draft = Draft::new(path)?;
    let keys = write(&mut snapshot, &draft, revision, without).await?;
    draft.publish(path)?;
    Ok(ExportSummary { revision, keys })
}

async fn write(
    snapshot: &mut Snapshot,
    draft: &Draft,
    revision: Revision,
    without: &[String],
) -> Result<u64, ExportError> {
    let (mut encoder, header) = Encoder::begin(revision);
    let mut file = BufWriter::new(&draft.file);
    let mut line = |text: String| writeln!(file, "{text}").map_err(|error| failed(&draft.path, error));
    line(header)?;
    while let Some(entries) = snapshot.next().await? {
        let is_left_out = |key: &str| without.iter().any(|prefix| key.starts_with(prefix));
        let mut kept = entries.iter().filter(|entry| !is_left_out(&entry.key));
        kept.try_for_each(|entry| line(encoder.entry(&entry.key, &entry.value)))?;
    }
    let (trailer, keys) = encoder.end();
    line(trailer)?;
    file.flush().map_err(|error| failed(&draft.path, error))?;
    Ok(keys)
}

/// A file that is removed again unless it is published.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn new(target: &Path) -> Result<Self, ExportError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let path = target.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(|error| failed(&path, error))?;
        Ok(Self { path, file })
    }

    fn publish(self, target: &Path) -> Result<(), ExportError> {
        let publish = || {
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)?;
            File::open(super::directory_of(target))?.sync_all()
        };
        publish().map_err(|error| failed(target, error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already if it was published.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn failed(path: &Path, source: io::Error) -> ExportError {
    ExportError::File { path: path.display().to_string(), source }
}
