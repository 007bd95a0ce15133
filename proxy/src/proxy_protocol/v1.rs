//! Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 40000 80`, CR, LF.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::{self, FromStr},
};

use super::{Endpoints, HeaderError, HeaderProgress, Subject, of_one_family};

/// Longest header, with its end, in bytes.
pub const MAX_LENGTH: usize = 107;

/// Shortest header: `PROXY UNKNOWN`, CR, LF.
pub(super) const MIN_LENGTH: usize = 15;

const END: &[u8] = b"\r\n";

/// Beginnings of headers, and the most bytes that each has.
const KINDS: [(&[u8], usize, Family); 3] = [
    (b"PROXY TCP4 ", 56, Family::V4),
    (b"PROXY TCP6 ", 104, Family::V6),
    (b"PROXY UNKNOWN", MAX_LENGTH, Family::Unknown),
];

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
    Unknown,
}

/// Parses bytes of which the first is a `P`.
pub(super) fn parse(bytes: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let Some((start, most, family)) = KINDS.iter().find(|(start, ..)| bytes.starts_with(start)) else {
        let may_become = KINDS.iter().any(|(start, ..)| start.starts_with(bytes));
        let incomplete = HeaderProgress::Incomplete { needs: MIN_LENGTH };
        return match (may_become, bytes.starts_with(b"PROXY ")) {
            (true, _) => Ok(incomplete),
            (false, true) => Err(HeaderError::Malformed("neither TCP4 nor TCP6 nor UNKNOWN")),
            (false, false) => Err(HeaderError::Missing),
        };
    };
    let line = bytes.get(..*most).unwrap_or(bytes);
    let Some(end) = line.windows(END.len()).position(|pair| pair == END) else {
        let needs = (bytes.len() + if bytes.ends_with(b"\r") { 1 } else { END.len() }).max(MIN_LENGTH);
        return if needs > *most {
            Err(HeaderError::TooLong)
        } else {
            Ok(HeaderProgress::Incomplete { needs })
        };
    };
    let rest = line.get(start.len()..end).unwrap_or_default();
    let subject = match family {
        Family::V4 => endpoints::<Ipv4Addr>(rest),
        Family::V6 => endpoints::<Ipv6Addr>(rest),
        Family::Unknown => (rest.is_empty() || rest.starts_with(b" ")).then_some(Subject::Unknown),
    };
    let subject = subject.ok_or(HeaderError::Malformed("addresses or ports of version 1"))?;
    Ok(HeaderProgress::Complete { header: subject.into(), length: end + END.len() })
}

/// `SOURCE DESTINATION PORT PORT`, with exactly one space between them.
fn endpoints<A: FromStr + Into<IpAddr>>(text: &[u8]) -> Option<Subject> {
    let mut words = str::from_utf8(text).ok()?.split(' ');
    let mut word = || words.next();
    let (source, destination): (A, A) = (word()?.parse().ok()?, word()?.parse().ok()?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    let endpoints = Endpoints {
        source: SocketAddr::new(source.into(), from),
        destination: SocketAddr::new(destination.into(), to),
    };
    word().is_none().then_some(Subject::Tcp(endpoints))
}

/// A number without zeros in front of it.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

pub(super) fn encode(subject: Subject) -> Vec<u8> {
    let Subject::Tcp(endpoints) = subject else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let Endpoints { source, destination } = of_one_family(endpoints);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let [from, to] = [source, destination].map(|socket| address(socket.ip()));
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
}

/// An address in text. Version 1 has no dots in IPv6 addresses.
fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            let [.., high, low] = v6.segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        address => address.to_string(),
    }
}
