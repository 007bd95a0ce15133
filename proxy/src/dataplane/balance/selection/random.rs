//! Random selection by weight, and the power of two choices: the better one of two that are drawn. Workers and nodes
//! that draw for themselves do not meet at the same backend, as those that look for the best one do.

use super::Eligible;

/// Draws of one worker. Nothing is kept between them, and nothing allocated.
#[derive(Debug)]
pub(in crate::dataplane::balance) struct Draws(fastrand::Rng);

impl Draws {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Self(random)
    }

    /// A backend, each with a chance in proportion to its weight.
    pub(super) fn select(&mut self, eligible: &[Eligible]) -> Option<usize> {
        self.draw(eligible, total(eligible), None).map(|drawn| drawn.index)
    }

    /// Draws two, of which the one with less load is selected; of equals, the one that was drawn first.
    pub(super) fn select_of_two(&mut self, eligible: &[Eligible]) -> Option<usize> {
        let all = total(eligible);
        let first = self.draw(eligible, all, None)?;
        let second = self.draw(eligible, all - u64::from(first.weight), Some(first.index));
        let better = second.filter(|second| second.cmp_load(first).is_lt());
        Some(better.unwrap_or(first).index)
    }

    /// Draws a backend, other than the one at `drawn`; `total`: sum of the weights of those that are drawn from.
    fn draw<'a>(
        &mut self,
        eligible: &'a [Eligible],
        total: u64,
        drawn: Option<usize>,
    ) -> Option<&'a Eligible> {
        if total == 0 {
            return None;
        }
        let mut rest = self.0.u64(..total);
        let mut others = eligible.iter().filter(|candidate| Some(candidate.index) != drawn);
        others.find(|candidate| match rest.checked_sub(candidate.weight.into()) {
            Some(less) => {
                rest = less;
                false
            }
            None => true,
        })
    }
}

fn total(eligible: &[Eligible]) -> u64 {
    eligible.iter().map(|candidate| u64::from(candidate.weight)).sum()
}
