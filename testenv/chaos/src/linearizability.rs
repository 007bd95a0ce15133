//! Linearizability: operations that overlapped in time are put into one order, each with its effect at one moment between its
//! call and its answer, by the algorithm of Wing and Gong with Lowe's memory of what was tried. Pure, and of any model.

use std::collections::HashSet;
use std::hash::Hash;

/// Configurations that are looked at before it is given up. Far above what a history of one object takes.
const LIMIT: usize = 4_000_000;

/// Sequential specification of an object.
pub trait Model {
    /// State of the object.
    type State: Clone + Eq + Hash;
    /// Operation on it, with its answer.
    type Operation;

    /// The state after an operation; `None`: it cannot have this answer in this state.
    fn apply(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation with its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<O> {
    /// It takes effect after this moment.
    pub invoked: u64,
    /// It took effect before this moment; `None`: it may do so at any later one, or never.
    pub returned: Option<u64>,
    /// The operation.
    pub operation: O,
}

/// Reason why there is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// No order explains the answers. However it is tried, at most `placed` operations go before none of `stuck` (places in
    /// the history) can be next.
    None {
        /// Operations in the longest order that was found.
        placed: usize,
        /// Answered operations that are not in it.
        stuck: Vec<usize>,
    },
    /// Too many orders to try.
    Undecided,
}

/// Finds an order.
///
/// # Errors
/// There is none, or it cannot be told.
pub fn check<M: Model>(initial: M::State, history: &[Timed<M::Operation>]) -> Result<(), Disorder> {
    let mut search = Search::<M> { history, tried: HashSet::new(), best: Placed::none(history.len()) };
    let mut open = vec![(Placed::none(history.len()), initial)];
    while let Some((placed, state)) = open.pop() {
        let Some(deadline) = search.deadline(&placed) else { return Ok(()) };
        if search.tried.len() > LIMIT {
            return Err(Disorder::Undecided);
        }
        search.extend(&placed, &state, deadline, &mut open);
    }
    Err(search.disorder())
}

/// Set of operations that have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Placed {
    bits: Vec<u64>,
    count: usize,
}

impl Placed {
    fn none(operations: usize) -> Self {
        Self { bits: vec![0; operations.div_ceil(64)], count: 0 }
    }

    fn has(&self, index: usize) -> bool {
        self.bits.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    fn with(&self, index: usize) -> Self {
        let mut more = self.clone();
        if let Some(word) = more.bits.get_mut(index / 64) {
            *word |= 1 << (index % 64);
            more.count += 1;
        }
        more
    }
}

struct Search<'a, M: Model> {
    history: &'a [Timed<M::Operation>],
    tried: HashSet<(Placed, M::State)>,
    /// The longest order until now.
    best: Placed,
}

impl<M: Model> Search<'_, M> {
    /// The first answer among operations that have not taken effect: none that was called later can be next. `None`: all
    /// that were answered have.
    fn deadline(&self, placed: &Placed) -> Option<u64> {
        let left = self.history.iter().enumerate().filter(|(index, _)| !placed.has(*index));
        left.filter_map(|(_, timed)| timed.returned).min()
    }

    fn extend(
        &mut self,
        placed: &Placed,
        state: &M::State,
        deadline: u64,
        open: &mut Vec<(Placed, M::State)>,
    ) {
        // From the last to the first, since the stack is emptied from its end: in the order of calls, which is mostly right.
        for (index, timed) in self.history.iter().enumerate().rev() {
            if placed.has(index) || timed.invoked > deadline {
                continue;
            }
            let Some(next) = M::apply(state, &timed.operation) else { continue };
            let more = placed.with(index);
            if more.count > self.best.count {
                self.best = more.clone();
            }
            if self.tried.insert((more.clone(), next.clone())) {
                open.push((more, next));
            }
        }
    }

    fn disorder(&self) -> Disorder {
        let answered = |(index, timed): (usize, &Timed<M::Operation>)| {
            (timed.returned.is_some() && !self.best.has(index)).then_some(index)
        };
        let stuck = self.history.iter().enumerate().filter_map(answered).collect();
        Disorder::None { placed: self.best.count, stuck }
    }
}

#[cfg(test)]
mod tests;
