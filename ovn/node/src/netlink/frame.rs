//! Frames of address announcements.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Mac;

const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet address of the all-nodes group `ff02::1` (RFC 2464, section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Operations of ARP (RFC 826).
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ICMPV6: u8 = 58;
/// Length of a neighbour advertisement with one link-layer address option.
const ADVERTISEMENT: u16 = 32;

/// An ARP announcement ("gratuitous ARP"): a broadcast whose sender and target are both `address`, which is at `mac`. An Ethernet
/// frame of `source` without padding. A request (RFC 5227, section 3) for an address of the link's own; a reply for one at another
/// MAC, since OVN before 24.03 passes requests for an address that a router answers for to that router alone.
#[must_use]
pub fn arp_announcement(source: Mac, mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    // Linux takes a gratuitous reply for one if it names the MAC as its target's, too.
    let (operation, target) = if source == mac { (REQUEST, [0; 6]) } else { (REPLY, mac.0) };
    let head = [
        0, 1, // hardware: Ethernet
        0x08, 0x00, // protocol: IPv4
        6, 4, // lengths of their addresses
        0, operation,
    ];
    let parts: [&[u8]; 8] =
        [&BROADCAST, &source.0, &ETHERTYPE_ARP, &head, &mac.0, &address.octets(), &target, &address.octets()];
    parts.concat()
}

/// An unsolicited neighbour advertisement (RFC 4861, section 7.2.6) to all nodes, with the override flag: neighbours replace
/// another MAC of `address` in their caches by `mac`. An Ethernet frame of `source`.
#[must_use]
pub fn neighbor_advertisement(source: Mac, mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let message = |checksum: [u8; 2]| {
        let parts: [&[u8]; 6] = [
            &[136, 0], // type, code
            &checksum,
            &[0x20, 0, 0, 0], // flags: override; not solicited, not a router
            &address.octets(),
            &[2, 1], // option: target link-layer address, of 8 bytes
            &mac.0,
        ];
        parts.concat()
    };
    let checksum = checksum(address, ALL_NODES, &message([0, 0]));
    let [long, short] = ADVERTISEMENT.to_be_bytes();
    let header = [
        0x60, 0, 0, 0, // version 6
        long, short, ICMPV6, 255, // hop limit: proves that no router forwarded it
    ];
    let parts: [&[u8]; 7] = [
        &ALL_NODES_MAC,
        &source.0,
        &ETHERTYPE_IPV6,
        &header,
        &address.octets(),
        &ALL_NODES.octets(),
        &message(checksum.to_be_bytes()),
    ];
    parts.concat()
}

/// The checksum of an ICMPv6 message of even length (RFC 4443, section 2.3, and RFC 8200, section 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))).sum()
    };
    let sum = words(&from.octets())
        + words(&to.octets())
        + u32::from(ADVERTISEMENT)
        + u32::from(ICMPV6)
        + words(message);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 0x05]);

    #[test]
    fn an_arp_announcement_is_the_standards() {
        let frame = arp_announcement(MAC, MAC, Ipv4Addr::new(10, 0, 0, 9));
        let expected = "ffffffffffff0200000000050806\
            00010800060400010200000000050a0000090000000000000a000009";
        assert_eq!(hex(&frame), expected.replace([' ', '\n'], ""));
    }

    #[test]
    fn a_neighbor_advertisement_is_the_standards() {
        let frame = neighbor_advertisement(MAC, MAC, "fd00::9".parse().unwrap());
        let (ethernet, rest) = frame.split_at(14);
        let (ip, icmp) = rest.split_at(40);
        assert_eq!(hex(ethernet), "33330000000102000000000586dd");
        let (head, addresses) = ip.split_at(8);
        assert_eq!(hex(head), "6000000000203aff");
        assert_eq!(hex(addresses), "fd000000000000000000000000000009ff020000000000000000000000000001");
        assert_eq!(hex(&icmp[..2]), "8800");
        assert_eq!(hex(&icmp[4..]), "20000000fd0000000000000000000000000000090201020000000005");
    }

    #[test]
    fn another_mac_is_announced_from_the_own_one() {
        let other = Mac([0x0e, 0, 0, 0, 0, 0x77]);
        let arp = hex(&arp_announcement(MAC, other, Ipv4Addr::new(10, 0, 0, 9)));
        assert!(
            arp.starts_with("ffffffffffff0200000000050806")
                && arp.ends_with("00020e00000000770a0000090e00000000770a000009")
        );
        let advertisement = hex(&neighbor_advertisement(MAC, other, "fd00::9".parse().unwrap()));
        assert!(advertisement.starts_with("33330000000102000000000586dd"));
        assert!(advertisement.ends_with("02010e0000000077"));
    }

    /// With its checksum in place, pseudo-header and message add up to nothing.
    #[test]
    fn the_checksum_is_what_a_receiver_computes() {
        for address in ["fd00::9", "fe80::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let address = address.parse().unwrap();
            let frame = neighbor_advertisement(MAC, Mac([0xfe; 6]), address);
            assert_eq!(checksum(address, ALL_NODES, &frame[54..]), 0, "{address}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
