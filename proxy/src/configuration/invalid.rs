//! Reasons to refuse a resource, and parsers of single fields.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use uuid::Uuid;

use crate::health::CheckError;

/// Length of a value in an error, in characters; longer ones are cut.
const SHOWN: usize = 80;

/// Fields of a listener without which it is not served as specified.
pub(super) const ALLOWED_CIDRS: &str = "allowed_cidrs";
pub(super) const TRUSTED_PROXIES: &str = "trusted_proxies";

/// Reason why a resource is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// A field with an unusable value.
    #[error("{field} is {value:?}: {why}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value, cut.
        value: String,
        /// Expected form.
        why: &'static str,
    },
    /// A value that may be there once only.
    #[error("{field} has {value:?} twice")]
    Twice {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// A list that is too long.
    #[error("{field} has {count} entries; at most {most} can be")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Number of entries.
        count: usize,
        /// Most entries.
        most: usize,
    },
    /// A value that this release does not know. The last good form of the resource must not stay in force: it
    /// would serve otherwise than specified.
    #[error(
        "{field} is {value}: this release of the agent does not know it; update fiberlb-proxy on this node"
    )]
    Unsupported {
        /// Field of the resource.
        field: &'static str,
        /// Its value, as a number of the enum.
        value: i32,
    },
    /// A health check that cannot be carried out.
    #[error("check: {0}")]
    Check(#[from] CheckError),
}

impl ResourceError {
    /// True if the last good form of the resource may stay in force.
    pub(super) fn keeps_last_good(&self) -> bool {
        match self {
            Self::Unsupported { .. } => false,
            // The list before may allow clients, or trust proxies, that this one does not.
            Self::Field { field, .. } | Self::TooMany { field, .. } => {
                ![ALLOWED_CIDRS, TRUSTED_PROXIES].contains(field)
            }
            Self::Twice { .. } | Self::Check(_) => true,
        }
    }
}

/// Error of a field.
pub(super) fn field(
    field: &'static str,
    value: &(impl ToString + ?Sized),
    why: &'static str,
) -> ResourceError {
    let value = value.to_string().chars().take(SHOWN).collect();
    ResourceError::Field { field, value, why }
}

/// Parses a text.
pub(super) fn parse<T: FromStr>(
    name: &'static str,
    text: &str,
    why: &'static str,
) -> Result<T, ResourceError> {
    text.parse().map_err(|_| field(name, text, why))
}

/// Parses a UUID.
pub(super) fn id(name: &'static str, text: &str) -> Result<Uuid, ResourceError> {
    parse(name, text, "not a UUID")
}

/// Parses "ADDRESS:PORT" of an endpoint that one host can have.
pub(super) fn endpoint(name: &'static str, text: &str) -> Result<SocketAddr, ResourceError> {
    let address: SocketAddr = parse(name, text, "not ADDRESS:PORT")?;
    if address.port() == 0 {
        return Err(field(name, text, "the port is 0"));
    }
    host(name, address.ip())?;
    Ok(address)
}

/// Checks that one host can have an address.
pub(super) fn host(name: &'static str, address: IpAddr) -> Result<IpAddr, ResourceError> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err(field(name, &address, "not an address that a host of a network can have"));
    }
    Ok(address)
}

/// Checks the length of a list.
pub(super) fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), ResourceError> {
    if count > most { Err(ResourceError::TooMany { field, count, most }) } else { Ok(()) }
}

/// Checks that no value is there twice.
pub(super) fn distinct<T: Ord + ToString>(
    field: &'static str,
    values: impl IntoIterator<Item = T>,
) -> Result<(), ResourceError> {
    let mut seen = std::collections::BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(ResourceError::Twice { field, value: value.to_string() });
        }
        seen.insert(value);
    }
    Ok(())
}
