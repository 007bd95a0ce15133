//! The backend with the fewest connections for its weight; among equals, the one that waited longest.

use super::Eligible;

/// When each backend had its latest turn, by its place in the pool. Without it an idle pool would send everybody to its first
/// backend.
#[derive(Debug)]
pub(in super::super) struct LeastConnections {
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

    pub(super) fn choose(&mut self, eligible: &[Eligible]) -> Option<usize> {
        let waited = |candidate: &Eligible| self.turns.get(candidate.index).copied().unwrap_or(0);
        let best = eligible.iter().min_by(|one, other| {
            load(one, other).cmp(&load(other, one)).then_with(|| waited(one).cmp(&waited(other)))
        })?;
        self.latest += 1;
        *self.turns.get_mut(best.index)? = self.latest;
        Some(best.index)
    }
}

/// The load of `one` with the new connection, times the weight of `other`: a comparison of fractions without dividing.
fn load(one: &Eligible, other: &Eligible) -> u64 {
    (u64::from(one.active) + 1) * u64::from(other.weight)
}
