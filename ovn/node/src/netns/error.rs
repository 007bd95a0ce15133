//! What can go wrong with named namespaces.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A namespace cannot be made, opened, deleted or set up.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is one of this name already.
    #[error("network namespace {}: there is one already", path.display())]
    Exists {
        /// Its file.
        path: PathBuf,
    },
    /// There is none of this name.
    #[error("network namespace {}: there is none", path.display())]
    Missing {
        /// Its file.
        path: PathBuf,
    },
    /// The file is there, but is no namespace.
    #[error("network namespace {}: {source} (left by a maker that was killed? delete it)", path.display())]
    NotNamespace {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The name cannot be that of a namespace.
    #[error("{name:?} cannot name a network namespace: 1 to 64 letters, digits, dots, dashes, underscores")]
    Name {
        /// The name.
        name: String,
    },
    /// This cannot be a setting of a namespace.
    #[error("{name:?} is no setting of a network namespace: they look like net.ipv4.tcp_migrate_req")]
    Setting {
        /// The setting.
        name: String,
    },
    /// The kernel has no such setting.
    #[error("this kernel has no setting {name}, or not in this namespace")]
    NoSetting {
        /// The setting.
        name: String,
    },
    /// The kernel refuses.
    #[error(
        "{what}: {source} (namespaces need CAP_SYS_ADMIN, settings CAP_NET_ADMIN and a writable /proc/sys)"
    )]
    Refused {
        /// What was asked for.
        what: String,
        /// What it says.
        source: io::Error,
    },
}

impl NetnsError {
    /// An error of the kernel when it was asked for `what`.
    pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Refused { what, source }
    }
}
