//! Limit of open files of this process.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files (`ulimit -n`) from the soft to the hard limit, and returns the one in force. Without a limit
/// it is `u64::MAX`.
///
/// # Errors
/// The kernel refuses; the soft limit stays in force.
pub fn raise_limit() -> Result<u64, Errno> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(limit())
}

/// Limit of open files in force; `u64::MAX` without one.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        assert_eq!(Ok(limit()), raise_limit().map(|raised| raised.min(limit())));
        assert_eq!(getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), limit());
    }
}
