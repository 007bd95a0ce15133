//! Weighted rendezvous hashing: each backend draws a number for the client's key, and the highest wins.
//!
//! Clients of a backend that goes are the only ones that move; one that comes takes its share, and nobody else moves.
//! It has no state, so all workers and all nodes decide alike.

use super::Eligible;
use crate::dataplane::balance::hash::mix;

/// The winner among the eligible backends for a client with this hash.
pub(super) fn select(hash: u64, eligible: &[Eligible]) -> Option<usize> {
    winner(hash, eligible.iter().map(|candidate| (candidate.index, candidate.weight, candidate.identity)))
}

/// The index of the winner among candidates with index, weight and identity, for a client with this hash.
pub(in crate::dataplane::balance) fn winner(
    hash: u64,
    candidates: impl Iterator<Item = (usize, u32, u64)>,
) -> Option<usize> {
    let scored = candidates.map(|(index, weight, identity)| (score(hash, weight, identity), index));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, index)| index)
}

/// `-weight / ln(u)` with `u` even in (0, 1): the chance to be the highest is then in proportion to the
/// weight.
fn score(hash: u64, weight: u32, identity: u64) -> f64 {
    let draw = mix(hash ^ identity) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let even = (draw as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / even.ln()
}
