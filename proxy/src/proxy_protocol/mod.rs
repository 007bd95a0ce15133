//! PROXY protocol, versions 1 and 2: the header by which a proxy states whose connection it relays (HAProxy's
//! `doc/proxy-protocol.txt`). Bytes in, values out, and back: no IO.
//!
//! [`parse`] takes what has come of a connection so far, and says how much more it needs. A header is bounded, and a byte
//! that cannot be of a header is refused as soon as it is there. [`encode`] writes one.

mod crc32c;
pub mod fuzzing;
mod tlv;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

pub use self::{
    tlv::{MAX_TLVS, TlvError, Tlvs, tlv_type},
    v1::MAX_LENGTH as MAX_V1,
    v2::MAX_LENGTH as MAX_V2,
};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

/// Endpoints of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The client.
    pub source: SocketAddr,
    /// The address that the client has connected to.
    pub destination: SocketAddr,
}

/// Connection that a header is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The proxy's own connection, such as a health check (version 2: LOCAL).
    Local,
    /// A connection of a client whose TCP endpoints are not stated (version 1: UNKNOWN; version 2: any family and transport
    /// but TCP over IPv4 and IPv6).
    Unknown,
    /// A TCP connection of a client.
    Tcp(Endpoints),
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Connection that it is about.
    pub subject: Subject,
    /// TLVs of version 2, but for NOOP and CRC32C.
    pub tlvs: Tlvs,
}

/// Result of parsing what has come so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// The beginning of a header, which has at least `needs` bytes in all.
    Incomplete {
        /// More than have come.
        needs: usize,
    },
    /// A whole header of `length` bytes. What follows belongs to the client.
    Complete {
        /// The header.
        header: Header,
        /// Its length, in bytes.
        length: usize,
    },
}

/// Reason why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// They do not begin as one of either version does.
    #[error("it does not begin with a header of PROXY protocol")]
    Missing,
    /// They break the protocol.
    #[error("the header is malformed: {0}")]
    Malformed(&'static str),
    /// The header is longer than its version allows, or than [`MAX_V2`].
    #[error("the header is too long")]
    TooLong,
    /// CRC32C of version 2 differs.
    #[error("the header's checksum is wrong")]
    Checksum,
}

/// Parses the first bytes of a connection.
///
/// # Errors
/// They are not the beginning of a header, whatever follows.
pub fn parse(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    match bytes.first() {
        None => Ok(HeaderProgress::Incomplete { needs: v1::MIN_LENGTH.min(v2::PREFIX) }),
        Some(b'P') => v1::parse(bytes),
        Some(b'\r') => v2::parse(bytes),
        Some(_) => Err(HeaderError::Missing),
    }
}

/// Writes a header. Version 1 has no TLVs; version 2 gets a CRC32C, unless the subject is [`Subject::Local`], whose header is
/// empty.
#[must_use]
pub fn encode(version: Version, header: &Header) -> Vec<u8> {
    match version {
        Version::V1 => v1::encode(header.subject),
        Version::V2 => v2::encode(header),
    }
}

impl From<Subject> for Header {
    fn from(subject: Subject) -> Self {
        Self { subject, tlvs: Tlvs::default() }
    }
}

/// Both addresses of one family: IPv4-mapped IPv6 ones are IPv4, and an IPv4 address beside an IPv6 one is mapped.
fn of_one_family(endpoints: Endpoints) -> Endpoints {
    let [source, destination] = [endpoints.source, endpoints.destination]
        .map(|socket| SocketAddr::new(socket.ip().to_canonical(), socket.port()));
    if source.is_ipv4() == destination.is_ipv4() {
        return Endpoints { source, destination };
    }
    Endpoints { source: mapped(source), destination: mapped(destination) }
}

fn mapped(socket: SocketAddr) -> SocketAddr {
    match socket.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), socket.port()),
        IpAddr::V6(_) => socket,
    }
}
