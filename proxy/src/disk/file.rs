//! The state file, and its directory.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fiberlb_daemon::secrets;
use nix::fcntl::{Flock, FlockArg};
use prost::Message as _;

use super::stored::{Memory, Stored};
use crate::configuration::{Listener, Pool};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"FLBPROXY";
/// Versions of the format; a newer one is refused. The second one has a listener that allows some clients only: an agent
/// that reads the first one alone would serve it for all. The third one has PROXY protocol, the fourth one drain timeouts,
/// the fifth one limits of clients, bandwidth and backends, the sixth one slow starts and passive health checks, the
/// seventh one half-close timeouts, the eighth one ranges of ports, the ninth one listeners with several pools, likewise.
const FIRST_VERSION: u32 = 1;
const SECOND_VERSION: u32 = 2;
const THIRD_VERSION: u32 = 3;
const FOURTH_VERSION: u32 = 4;
const FIFTH_VERSION: u32 = 5;
const SIXTH_VERSION: u32 = 6;
const SEVENTH_VERSION: u32 = 7;
const EIGHTH_VERSION: u32 = 8;
pub(super) const VERSION: u32 = 9;
/// Length of the header: magic, version, length, checksum.
const HEADER: usize = 8 + 4 + 8 + 4;
/// Largest file that is read, in bytes.
const MOST_BYTES: u64 = 1 << 30;
/// Names of files in the directory.
const NAME: &str = "configuration";
const NEW: &str = "configuration.new";
const LOCK: &str = "lock";

/// The directory of one agent, locked while this or a clone lives.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

/// Reason why the directory is unusable.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another agent has it.
    #[error("{}: another agent runs on it; give each its own --state-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Others can read or replace what is in it.
    #[error("--state-dir: {0}")]
    Exposed(io::Error),
    /// Error of the kernel.
    #[error("cannot {what} {}: {source}; --state-dir must be a directory that the agent can write to", path.display())]
    Refused {
        /// Attempted operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Reason why a file is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    #[error("it does not begin as such a file does")]
    Magic,
    #[error("it has version {0}, this release reads up to {VERSION}: a newer release wrote it")]
    Version(u32),
    #[error("it is cut short, or too long")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its content cannot be read: {0}")]
    Content(String),
}

/// Result of loading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// No file: the agent's first run.
    Nothing,
    /// State of the last run.
    Memory(Box<Memory>),
    /// An unusable file; it was moved aside.
    Damaged {
        /// Its new path.
        aside: PathBuf,
        /// Reason.
        why: String,
    },
}

impl Directory {
    /// Opens and locks a directory, created if it does not exist.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let path = path.into();
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(refused("make", &path))?;
        secrets::check_directory(&path).map_err(DiskError::Exposed)?;
        secrets::check_file(&path.join(NAME)).map_err(DiskError::Exposed)?;
        let lock = path.join(LOCK);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(refused("open", &lock))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { path, _lock: Arc::new(lock) }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(DiskError::InUse { path }),
            Err((_, error)) => Err(refused("lock", &lock)(error.into())),
        }
    }

    /// Loads the state of the last run. An unusable file is moved aside, so that the next write does not
    /// overwrite it.
    ///
    /// # Errors
    /// [`DiskError::Refused`] if the file cannot be read, or not be moved.
    pub fn load(&self) -> Result<Loaded, DiskError> {
        let file = self.path.join(NAME);
        let bytes = match read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            Err(error) => return Err(refused("read", &file)(error)),
        };
        match decode(&bytes) {
            Ok(memory) => Ok(Loaded::Memory(Box::new(memory))),
            Err(damage) => {
                let aside = self.path.join(format!("{NAME}.refused-{}", now_ms()));
                fs::rename(&file, &aside).map_err(refused("move aside", &file))?;
                Ok(Loaded::Damaged { aside, why: damage.to_string() })
            }
        }
    }

    /// Removes the state of the last run.
    ///
    /// # Errors
    /// [`DiskError::Refused`].
    pub fn forget(&self) -> Result<(), DiskError> {
        let file = self.path.join(NAME);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused("remove", &file)(error)),
            _ => Ok(()),
        }
    }

    /// Replaces the file: after a crash at any moment there is the old or the new one.
    ///
    /// # Errors
    /// [`DiskError::Refused`]; the old file is still there.
    pub fn save(&self, memory: &Memory) -> Result<(), DiskError> {
        let (new, file) = (self.path.join(NEW), self.path.join(NAME));
        let bytes = encode(memory);
        let mut out = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(refused("write", &new))?;
        out.write_all(&bytes).and_then(|()| out.sync_all()).map_err(refused("write", &new))?;
        fs::rename(&new, &file).map_err(refused("replace", &file))?;
        let directory = File::open(&self.path).and_then(|directory| directory.sync_all());
        directory.map_err(refused("write", &self.path))
    }
}

fn refused(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Refused { what, path, source }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(file)?.len() > MOST_BYTES {
        // Too long to be ours; refused as such.
        return Ok(Vec::new());
    }
    fs::read(file)
}

fn now_ms() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis()
}

pub(super) fn encode(memory: &Memory) -> Vec<u8> {
    framed(version_of(memory), &Stored::from(memory).encode_to_vec())
}

/// A content with its header.
pub(super) fn framed(version: u32, content: &[u8]) -> Vec<u8> {
    let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let parts: [&[u8]; 5] = [
        MAGIC,
        &version.to_be_bytes(),
        &length.to_be_bytes(),
        &crc32fast::hash(content).to_be_bytes(),
        content,
    ];
    parts.concat()
}

/// The oldest version whose readers serve this state as it is.
fn version_of(memory: &Memory) -> u32 {
    let mut listeners = memory.configuration.listeners.values().map(|item| &item.value);
    let mut pools = memory.configuration.pools.values().map(|item| &item.value);
    let is_limited =
        |listener: &Listener| listener.limits.need_counting() || listener.limits.bandwidth.is_some();
    let bounds =
        |pool: &Pool| pool.queue.is_some() || pool.backends.iter().any(|it| it.connection_limit.is_some());
    if listeners.clone().any(|listener| listener.pools.len() > 1) {
        return VERSION;
    }
    if listeners.clone().any(|listener| listener.ports > 1) {
        return EIGHTH_VERSION;
    }
    if listeners.clone().any(|listener| listener.limits.half_close.is_some()) {
        return SEVENTH_VERSION;
    }
    if pools.clone().any(|pool| pool.slow_start.is_some() || pool.passive_health.is_some()) {
        return SIXTH_VERSION;
    }
    if listeners.clone().any(is_limited) || pools.clone().any(bounds) {
        return FIFTH_VERSION;
    }
    if pools.clone().any(|pool| pool.drain_timeout.is_some()) {
        return FOURTH_VERSION;
    }
    let has_headers = pools.any(|pool| pool.header.is_some())
        || listeners.clone().any(|listener| !listener.trusted_proxies.is_empty());
    match (has_headers, listeners.all(|listener| listener.allowed_cidrs.is_empty())) {
        (true, _) => THIRD_VERSION,
        (false, false) => SECOND_VERSION,
        (false, true) => FIRST_VERSION,
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Memory, Damage> {
    let (header, content) = bytes.split_first_chunk::<HEADER>().ok_or(Damage::Length)?;
    let [m @ .., v0, v1, v2, v3, l0, l1, l2, l3, l4, l5, l6, l7, c0, c1, c2, c3] = *header;
    if m != *MAGIC {
        return Err(Damage::Magic);
    }
    let version = u32::from_be_bytes([v0, v1, v2, v3]);
    if !(FIRST_VERSION..=VERSION).contains(&version) {
        return Err(Damage::Version(version));
    }
    let length = u64::from_be_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    if u64::try_from(content.len()) != Ok(length) {
        return Err(Damage::Length);
    }
    if crc32fast::hash(content) != u32::from_be_bytes([c0, c1, c2, c3]) {
        return Err(Damage::Checksum);
    }
    let stored = Stored::decode(content).map_err(|error| Damage::Content(error.to_string()))?;
    Memory::try_from(stored).map_err(|error| Damage::Content(error.to_string()))
}
