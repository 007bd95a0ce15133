//! Names and MAC addresses that a lab takes or makes.

use std::fmt;
use std::str::FromStr;

use crate::error::{LabError, Result};

/// Checks a name that becomes part of paths and command lines: 1 to 40 of `A-Z a-z 0-9 . _ -`, beginning with a letter
/// or digit.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= 40 && name.chars().all(plain) {
        return Ok(());
    }
    Err(LabError::invalid(
        what,
        name,
        "1 to 40 letters, digits, dots, dashes, beginning with a letter or digit",
    ))
}

/// An Ethernet address, written `02:00:00:00:00:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The lab's own addresses, locally administered: `kind` tells VMs from router ports.
    pub(crate) fn numbered(kind: u8, index: u32) -> Mac {
        let [a, b, c, d] = index.to_be_bytes();
        Mac([0x02, kind, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Mac> {
        let wrong = || LabError::invalid("MAC", text, "six pairs of hexadecimal digits with colons");
        // from_str_radix alone would take a sign.
        let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
        let octet = |pair: &str| is_pair(pair).then(|| u8::from_str_radix(pair, 16).ok()).flatten();
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Mac).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_their_directory_are_refused() {
        for bad in ["", "..", "../x", "-rf", "a/b", "a b", "ä", &"x".repeat(41)] {
            assert!(check_name("lab", bad).is_err(), "{bad}");
        }
        for good in ["a", "vm1", "two_labs.v4-x", "0"] {
            assert!(check_name("lab", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_mac_is_read_as_it_is_written() {
        let mac = Mac::numbered(1, 258);
        assert_eq!(mac.to_string(), "02:01:00:00:01:02");
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        for bad in ["", "02:00", "02:00:00:00:00:+1", "02:00:00:00:00:00:00", "02:00:00:00:00:1"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
