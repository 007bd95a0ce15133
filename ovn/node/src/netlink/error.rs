//! Errors of the kernel.

use std::io;

use nix::errno::Errno;
use thiserror::Error;

/// Request that the kernel did not carry out.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The object exists already.
    #[error("{what}: it exists already")]
    Exists {
        /// Request, such as "add address 10.0.0.1/24 to link 7".
        what: String,
    },
    /// The object, or the link that it is on, does not exist.
    #[error("{what}: it does not exist")]
    Missing {
        /// Request, such as "add address 10.0.0.1/24 to link 7".
        what: String,
    },
    /// Any other error.
    #[error("{what}: {source}{}", hint(source))]
    Refused {
        /// Request, such as "add address 10.0.0.1/24 to link 7".
        what: String,
        /// Error of the system call, or of the netlink reply.
        source: io::Error,
    },
}

impl NetlinkError {
    /// Classifies the kernel's error for the request `what`.
    pub(super) fn of(what: &str) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_owned();
        move |source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EEXIST) => Self::Exists { what },
            Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOENT | Errno::ESRCH) => Self::Missing { what },
            _ => Self::Refused { what, source },
        }
    }

    /// Reclassifies the error of a removal of an address: only here does EADDRNOTAVAIL mean that it does not exist.
    pub(super) fn of_removed_address(self) -> Self {
        match self {
            Self::Refused { what, source } if source.kind() == io::ErrorKind::AddrNotAvailable => {
                Self::Missing { what }
            }
            other => other,
        }
    }

    /// True for [`NetlinkError::Exists`].
    #[must_use]
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Exists { .. })
    }

    /// True for [`NetlinkError::Missing`].
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => " (CAP_NET_ADMIN is needed; for raw sockets, CAP_NET_RAW)",
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
            " (the gateway is in no network of the link: add an address of its network to the link, or make the route on-link)"
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
