//! Least connections: the backend with the fewest for its weight; among equals, the one whose latest turn is
//! longest ago.

use super::Eligible;

/// Number of each backend's latest turn, by its place in the pool. Without it an idle pool would send
/// everybody to its first backend.
#[derive(Debug)]
pub(in crate::dataplane::balance) struct LeastConnections {
    turns: Vec<u64>,
    latest: u64,
}

impl LeastConnections {
    pub(super) fn new(backends: usize, start: usize) -> Self {
        let first = start.checked_rem(backends).unwrap_or(0);
        let turns = (0..backends).map(|index| u64::from(index < first)).collect();
        Self { turns, latest: 1 }
    }

    pub(super) fn inherit(&mut self, old: &Self, old_index: impl Fn(usize) -> Option<usize>) {
        self.latest = old.latest;
        for (index, turn) in self.turns.iter_mut().enumerate() {
            *turn = old_index(index).and_then(|index| old.turns.get(index)).copied().unwrap_or(0);
        }
    }

    pub(super) fn select(&mut self, eligible: &[Eligible]) -> Option<usize> {
        let latest_turn = |candidate: &Eligible| self.turns.get(candidate.index).copied().unwrap_or(0);
        let best = eligible.iter().min_by(|one, other| {
            one.cmp_load(other).then_with(|| latest_turn(one).cmp(&latest_turn(other)))
        })?;
        self.latest += 1;
        *self.turns.get_mut(best.index)? = self.latest;
        Some(best.index)
    }
}
