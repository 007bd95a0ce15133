//! Address families, as a set.

use std::net::IpAddr;

/// IPv4, IPv6, both or none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

impl Families {
    /// Neither family.
    pub const NONE: Self = Self { v4: false, v6: false };
    /// Both families.
    pub const BOTH: Self = Self { v4: true, v6: true };

    /// Families of addresses.
    pub fn of(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let one = |address: IpAddr| Self { v4: address.is_ipv4(), v6: address.is_ipv6() };
        addresses.into_iter().map(one).fold(Self::NONE, Self::or)
    }

    /// True if the set contains the family of an address.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// True for [`Families::NONE`].
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Union.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { v4: self.v4 || other.v4, v6: self.v6 || other.v6 }
    }

    /// Complement.
    #[must_use]
    pub fn others(self) -> Self {
        Self { v4: !self.v4, v6: !self.v6 }
    }
}
