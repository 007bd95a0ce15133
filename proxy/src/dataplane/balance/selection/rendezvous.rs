//! Weighted rendezvous hashing: each backend draws a number for the client, and the highest wins.
//!
//! When a backend goes, only its own clients move; when one comes, it takes its share and nobody else moves. Nothing is
//! remembered, so all workers and all nodes decide alike.

use std::net::{IpAddr, SocketAddr};

use super::Eligible;

/// The hash of a client's address. An IPv4 client is the same one when it comes as IPv4-mapped IPv6.
pub(super) fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => mix(u64::from(address.to_bits())),
        IpAddr::V6(address) => {
            let [high, low] = halves(address.to_bits());
            mix(high ^ mix(low))
        }
    }
}

/// The hash of a client's address and port.
pub(super) fn of_socket(client: SocketAddr) -> u64 {
    mix(of_address(client.ip()) ^ u64::from(client.port()))
}

/// The winner among those that are eligible.
pub(super) fn choose(key: u64, eligible: &[Eligible]) -> Option<usize> {
    let scored = eligible.iter().map(|candidate| (score(key, candidate), candidate.index));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, index)| index)
}

/// `-weight / ln(u)` with `u` even in (0, 1): the chance to be the highest is then in proportion to the weight.
fn score(key: u64, candidate: &Eligible) -> f64 {
    let draw = mix(key ^ candidate.identity) >> 11;
    #[allow(clippy::cast_precision_loss)] // 53 bits fit
    let even = (draw as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(candidate.weight) / even.ln()
}

/// SplitMix64's finaliser: every bit of the input changes half of the output's.
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[allow(clippy::cast_possible_truncation)] // the halves are what is asked for
fn halves(bits: u128) -> [u64; 2] {
    [(bits >> 64) as u64, bits as u64]
}
