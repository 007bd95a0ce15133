//! Network namespaces: handles that create sockets inside ([`Netns`]), and named namespaces under `/run/netns` ([`NetnsDir`]).
//!
//! A thread is in one namespace at a time, and a socket stays in the namespace in which it was created. So a thread enters, creates
//! the socket and leaves, without an await in between. Knows neither OVN nor netlink.

mod dir;
mod error;
mod sysctl;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

pub use dir::{NetnsDir, RUN_NETNS};
pub use error::NetnsError;

/// Path of the calling thread's own namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// Handle of a network namespace, which keeps it alive even if its name is deleted. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    key: NetnsKey,
}

/// Identity of a namespace while a handle of it is open. Names are reused, and keys are once all handles are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsKey {
    /// Device number of the namespace's file.
    pub device: u64,
    /// Inode number of the namespace's file.
    pub inode: u64,
}

impl Netns {
    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// [`io::Error`] of the kernel, for example if `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(CURRENT))
    }

    /// Opens a namespace by its file: `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`io::Error`] of the kernel, or [`io::ErrorKind::InvalidInput`] if the file is not a namespace.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a file, but not a namespace"));
        }
        let status = file.metadata()?;
        Ok(Self { file: Arc::new(file), key: NetnsKey { device: status.dev(), inode: status.ino() } })
    }

    /// Creates a namespace without a name. It has only a loopback, which is down, and is deleted with its last handle and socket.
    ///
    /// # Errors
    /// [`io::Error`] of the kernel; `CAP_SYS_ADMIN` is needed.
    pub fn unnamed() -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        };
        // The thread ends in the new namespace and need not return.
        let made = thread::Builder::new().name("netns".to_owned()).spawn(make)?.join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread that creates the namespace panicked")))
    }

    /// Identity of the namespace.
    #[must_use]
    pub fn key(&self) -> NetnsKey {
        self.key
    }

    /// Runs `inside` with the calling thread in this namespace; the thread returns to its own namespace even if `inside` panics.
    /// Takes 3 to 4 us.
    ///
    /// `inside` should create sockets or open files and nothing else; connecting and reading can follow outside. It must not start
    /// threads or tasks, which would stay inside. If the thread cannot return, the process is aborted, since it would go on in a
    /// tenant's network.
    ///
    /// # Errors
    /// [`io::Error`] of the kernel if the namespace cannot be entered; `CAP_SYS_ADMIN` is needed.
    pub fn run<T>(&self, inside: impl FnOnce() -> T) -> io::Result<T> {
        let home = Home(File::open(CURRENT)?);
        setns(&*self.file, CloneFlags::CLONE_NEWNET)?;
        let made = inside();
        drop(home);
        Ok(made)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Guard that returns the thread to its own namespace on drop.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "thread cannot leave network namespace; aborting");
            std::process::abort();
        }
    }
}
