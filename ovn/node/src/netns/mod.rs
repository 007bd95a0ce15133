//! Network namespaces: a handle that makes things inside ([`Netns`]), and named ones under `/run/netns` ([`NetnsDir`]).
//!
//! A namespace belongs to a thread, a socket for ever to the namespace it was made in. So one enters, makes the socket
//! and leaves, all on one thread and without an await in between. Knows neither OVN nor netlink.

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

/// The calling thread's own namespace.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives at least as long as this handle, also when its name is deleted meanwhile; clones
/// share the descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    key: NetnsKey,
}

/// What a namespace is known by while a handle to it is open. Names are reused, and so are keys once all handles are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsKey {
    /// Device of the namespace's file.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

impl Netns {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel says; `/proc` may be missing.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(CURRENT))
    }

    /// Opens a namespace by its file: `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// What the kernel says, or [`io::ErrorKind::InvalidInput`] if the file is no namespace.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if fstatfs(&file)?.filesystem_type() != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a file, but no namespace"));
        }
        let status = file.metadata()?;
        Ok(Self { file: Arc::new(file), key: NetnsKey { device: status.dev(), inode: status.ino() } })
    }

    /// Makes a namespace without a name. It has nothing but a loopback that is down, and goes with the last handle and
    /// socket.
    ///
    /// # Errors
    /// What the kernel says (`CAP_SYS_ADMIN` is needed).
    pub fn unnamed() -> io::Result<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        };
        // The thread ends in the new namespace: nobody has to bring it back.
        let made = thread::Builder::new().name("netns".to_owned()).spawn(make)?.join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace panicked")))
    }

    /// What it is known by.
    #[must_use]
    pub fn key(&self) -> NetnsKey {
        self.key
    }

    /// Runs `inside` with the calling thread in this namespace, and takes the thread back, also when `inside` panics.
    /// Costs 3 to 4 us.
    ///
    /// `inside` should make sockets or open files, and no more: what these connect to or read can wait until after. It
    /// must start no threads and no tasks, which would stay. Aborts the process if the thread cannot be taken back: it
    /// would go on in a tenant's network.
    ///
    /// # Errors
    /// What the kernel says when the namespace cannot be entered (`CAP_SYS_ADMIN` is needed).
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

/// The namespace the thread came from, entered again on drop.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWNET) {
            tracing::error!(%error, "a thread cannot leave a network namespace: the process ends");
            std::process::abort();
        }
    }
}
