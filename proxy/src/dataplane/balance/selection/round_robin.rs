//! Smooth weighted round robin: the turns of a heavy backend are spread out, not in a row.

use super::Eligible;

/// Credit of each backend, by its place in the pool.
#[derive(Debug)]
pub(in crate::dataplane::balance) struct RoundRobin {
    credits: Vec<i64>,
}

impl RoundRobin {
    /// No backend has the credit of a whole turn yet; the one at `start` is a little ahead, so that it begins
    /// among equals.
    pub(super) fn new(backends: usize, start: usize) -> Self {
        let ahead = start.checked_rem(backends);
        let credits = (0..backends).map(|index| i64::from(Some(index) == ahead)).collect();
        Self { credits }
    }

    pub(super) fn inherit(&mut self, old: &Self, old_index: impl Fn(usize) -> Option<usize>) {
        for (index, credit) in self.credits.iter_mut().enumerate() {
            *credit = old_index(index).and_then(|index| old.credits.get(index)).copied().unwrap_or(0);
        }
    }

    /// Credits each backend its weight; the one with the most credit is selected and debited the sum.
    pub(super) fn select(&mut self, eligible: &[Eligible]) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(i64, usize)> = None;
        for candidate in eligible {
            let weight = i64::from(candidate.weight);
            let Some(credit) = self.credits.get_mut(candidate.index) else { continue };
            total += weight;
            *credit += weight;
            if best.is_none_or(|(most, _)| *credit > most) {
                best = Some((*credit, candidate.index));
            }
        }
        let (_, index) = best?;
        *self.credits.get_mut(index)? -= total;
        Some(index)
    }
}
