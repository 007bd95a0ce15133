//! What the kernel may answer.

use std::io;

use nix::errno::Errno;
use thiserror::Error;

/// The kernel did not do what it was asked to.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// It is there already.
    #[error("{what}: there is one already")]
    Exists {
        /// What was asked for.
        what: String,
    },
    /// It, or the link it is on, is not there.
    #[error("{what}: there is none")]
    Missing {
        /// What was asked for.
        what: String,
    },
    /// Any other refusal.
    #[error("{what}: {source}{}", hint(source))]
    Refused {
        /// What was asked for.
        what: String,
        /// What the kernel says.
        source: io::Error,
    },
}

impl NetlinkError {
    /// The kernel's answer to `what`.
    pub(super) fn of(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EEXIST) => Self::Exists { what },
            Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOENT | Errno::ESRCH) => Self::Missing { what },
            _ => Self::Refused { what, source },
        }
    }

    /// The kernel's answer to the removal of an address: here alone does EADDRNOTAVAIL say that there is none.
    pub(super) fn of_removed_address(self) -> Self {
        match self {
            Self::Refused { what, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                Self::Missing { what }
            }
            other => other,
        }
    }

    /// Whether what was asked for is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Exists { .. })
    }

    /// Whether what was to be changed or removed is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => " (CAP_NET_ADMIN is needed, for raw sockets CAP_NET_RAW)",
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
            " (the gateway is in no network of the link: give the link an address there, or say on-link)"
        }
        Some(Errno::ENETDOWN) => " (the link is down)",
        Some(Errno::EOPNOTSUPP) => " (the kernel or the link does not support it)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_and_say_what_to_do() {
        let error = |errno: Errno| NetlinkError::of("add x")(errno.into());
        assert!(error(Errno::EEXIST).is_exists());
        assert!(error(Errno::ENODEV).is_missing());
        assert!(error(Errno::EPERM).to_string().contains("CAP_NET_ADMIN"));
        assert!(error(Errno::ENETUNREACH).to_string().starts_with("add x: "));
    }
}
