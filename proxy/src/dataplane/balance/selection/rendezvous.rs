//! Weighted rendezvous hashing: each backend draws a number for the client's key, and the highest wins.
//!
//! When a backend goes, only its own clients move; when one comes, it takes its share and nobody else moves.
//! It has no state, so all workers and all nodes decide alike.

use super::Eligible;
use crate::dataplane::balance::hash::mix;

/// The winner among the eligible backends for a client with this hash.
pub(super) fn select(hash: u64, eligible: &[Eligible]) -> Option<usize> {
    let scored = eligible.iter().map(|candidate| (score(hash, candidate), candidate.index));
    scored.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, index)| index)
}

/// `-weight / ln(u)` with `u` even in (0, 1): the chance to be the highest is then in proportion to the
/// weight.
fn score(hash: u64, candidate: &Eligible) -> f64 {
    let draw = mix(hash ^ candidate.identity) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let even = (draw as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(candidate.weight) / even.ln()
}
