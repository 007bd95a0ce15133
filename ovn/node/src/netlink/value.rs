//! Names, indexes and hardware addresses of links.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Name of a link: 1 to 15 printable ASCII characters that the kernel's `dev_valid_name` accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

/// Text that is not an [`IfName`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not the name of a link: it must have 1 to 15 printable ASCII characters, without space, '/', ':' or '%'"
)]
pub struct NotIfName(pub String);

impl IfName {
    /// Length limit, in bytes.
    pub const MAX: usize = 15;

    /// Name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = NotIfName;

    fn from_str(text: &str) -> Result<Self, NotIfName> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
        // "%d" in a name asks the kernel to choose a number.
        let is_name =
            (1..=Self::MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.contains('%');
        if !is_name || text == "." || text == ".." {
            return Err(NotIfName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Index of a link in its namespace. Never 0; not reused soon after the link is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl LinkIndex {
    /// Index of the loopback in every namespace (the kernel's `LOOPBACK_IFINDEX`).
    pub const LOOPBACK: Self = Self(1);
}

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ethernet address, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Text that is not a [`Mac`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a MAC address: it must have six pairs of hexadecimal digits, separated by colons")]
pub struct NotMac(pub String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = NotMac;

    fn from_str(text: &str) -> Result<Self, NotMac> {
        // from_str_radix would also parse a sign.
        let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let octet = |pair: &str| is_pair(pair).then(|| u8::from_str_radix(pair, 16).ok()).flatten();
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let octets = octets.and_then(|octets| octets.try_into().ok());
        octets.map(Self).ok_or_else(|| NotMac(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_the_kernel_takes() {
        for good in ["a", "eth0.1", "fl-0123456789ab", "v@x"] {
            assert_eq!(good.parse::<IfName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "fl-0123456789abc", "fl%d", "ä", "a\n", "a\0"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        let mac = Mac([2, 0, 0, 0xab, 1, 0xff]);
        assert_eq!(mac.to_string(), "02:00:00:ab:01:ff");
        assert_eq!("02:00:00:AB:01:ff".parse(), Ok(mac));
        for bad in ["", "02:00", "02:00:00:00:00:+1", "02:00:00:00:00:00:00", "02:00:00:00:00:1"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
