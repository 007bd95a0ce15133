//! Clients that a listener admits, and proxies that it trusts, by their addresses. Pure.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Clients that a listener admits. Compiled once for each configuration: a lookup takes logarithmic time, however the
/// subnets overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum AllowedClients {
    /// All of them.
    All,
    /// Clients with one of these addresses.
    Within(AddressSet),
}

/// Addresses within subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::dataplane) struct AddressSet {
    v4: AddressRanges,
    v6: AddressRanges,
}

/// First and last addresses, as numbers: in ascending order, with gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AddressRanges(Vec<(u128, u128)>);

impl AllowedClients {
    /// Clients within these subnets; all where there is no subnet.
    pub(in crate::dataplane) fn new(cidrs: &[IpNetwork]) -> Self {
        if cidrs.is_empty() { Self::All } else { Self::Within(AddressSet::new(cidrs)) }
    }

    /// Returns true if a client with this address is admitted.
    pub(in crate::dataplane) fn admit(&self, client: IpAddr) -> bool {
        match self {
            Self::All => true,
            Self::Within(addresses) => addresses.contain(client),
        }
    }
}

impl AddressSet {
    /// Addresses within these subnets.
    pub(in crate::dataplane) fn new(cidrs: &[IpNetwork]) -> Self {
        let of_family = |is_v4: bool| {
            let own = cidrs.iter().filter(|cidr| cidr.is_ipv4() == is_v4);
            AddressRanges::new(own.map(|cidr| (number(cidr.network()), number(cidr.broadcast()))).collect())
        };
        Self { v4: of_family(true), v6: of_family(false) }
    }

    /// Returns true if an address is within one of the subnets. An IPv4 address in IPv6 notation counts as IPv4.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let Self { v4, v6 } = self;
        if address.is_ipv4() { v4.contain(number(address)) } else { v6.contain(number(address)) }
    }
}

impl AddressRanges {
    fn new(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn contain(&self, address: u128) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|(_, last)| address <= *last)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Subnets, near each other as often as not, so that they touch and overlap.
    fn cidr() -> impl Strategy<Value = IpNetwork> {
        let bits = prop_oneof![0_u128..64, any::<u128>(), Just(u128::MAX)];
        (any::<bool>(), bits, 0_u8..=128).prop_map(|(is_v4, bits, prefix)| {
            let address = if is_v4 { v4(bits) } else { v6(bits) };
            let prefix = if is_v4 { prefix % 33 } else { prefix };
            IpNetwork::new(address, prefix).unwrap()
        })
    }

    fn v4(bits: u128) -> IpAddr {
        Ipv4Addr::from_bits((bits % (1 << 32)) as u32).into()
    }

    fn v6(bits: u128) -> IpAddr {
        Ipv6Addr::from_bits(bits).into()
    }

    proptest! {
        #[test]
        fn a_lookup_finds_what_a_look_at_each_subnet_does(
            cidrs in prop::collection::vec(cidr(), 0..20),
            others in prop::collection::vec(prop_oneof![0_u128..80, any::<u128>()], 1..20),
        ) {
            let clients = AllowedClients::new(&cidrs);
            let edges = cidrs.iter().flat_map(|cidr| [cidr.network(), cidr.broadcast()]).map(number);
            let near = edges.flat_map(|edge| [edge.wrapping_sub(1), edge, edge.wrapping_add(1)]);
            for bits in near.chain(others) {
                for client in [v4(bits), v6(bits)] {
                    let mapped = matches!(client, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
                    let naive = cidrs.is_empty() || cidrs.iter().any(|cidr| cidr.contains(client));
                    prop_assert!(mapped || clients.admit(client) == naive, "{client} in {cidrs:?}");
                }
            }
        }
    }

    #[test]
    fn an_ipv4_client_in_ipv6_notation_is_an_ipv4_client() {
        let admit = |cidrs: &[&str], client: &str| {
            let cidrs: Vec<IpNetwork> = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            AllowedClients::new(&cidrs).admit(client.parse().unwrap())
        };
        assert!(admit(&["10.0.0.0/8"], "::ffff:10.1.2.3"));
        assert!(!admit(&["10.0.0.0/8", "::/0"], "::ffff:11.1.2.3"));
        assert!(!admit(&["::ffff:0:0/96"], "11.1.2.3"));
        assert!(
            !admit(&["10.0.0.0/8"], "fd00::1") && !admit(&["fd00::/8"], "10.0.0.1"),
            "nobody of the other family"
        );
    }
}
