//! Version 2: a signature, command, family, length, addresses, TLVs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Endpoints, Header, HeaderError, HeaderProgress, Subject, Tlvs, crc32c::checksum, of_one_family,
    tlv::tlv_type,
};

/// Longest header that is taken, in bytes: a limit of ours, far above what proxies send. The protocol allows 65,551.
pub const MAX_LENGTH: usize = 4096;

/// Bytes before the addresses.
pub(super) const PREFIX: usize = 16;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version and command.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// Family and transport.
const UNSPEC: u8 = 0x00;
const TCP4: u8 = 0x11;
const UDP4: u8 = 0x12;
const TCP6: u8 = 0x21;
const UDP6: u8 = 0x22;
const UNIX_STREAM: u8 = 0x31;
const UNIX_DATAGRAM: u8 = 0x32;

/// Bytes of the addresses of UNIX sockets.
const UNIX_ADDRESSES: usize = 216;

/// Parses bytes of which the first is a CR.
pub(super) fn parse(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let seen = bytes.get(..SIGNATURE.len()).unwrap_or(bytes);
    if !SIGNATURE.starts_with(seen) {
        return Err(HeaderError::Missing);
    }
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| !matches!(command, LOCAL | PROXY)) {
        return Err(HeaderError::Malformed("neither LOCAL nor PROXY of version 2"));
    }
    let family = bytes.get(13).copied();
    if command == Some(PROXY) && family.is_some_and(|family| family >> 4 > 3 || family & 0xF > 2) {
        return Err(HeaderError::Malformed("a family or transport that is not assigned"));
    }
    let Some(&[.., family, high, low]) = bytes.first_chunk::<PREFIX>() else {
        return Ok(HeaderProgress::Incomplete { needs: PREFIX });
    };
    let length = PREFIX + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_LENGTH {
        return Err(HeaderError::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(HeaderProgress::Incomplete { needs: length }) };
    // The rest of a LOCAL header is to be discarded, whatever it is.
    let header = if command == Some(LOCAL) { Subject::Local.into() } else { proxied(header, family)? };
    Ok(HeaderProgress::Complete { header, length })
}

/// A whole header of the command PROXY.
fn proxied(header: &[u8], family: u8) -> Result<Header, HeaderError> {
    let rest = header.get(PREFIX..).unwrap_or_default();
    let addresses = match family {
        TCP4 => v4(rest).map(|(endpoints, tlvs)| (Subject::Tcp(endpoints), tlvs)),
        TCP6 => v6(rest).map(|(endpoints, tlvs)| (Subject::Tcp(endpoints), tlvs)),
        UDP4 => v4(rest).map(|(_, tlvs)| (Subject::Unknown, tlvs)),
        UDP6 => v6(rest).map(|(_, tlvs)| (Subject::Unknown, tlvs)),
        UNIX_STREAM | UNIX_DATAGRAM => rest.get(UNIX_ADDRESSES..).map(|tlvs| (Subject::Unknown, tlvs)),
        // Nobody knows how long its addresses are, and where TLVs begin.
        _ => return Ok(Subject::Unknown.into()),
    };
    let (subject, tlvs) = addresses.ok_or(HeaderError::Malformed("addresses that are cut short"))?;
    let begin = header.len() - tlvs.len();
    let (tlvs, place) = Tlvs::parse(tlvs).map_err(HeaderError::Malformed)?;
    match place {
        Some(place) if !is_intact(header, begin + place) => Err(HeaderError::Checksum),
        _ => Ok(Header { subject, tlvs }),
    }
}

/// Compares the checksum at a place of the header with that of the header with zeros in its place.
fn is_intact(header: &[u8], place: usize) -> bool {
    let Some((before, rest)) = header.split_at_checked(place) else { return false };
    let Some((stated, after)) = rest.split_first_chunk::<4>() else { return false };
    checksum([before, &[0; 4], after]) == u32::from_be_bytes(*stated)
}

fn v4(bytes: &[u8]) -> Option<(Endpoints, &[u8])> {
    let (source, bytes) = bytes.split_first_chunk::<4>()?;
    let (destination, bytes) = bytes.split_first_chunk::<4>()?;
    let ([from, to], tlvs) = ports(bytes)?;
    let [source, destination] = [*source, *destination].map(Ipv4Addr::from);
    Some((endpoints((source, from), (destination, to)), tlvs))
}

fn v6(bytes: &[u8]) -> Option<(Endpoints, &[u8])> {
    let (source, bytes) = bytes.split_first_chunk::<16>()?;
    let (destination, bytes) = bytes.split_first_chunk::<16>()?;
    let ([from, to], tlvs) = ports(bytes)?;
    let [source, destination] = [*source, *destination].map(Ipv6Addr::from);
    Some((endpoints((source, from), (destination, to)), tlvs))
}

fn ports(bytes: &[u8]) -> Option<([u16; 2], &[u8])> {
    let ([a, b, c, d], rest) = bytes.split_first_chunk::<4>()?;
    Some(([u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])], rest))
}

fn endpoints(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Endpoints {
    Endpoints { source: source.into(), destination: destination.into() }
}

/// Writes a header.
pub(super) fn encode(header: &Header) -> Vec<u8> {
    let (command, family, addresses) = match header.subject {
        Subject::Local => return prefixed(LOCAL, UNSPEC, &[], &[]),
        // After addresses of no length nobody looks for TLVs.
        Subject::Unknown => return prefixed(PROXY, UNSPEC, &[], &[]),
        Subject::Tcp(endpoints) => {
            let (family, addresses) = addresses(of_one_family(endpoints));
            (PROXY, family, addresses)
        }
    };
    let [.., h, l] = 4_u32.to_be_bytes();
    let zeroed = [header.tlvs.bytes(), &[tlv_type::CRC32C, h, l], &[0; 4]].concat();
    let mut bytes = prefixed(command, family, &addresses, &zeroed);
    let sum = checksum([bytes.as_slice()]);
    bytes.truncate(bytes.len() - 4);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

fn prefixed(command: u8, family: u8, addresses: &[u8], tlvs: &[u8]) -> Vec<u8> {
    // TLVs are bounded far below.
    let length = u16::try_from(addresses.len() + tlvs.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, addresses, tlvs].concat()
}

/// Family and addresses of endpoints of one family.
fn addresses(Endpoints { source, destination }: Endpoints) -> (u8, Vec<u8>) {
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            (TCP4, [&source.ip().octets()[..], &destination.ip().octets(), &ports].concat())
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(|socket| match socket.ip() {
                std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                std::net::IpAddr::V6(v6) => v6.octets(),
            });
            (TCP6, [&source[..], &destination, &ports].concat())
        }
    }
}
