//! Hashes that all workers, nodes and releases agree on. Not for tables that a client could flood.

use std::net::IpAddr;

/// Hash of an address in its canonical form.
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => mix(u64::from(address.to_bits())),
        IpAddr::V6(address) => {
            let [high, low] = halves(address.to_bits());
            of_halves(high, low)
        }
    }
}

/// Hash of 128 bits.
pub(super) fn of_halves(high: u64, low: u64) -> u64 {
    mix(high ^ mix(low))
}

/// SplitMix64's finaliser: every bit of the input changes half of the output's.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}
