//! Versions of OVN and Open vSwitch.

use std::fmt;

/// A version such as 25.03.0 (OVN: year, month, patch) or 3.5.0 (Open vSwitch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The version in the first line of what `--version` prints, such as `ovn-nbctl 25.03.0`.
    #[must_use]
    pub fn said(text: &str) -> Option<Self> {
        text.lines().next()?.split_whitespace().find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let mut numbers = word.split('.').map(str::parse);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { major, minor, patch: numbers.next().and_then(Result::ok).unwrap_or(0) })
    }

    /// True for two versions that differ in the patch at most.
    #[must_use]
    pub fn is_same_series(self, other: Version) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // OVN counts months, in two digits.
        let width = if self.major >= 20 { 2 } else { 1 };
        write!(f, "{}.{:0width$}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_compared_and_printed() {
        let ovn = Version::said("ovn-nbctl 25.03.0\nOpen vSwitch Library 3.5.0\nDB Schema 7.11.0\n").unwrap();
        assert_eq!((ovn, ovn.to_string().as_str()), (Version::new(25, 3, 0), "25.03.0"));
        let ovs = Version::said("ovs-vswitchd (Open vSwitch) 3.1.0\n").unwrap();
        assert_eq!((ovs, ovs.to_string().as_str()), (Version::new(3, 1, 0), "3.1.0"));
        assert!(ovn > Version::new(24, 9, 3) && ovn.is_same_series(Version::new(25, 3, 2)));
        assert_eq!(Version::said("not found"), None);
        assert_eq!(Version::said(""), None);
    }
}
