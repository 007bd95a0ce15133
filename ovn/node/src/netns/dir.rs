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

/// Directory of the namespaces of `ip netns`.
pub const RUN_NETNS: &str = "/run/netns";

/// Length limit of a name with its prefix, in bytes.
const MAX_NAME: usize = 64;

/// Namespaces of a directory whose names begin with a prefix. Others are never touched. Names are passed and returned without
/// the prefix.
///
/// All calls are synchronous and take a few milliseconds at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetnsDir {
    path: PathBuf,
    prefix: String,
}

impl NetnsDir {
    /// Namespaces in `path` (usually [`RUN_NETNS`]) whose names begin with `prefix`. Does no IO.
    ///
    /// # Errors
    /// [`NetnsError::Name`] if the prefix is empty, or not allowed in a name.
    pub fn new(path: impl Into<PathBuf>, prefix: &str) -> Result<Self, NetnsError> {
        check(prefix)?;
        Ok(Self { path: path.into(), prefix: prefix.to_owned() })
    }

    /// Path of a namespace's file, whose last component is its name for `ip netns`.
    ///
    /// # Errors
    /// [`NetnsError::Name`].
    pub fn file(&self, name: &str) -> Result<PathBuf, NetnsError> {
        check(name)?;
        let whole = format!("{}{name}", self.prefix);
        check(&whole)?;
        Ok(self.path.join(whole))
    }

    /// Creates a namespace. A file without a namespace, left by a killed process, is replaced.
    ///
    /// # Errors
    /// [`NetnsError::Exists`]; [`NetnsError::Name`]; [`NetnsError::Refused`].
    pub fn create(&self, name: &str) -> Result<Netns, NetnsError> {
        let file = self.file(name)?;
        let _lock = self.prepare()?;
        match Netns::open(&file) {
            Ok(_) => return Err(NetnsError::Exists { path: file }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => remove(&file)?,
        }
        let netns = Netns::unnamed().map_err(NetnsError::refused("create a network namespace"))?;
        bind(&netns, &file).inspect_err(|_| {
            // The first error is the one to report.
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

    /// Deletes a name. The kernel deletes the namespace and its links once no handle and no socket refers to it.
    ///
    /// # Errors
    /// [`NetnsError::Missing`]; [`NetnsError::Name`]; [`NetnsError::Refused`].
    pub fn delete(&self, name: &str) -> Result<(), NetnsError> {
        let path = self.file(name)?;
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Err(NetnsError::Missing { path });
        }
        let _lock = self.prepare()?;
        remove(&path)
    }

    /// Lists all names, sorted, including files without a namespace that a killed process left. A directory that does not exist is
    /// empty.
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

    /// Name without the prefix; `None` for names of others.
    fn ours(&self, whole: &str) -> Option<String> {
        let name = whole.strip_prefix(&self.prefix)?;
        (check(name).is_ok() && check(whole).is_ok()).then(|| name.to_owned())
    }

    /// Makes the directory a shared mount, so that other mount namespaces see changes of names, and locks it; `ip netns add` does
    /// both.
    fn prepare(&self) -> Result<Flock<File>, NetnsError> {
        let refused = |what: &str| NetnsError::refused(format!("{what} {}", self.path.display()));
        fs::create_dir_all(&self.path).map_err(refused("create"))?;
        let directory = File::open(&self.path).map_err(refused("open"))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive);
        let lock = lock.map_err(|(_, error)| refused("lock")(error.into()))?;
        share(&self.path).map_err(|error| refused("make a shared mount of")(error.into()))?;
        Ok(lock)
    }
}

/// Checks that a name is one path component, and no option on a command line.
fn check(name: &str) -> Result<(), NetnsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let only_dots = name.chars().all(|c| c == '.');
    if only_dots || name.starts_with('-') || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(NetnsError::Name { name: name.to_owned() });
    }
    Ok(())
}

fn share(path: &Path) -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    let make_shared = || mount(NOTHING, path, NOTHING, MsFlags::MS_SHARED | MsFlags::MS_REC, NOTHING);
    match make_shared() {
        // Only a mount point can be shared: mount the directory on itself.
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
    // Readable, since a process that may not override permissions must recognise a file that a killed one left.
    OpenOptions::new().write(true).create_new(true).mode(0o400).open(file).map_err(refused())?;
    let source = format!("/proc/thread-self/fd/{}", netns.as_fd().as_raw_fd());
    mount(Some(source.as_str()), file, NOTHING, MsFlags::MS_BIND, NOTHING)
        .map_err(|error| refused()(error.into()))
}

/// Removes a file, with the namespace that may be mounted on it.
fn remove(file: &Path) -> Result<(), NetnsError> {
    let refused = || NetnsError::refused(format!("remove {}", file.display()));
    match umount2(file, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // A process was killed before it mounted anything, or another one has just unmounted it.
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
        let longest = "a".repeat(MAX_NAME - "fiberlb-".len());
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
