//! `store import`: fills a store from an export, atomically.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::dump::{Decoder, Line, LineError, MAX_LINE_BYTES};
use super::{CommitError, Compare, Revision, Store, StoreError, Transaction, Write};

/// Treatment of the keys that the store already holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportMode {
    /// Kept: a store that holds anything is refused.
    #[default]
    IntoEmpty,
    /// Removed: the store then holds what the export holds, and nothing else.
    Replace,
}

/// Summary of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportSummary {
    /// The revision that the exported store had. The imported keys have a new one.
    pub exported_revision: Revision,
    /// Keys that were imported.
    pub keys: u64,
    /// Keys that existed before and are not in the export.
    pub removed: u64,
}

/// Nothing was imported, unless [`CommitError::Unknown`] leaves it open.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    File {
        /// The file.
        path: String,
        /// Cause, from the operating system.
        source: io::Error,
    },
    /// The file is not a whole and unaltered export.
    #[error("{path}, line {line}: {reason}; nothing was imported")]
    Line {
        /// The file.
        path: String,
        /// The first bad line, counted from 1.
        line: u64,
        /// Reason why the line is invalid.
        reason: LineError,
    },
    /// The store is not empty and may not be overwritten.
    #[error(
        "the store already holds keys, such as {key:?}: import into an empty store, or say that it is to be replaced"
    )]
    NotEmpty {
        /// One of the keys.
        key: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not accept the keys.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Puts all keys of the export `path` into `store`, in one transaction, after the whole file was verified.
///
/// Holds the whole export in memory. The values are byte for byte those that were exported. `absent`: a key that must not
/// be there when it is written, such as that of a process that works on the store.
///
/// # Errors
/// [`ImportError`] with the reason, and the line of the file.
pub async fn import(
    store: &dyn Store,
    path: &Path,
    mode: ImportMode,
    absent: &str,
) -> Result<ImportSummary, ImportError> {
    let export = read_file(path.to_owned()).await?;
    let mut present = present(store, mode).await?;
    present.retain(|compare| compare.key != absent);
    let imported: HashSet<&str> = export.writes.iter().map(Write::key).collect();
    let gone: Vec<_> = present.iter().filter(|compare| !imported.contains(compare.key.as_str())).collect();
    let (keys, removed) = (export.writes.len() as u64, gone.len() as u64);
    let deletes: Vec<_> =
        gone.into_iter().map(|compare| Write::Delete { key: compare.key.clone() }).collect();
    let writes: Vec<_> = deletes.into_iter().chain(export.writes).collect();
    if !writes.is_empty() {
        // The keys read must still be unchanged: a concurrent write would be lost otherwise.
        let absent = Compare { key: absent.to_owned(), revision: Revision::ZERO };
        let compares = present.into_iter().chain([absent]).collect();
        store.commit(Transaction { compares, writes }).await?;
    }
    Ok(ImportSummary { exported_revision: export.revision, keys, removed })
}

/// The keys that the store holds, as compares.
async fn present(store: &dyn Store, mode: ImportMode) -> Result<Vec<Compare>, ImportError> {
    let mut snapshot = store.snapshot("").await?;
    let mut present = Vec::new();
    while let Some(entries) = snapshot.next().await? {
        if let (ImportMode::IntoEmpty, Some(entry)) = (mode, entries.first()) {
            return Err(ImportError::NotEmpty { key: entry.key.clone() });
        }
        present.extend(entries.into_iter().map(|entry| Compare { key: entry.key, revision: entry.revision }));
    }
    Ok(present)
}

/// A verified export.
struct Export {
    revision: Revision,
    writes: Vec<Write>,
}

async fn read_file(path: PathBuf) -> Result<Export, ImportError> {
    let name = path.display().to_string();
    let failed = |source| ImportError::File { path: name.clone(), source };
    let read = tokio::task::spawn_blocking(move || {
        let mut lines = Lines { file: BufReader::new(File::open(path)?), number: 0 };
        let export = read(&mut lines);
        Ok((export, lines.number))
    });
    let (export, line) = read.await.map_err(io::Error::other).and_then(|result| result).map_err(failed)?;
    export.map_err(|error| match error {
        ReadError::Io(source) => failed(source),
        ReadError::Line(reason) => ImportError::Line { path: name.clone(), line, reason },
    })
}

fn read(lines: &mut Lines<impl BufRead>) -> Result<Export, ReadError> {
    let (mut decoder, revision) = Decoder::begin(&lines.expect()?)?;
    let mut writes = Vec::new();
    while let Line::Entry { key, value } = decoder.line(&lines.expect()?)? {
        writes.push(Write::Put { key, value });
    }
    match lines.next()? {
        None => Ok(Export { revision, writes }),
        Some(_) => Err(LineError::AfterEnd.into()),
    }
}

enum ReadError {
    Io(io::Error),
    Line(LineError),
}

impl From<LineError> for ReadError {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

/// Lines of a file with any content.
struct Lines<R> {
    file: R,
    /// Number of the line that was read last, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line, which must be there.
    fn expect(&mut self) -> Result<String, ReadError> {
        self.next()?.ok_or(ReadError::Line(LineError::CutOff))
    }

    /// The next line without its line feed; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<String>, ReadError> {
        self.number += 1;
        let mut line = Vec::new();
        let limit = MAX_LINE_BYTES as u64 + 1;
        (&mut self.file).take(limit).read_until(b'\n', &mut line).map_err(ReadError::Io)?;
        match line.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(String::from_utf8(line).map_err(|_| LineError::Altered)?)),
            Some(_) if line.len() >= MAX_LINE_BYTES => Err(LineError::TooLong.into()),
            Some(_) => Err(LineError::CutOff.into()),
        }
    }
}
