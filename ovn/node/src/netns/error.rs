//! Errors of named namespaces.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Failure to create, open, delete or set up a namespace.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// The namespace exists already.
    #[error("network namespace {}: it exists already", path.display())]
    Exists {
        /// Path of its file.
        path: PathBuf,
    },
    /// The namespace does not exist.
    #[error("network namespace {}: it does not exist", path.display())]
    Missing {
        /// Path of its file.
        path: PathBuf,
    },
    /// The file exists, but is not a namespace.
    #[error("network namespace {}: {source}; a killed process may have left it: delete it", path.display())]
    NotNamespace {
        /// Path of the file.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Name that is not allowed.
    #[error(
        "{name:?} is not the name of a network namespace: it must have 1 to 64 letters, digits, dots, dashes or underscores"
    )]
    Name {
        /// Rejected name.
        name: String,
    },
    /// Name that is not one of a namespace's sysctl.
    #[error(
        "{name:?} is not a sysctl of a network namespace: its name must look like net.ipv4.tcp_migrate_req"
    )]
    Setting {
        /// Name of the sysctl.
        name: String,
    },
    /// Sysctl that the kernel does not have.
    #[error("this kernel has no sysctl {name}, or not in this namespace")]
    NoSetting {
        /// Name of the sysctl.
        name: String,
    },
    /// Operation that the kernel refused.
    #[error(
        "{what}: {source} (namespaces need CAP_SYS_ADMIN, sysctls CAP_NET_ADMIN and a writable /proc/sys)"
    )]
    Refused {
        /// Operation, such as "open /run/netns/x".
        what: String,
        /// Error of the kernel.
        source: io::Error,
    },
}

impl NetnsError {
    /// Wraps the kernel's error of the operation `what`.
    pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Refused { what, source }
    }
}
