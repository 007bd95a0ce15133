//! Named namespaces in a directory, as `ip netns` keeps them: each is a file that the namespace is bind-mounted on.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Netns, NetnsError};

/// Where `ip netns` keeps namespaces.
pub const RUN_NETNS: &str = "/run/netns";

const LONGEST: usize = 64;

/// The namespaces of a directory whose names begin with a prefix. No other is ever seen or touched; names are given and
/// listed without the prefix.
///
/// All calls take a few milliseconds at most and do not await.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsDir {
    path: PathBuf,
    prefix: String,
}

impl NetnsDir {
    /// Namespaces in `path` (usually [`RUN_NETNS`]) whose names begin with `prefix`. Touches nothing.
    ///
    /// # Errors
    /// [`NetnsError::Name`] if the prefix is empty or cannot be part of a name.
    pub fn new(path: impl Into<PathBuf>, prefix: &str) -> Result<Self, NetnsError> {
        check(prefix)?;
        Ok(Self { path: path.into(), prefix: prefix.to_owned() })
    }

    /// The file of a namespace, which `ip netns` knows by its last part.
    ///
    /// # Errors
    /// [`NetnsError::Name`].
    pub fn file(&self, name: &str) -> Result<PathBuf, NetnsError> {
        check(name)?;
        let whole = format!("{}{name}", self.prefix);
        check(&whole)?;
        Ok(self.path.join(whole))
    }

    /// Makes a namespace. What a killed maker left behind under the name is no namespace and is replaced.
    ///
    /// # Errors
    /// [`NetnsError::Exists`] if there is one already; [`NetnsError::Name`]; [`NetnsError::Refused`].
    pub fn create(&self, name: &str) -> Result<Netns, NetnsError> {
        let file = self.file(name)?;
        let _lock = self.prepare()?;
        match Netns::open(&file) {
            Ok(_) => return Err(NetnsError::Exists { path: file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => remove(&file)?,
        }
        let netns = Netns::unnamed().map_err(NetnsError::refused("make a network namespace"))?;
        bind(&netns, &file).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&file);
        })?;
        Ok(netns)
    }

    /// Opens a namespace.
    ///
    /// # Errors
    /// [`NetnsError::Missing`], [`NetnsError::NotNamespace`], [`NetnsError::Name`], [`NetnsError::Refused`].
    pub fn open(&self, name: &str) -> Result<Netns, NetnsError> {
        let path = self.file(name)?;
        Netns::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NetnsError::Missing { path },
            io::ErrorKind::InvalidInput => NetnsError::NotNamespace { path, source },
            _ => NetnsError::Refused { what: format!("open {}", path.display()), source },
        })
    }

    /// Deletes a name. The namespace, with its links, goes when nothing has it open any more: no handle, no socket.
    ///
    /// # Errors
    /// [`NetnsError::Missing`] if there is none of that name; [`NetnsError::Name`]; [`NetnsError::Refused`].
    pub fn delete(&self, name: &str) -> Result<(), NetnsError> {
        let path = self.file(name)?;
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(NetnsError::Missing { path });
        }
        let _lock = self.prepare()?;
        remove(&path)
    }

    /// All names, sorted, also of what a killed maker left behind. A directory that is not there has none.
    ///
    /// # Errors
    /// [`NetnsError::Refused`].
    pub fn list(&self) -> Result<Vec<String>, NetnsError> {
        let refused = || NetnsError::refused(format!("list {}", self.path.display()));
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(refused()(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(refused())?.file_name();
            names.extend(name.to_str().and_then(|name| self.ours(name)));
        }
        names.sort();
        Ok(names)
    }

    /// The name without the prefix, if it is one of ours.
    fn ours(&self, whole: &str) -> Option<String> {
        let name = whole.strip_prefix(&self.prefix)?;
        (check(name).is_ok() && check(whole).is_ok()).then(|| name.to_owned())
    }

    /// Makes the directory a shared mount, so that other mount namespaces see names come and go, and locks it: `ip netns
    /// add` does both.
    fn prepare(&self) -> Result<Flock<File>, NetnsError> {
        let refused = |what: &str| NetnsError::refused(format!("{what} {}", self.path.display()));
        fs::create_dir_all(&self.path).map_err(refused("make"))?;
        let directory = File::open(&self.path).map_err(refused("open"))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive);
        let lock = lock.map_err(|(_, error)| refused("lock")(error.into()))?;
        share(&self.path).map_err(|error| refused("make a shared mount of")(error.into()))?;
        Ok(lock)
    }
}

/// A name that stays in its directory and on a command line.
fn check(name: &str) -> Result<(), NetnsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let only_dots = name.chars().all(|c| c == '.');
    if only_dots || name.starts_with('-') || name.len() > LONGEST || !name.chars().all(plain) {
        return Err(NetnsError::Name { name: name.to_owned() });
    }
    Ok(())
}

fn share(path: &Path) -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    let make_shared = || mount(NOTHING, path, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    match make_shared() {
        // Only a mount point can be shared, so the directory becomes one: it is mounted on itself.
        Err(Errno::EINVAL) => {
            mount(Some(path), path, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
            make_shared()
        }
        other => other,
    }
}

fn bind(netns: &Netns, file: &Path) -> Result<(), NetnsError> {
    const NOTHING: Option<&str> = None;
    let refused = || NetnsError::refused(format!("mount a network namespace on {}", file.display()));
    // Readable, for a maker that may not override permissions must see what an earlier one has left behind.
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(file).map_err(refused())?;
    let source = format!("/proc/thread-self/fd/{}", netns.as_fd().as_raw_fd());
    mount(Some(source.as_str()), file, NOTHING, MsFlags::MS_BIND, NOTHING)
        .map_err(|error| refused()(error.into()))
}

/// Takes a file away, with the namespace that may be mounted on it.
fn remove(file: &Path) -> Result<(), NetnsError> {
    let refused = || NetnsError::refused(format!("remove {}", file.display()));
    match umount2(file, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // A maker was killed before it mounted anything, or somebody else has just unmounted it.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(refused()(error.into())),
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused()(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_directory_or_be_an_option() {
        let dir = NetnsDir::new("/run/netns", "fiberlb-").unwrap();
        let longest = "a".repeat(LONGEST - "fiberlb-".len());
        for good in ["a", "0", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "a.b_c", longest.as_str()] {
            assert!(dir.file(good).is_ok(), "{good}");
        }
        let too_long = format!("{longest}a");
        for bad in ["", ".", "..", "../x", "a/b", "a b", "-n", "ä", "a\n", "a\0", too_long.as_str()] {
            assert!(dir.file(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "..", "-", "x/"] {
            assert!(NetnsDir::new("/run/netns", bad).is_err(), "{bad:?}");
        }
        assert_eq!(dir.file("x").unwrap(), Path::new("/run/netns/fiberlb-x"));
    }

    #[test]
    fn only_names_with_the_prefix_are_ours() {
        let dir = NetnsDir::new("/run/netns", "fiberlb-").unwrap();
        assert_eq!(dir.ours("fiberlb-a"), Some("a".to_owned()));
        for other in ["fiberlb-", "fiberlb", "qdhcp-a", "xfiberlb-a", "fiberlb-a b"] {
            assert_eq!(dir.ours(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_has_no_namespaces() {
        let dir = NetnsDir::new(tempfile::tempdir().unwrap().path().join("none"), "x-").unwrap();
        assert_eq!(dir.list().unwrap(), Vec::<String>::new());
        assert!(matches!(dir.open("a"), Err(NetnsError::Missing { .. })));
        assert!(matches!(dir.delete("a"), Err(NetnsError::Missing { .. })));
    }
}
