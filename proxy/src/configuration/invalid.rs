//! Why a resource cannot be used, and readers of single fields.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use uuid::Uuid;

use crate::health::CheckError;

/// Where a value is cut in an error, in characters.
const SHOWN: usize = 80;

/// A resource cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field that cannot be read.
    #[error("{field} is {value:?}: {why}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value, cut.
        value: String,
        /// What it must be.
        why: &'static str,
    },
    /// Two of what may be there once.
    #[error("{field} has {value:?} twice")]
    Twice {
        /// The field.
        field: &'static str,
        /// What is there twice.
        value: String,
    },
    /// More than can be.
    #[error("{field} has {count} entries; at most {most} can be")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there can be.
        most: usize,
    },
    /// A health check that cannot be carried out.
    #[error("check: {0}")]
    Check(#[from] CheckError),
}

/// A field that cannot be read.
pub(super) fn field(field: &'static str, value: &(impl ToString + ?Sized), why: &'static str) -> Invalid {
    let value = value.to_string().chars().take(SHOWN).collect();
    Invalid::Field { field, value, why }
}

/// Reads a text.
pub(super) fn parse<T: FromStr>(name: &'static str, text: &str, why: &'static str) -> Result<T, Invalid> {
    text.parse().map_err(|_| field(name, text, why))
}

/// Reads a UUID.
pub(super) fn id(name: &'static str, text: &str) -> Result<Uuid, Invalid> {
    parse(name, text, "not a UUID")
}

/// Reads "ADDRESS:PORT" of an endpoint that one host can have.
pub(super) fn endpoint(name: &'static str, text: &str) -> Result<SocketAddr, Invalid> {
    let address: SocketAddr = parse(name, text, "not ADDRESS:PORT")?;
    if address.port() == 0 {
        return Err(field(name, text, "the port is 0"));
    }
    host(name, address.ip())?;
    Ok(address)
}

/// An address that one host can have.
pub(super) fn host(name: &'static str, address: IpAddr) -> Result<IpAddr, Invalid> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast {
        return Err(field(name, &address, "not an address that a host of a network can have"));
    }
    Ok(address)
}

/// At most so many.
pub(super) fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), Invalid> {
    if count > most { Err(Invalid::TooMany { field, count, most }) } else { Ok(()) }
}

/// No value is there twice.
pub(super) fn distinct<T: Ord + ToString>(
    field: &'static str,
    values: impl IntoIterator<Item = T>,
) -> Result<(), Invalid> {
    let mut seen = std::collections::BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(Invalid::Twice { field, value: value.to_string() });
        }
        seen.insert(value);
    }
    Ok(())
}
