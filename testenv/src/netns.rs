//! Making sockets in another network namespace. Knows no lab.
//!
//! A namespace belongs to a thread, a socket for ever to the namespace it was made in. So one enters, makes the
//! socket and leaves, all on one thread and without an await in between.

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns};

/// Runs `make` with the calling thread in the network namespace `netns` (an open `/run/netns/NAME` or
/// `/proc/PID/ns/net`), and takes the thread back, also when `make` panics.
///
/// `make` must be quick and do nothing but make sockets; what it connects or reads can wait until after.
/// Aborts the process if the thread cannot be taken back: it would go on in the wrong network.
///
/// # Errors
/// What the kernel says when the namespace cannot be entered (`CAP_SYS_ADMIN` is needed).
pub fn in_netns<T>(netns: &File, make: impl FnOnce() -> T) -> io::Result<T> {
    let home = Home(File::open("/proc/thread-self/ns/net")?);
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let made = make();
    drop(home);
    Ok(made)
}

/// The namespace the thread came from, entered again on drop.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if setns(&self.0, CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::sched::unshare;

    use super::*;

    /// A namespace that lives as long as the file is open.
    fn another() -> File {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        std::thread::spawn(make).join().unwrap()
    }

    fn here() -> String {
        fs::read_link("/proc/thread-self/ns/net").unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn the_thread_comes_back_also_after_a_panic() {
        if !crate::can_run("the_thread_comes_back_also_after_a_panic") {
            return;
        }
        let (home, other) = (here(), another());
        let inside = in_netns(&other, here).unwrap();
        assert_ne!(inside, home);
        assert_eq!(here(), home);
        let panicked = catch_unwind(AssertUnwindSafe(|| in_netns(&other, || panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(here(), home);
    }

    #[test]
    fn what_is_no_namespace_is_not_entered() {
        let home = here();
        let file = tempfile::tempfile().unwrap();
        assert!(in_netns(&file, || ()).is_err());
        assert_eq!(here(), home);
    }
}
