//! Admission: the budget of connections of the process, shared out among networks. Each connection takes
//! descriptors, and one that cannot get them fails a client that had been accepted. So clients are left in the
//! kernel's queue while the budget is spent; those of a network that has used up its share are refused.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use uuid::Uuid;

use super::share::{self, ClientRefusal, Division, NetworkUse, Origin};
use crate::dataplane::pause::RetryPause;

/// Budget of connections, shared by all workers.
#[derive(Debug)]
pub(in crate::dataplane) struct ConnectionBudget {
    totals: Arc<Totals>,
    shares: Mutex<HashMap<Uuid, Arc<NetworkShare>>>,
}

/// Connections of all networks.
#[derive(Debug)]
struct Totals {
    limit: usize,
    used: AtomicUsize,
    /// [`Division::common`].
    common: AtomicUsize,
    /// Connections above the guarantees. Negative for a moment at most.
    borrowed: AtomicI64,
}

impl ConnectionBudget {
    /// A budget of `limit` connections.
    pub(in crate::dataplane) fn new(limit: usize) -> Arc<Self> {
        let totals = Totals {
            limit,
            used: AtomicUsize::new(0),
            common: AtomicUsize::new(0),
            borrowed: AtomicI64::new(0),
        };
        Arc::new(Self { totals: Arc::new(totals), shares: Mutex::default() })
    }

    /// True if no further client should be accepted. Acceptors that ask at the same moment may all get false:
    /// the limit can be exceeded by one for each listening socket.
    pub(in crate::dataplane) fn is_spent(&self) -> bool {
        self.totals.used.load(Relaxed) >= self.totals.limit
    }

    /// Divides the budget among these networks. One that has left keeps its connections, as borrowed ones.
    pub(in crate::dataplane) fn divide(&self, networks: &HashSet<Uuid>) {
        let Division { guarantee, common } = Division::new(self.totals.limit, networks.len());
        self.totals.common.store(common, Relaxed);
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|network, share| networks.contains(network) || share.held().used > 0);
        for network in networks {
            shares.entry(*network).or_insert_with(|| Arc::new(NetworkShare::new(&self.totals)));
        }
        for (network, share) in shares.iter() {
            share.set_guarantee(if networks.contains(network) { guarantee } else { 0 });
        }
    }

    /// The share of a network. Without a guarantee, unless the budget is divided among it and others.
    pub(in crate::dataplane) fn share(&self, network: Uuid) -> Arc<NetworkShare> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shares.entry(network).or_insert_with(|| Arc::new(NetworkShare::new(&self.totals))))
    }
}

/// Share of one network in the budget.
#[derive(Debug)]
pub(in crate::dataplane) struct NetworkShare {
    totals: Arc<Totals>,
    /// [`Held`], in one word: a change of either half sees the other one as it is at that instant, so that what is
    /// borrowed is counted exactly.
    held: AtomicU64,
    from_nodes: AtomicUsize,
    /// After a UDP session has found no port, descriptor or memory: another one would not find it either, and looking
    /// for a port among tens of thousands takes the kernel milliseconds.
    pub(in crate::dataplane) exhausted: RetryPause,
}

/// Connections of a network, and its guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    used: u32,
    guarantee: u32,
}

impl Held {
    fn borrowed(self) -> u32 {
        self.used.saturating_sub(self.guarantee)
    }
}

impl From<u64> for Held {
    fn from(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        Self { used: u32::from_le_bytes([a, b, c, d]), guarantee: u32::from_le_bytes([e, f, g, h]) }
    }
}

impl From<Held> for u64 {
    fn from(held: Held) -> Self {
        Self::from(held.guarantee) << 32 | Self::from(held.used)
    }
}

impl NetworkShare {
    fn new(totals: &Arc<Totals>) -> Self {
        let (held, from_nodes) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { totals: Arc::clone(totals), held, from_nodes, exhausted: RetryPause::default() }
    }

    fn held(&self) -> Held {
        self.held.load(Relaxed).into()
    }

    /// Admits a connection. Acceptors that ask at the same moment may all be admitted: a share can be exceeded by
    /// one for each worker.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(in crate::dataplane) fn admit(self: &Arc<Self>, origin: Origin) -> Result<Permit, ClientRefusal> {
        let held = self.held();
        let borrowed = self.totals.borrowed.load(Relaxed) - i64::from(held.borrowed());
        let common = self.totals.common.load(Relaxed);
        let division = Division { guarantee: held.guarantee as usize, common };
        let allowance = division.allowance(usize::try_from(borrowed).unwrap_or(0));
        let from_nodes = self.from_nodes.load(Relaxed);
        share::admit(NetworkUse { held: held.used as usize, from_nodes }, allowance, origin)?;
        Ok(self.take(origin == Origin::Node))
    }

    fn take(self: &Arc<Self>, from_node: bool) -> Permit {
        let before = Held::from(self.held.fetch_add(1, Relaxed));
        if before.used >= before.guarantee {
            self.totals.borrowed.fetch_add(1, Relaxed);
        }
        if from_node {
            self.from_nodes.fetch_add(1, Relaxed);
        }
        self.totals.used.fetch_add(1, Relaxed);
        Permit { share: Arc::clone(self), from_node }
    }

    fn set_guarantee(&self, guarantee: usize) {
        let guarantee = u32::try_from(guarantee).unwrap_or(u32::MAX);
        let renewed = |word| Some(Held { guarantee, ..Held::from(word) }.into());
        let Ok(before) = self.held.fetch_update(Relaxed, Relaxed, renewed) else { return };
        let before = Held::from(before);
        let after = Held { guarantee, ..before };
        let change = i64::from(after.borrowed()) - i64::from(before.borrowed());
        self.totals.borrowed.fetch_add(change, Relaxed);
    }
}

/// One connection's part of the budget, until it is dropped.
#[derive(Debug)]
pub(in crate::dataplane) struct Permit {
    share: Arc<NetworkShare>,
    from_node: bool,
}

impl Permit {
    /// True if it is that of a connection which comes from a node.
    pub(in crate::dataplane) fn is_from_node(&self) -> bool {
        self.from_node
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self { share, from_node } = self;
        let before = Held::from(share.held.fetch_sub(1, Relaxed));
        if before.used > before.guarantee {
            share.totals.borrowed.fetch_sub(1, Relaxed);
        }
        if *from_node {
            share.from_nodes.fetch_sub(1, Relaxed);
        }
        share.totals.used.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(numbers: impl IntoIterator<Item = u128>) -> HashSet<Uuid> {
        numbers.into_iter().map(Uuid::from_u128).collect()
    }

    fn ask(budget: &ConnectionBudget, network: u128) -> Result<Permit, ClientRefusal> {
        budget.share(Uuid::from_u128(network)).admit(Origin::Client)
    }

    fn hold_all(budget: &ConnectionBudget, network: u128) -> Vec<Permit> {
        std::iter::from_fn(|| ask(budget, network).ok()).collect()
    }

    #[test]
    fn a_dropped_permit_is_returned() {
        let budget = ConnectionBudget::new(1);
        budget.divide(&networks([1]));
        assert!(!budget.is_spent());
        let permit = ask(&budget, 1).unwrap();
        assert!(budget.is_spent());
        drop(permit);
        assert!(!budget.is_spent());
    }

    #[test]
    fn no_network_takes_what_others_need() {
        let budget = ConnectionBudget::new(1000);
        budget.divide(&networks(0..5));
        let hogs: Vec<Vec<Permit>> = (0..4).map(|network| hold_all(&budget, network)).collect();
        let sizes: Vec<usize> = hogs.iter().map(Vec::len).collect();
        assert_eq!(sizes, [100 + 250, 100 + 125, 100 + 63, 100 + 31]);
        assert_eq!(hold_all(&budget, 4).len(), 100 + 16);
    }

    #[test]
    fn a_network_that_left_holds_borrowed_connections_until_they_end() {
        let budget = ConnectionBudget::new(100);
        budget.divide(&networks([1]));
        let old = hold_all(&budget, 1);
        assert_eq!(old.len(), 100);
        budget.divide(&networks([2, 3]));
        assert_eq!(hold_all(&budget, 2).len(), 25, "its guarantee");
        drop(old);
        assert_eq!(hold_all(&budget, 2).len(), 25 + 25);
        assert_eq!(budget.totals.borrowed.load(Relaxed), 0);
        budget.divide(&networks([2]));
        assert_eq!(budget.shares.lock().unwrap().len(), 1, "forgotten");
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Take(u128, bool),
        Drop(prop::sample::Index),
        Divide(u128),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            8 => (0_u128..5, any::<bool>()).prop_map(|(network, node)| Operation::Take(network, node)),
            4 => any::<prop::sample::Index>().prop_map(Operation::Drop),
            1 => (0_u128..6).prop_map(Operation::Divide),
        ]
    }

    proptest! {
        #[test]
        fn accounts_agree_with_what_is_held(limit in 0_usize..60, operations in prop::collection::vec(operation(), 0..300)) {
            let budget = ConnectionBudget::new(limit);
            let mut held: Vec<(u128, Permit)> = Vec::new();
            let mut present = 0;
            for operation in operations {
                match operation {
                    Operation::Take(network, node) => {
                        let origin = if node { Origin::Node } else { Origin::Client };
                        let before = held.iter().filter(|(other, _)| *other == network).count();
                        let taken = budget.share(Uuid::from_u128(network)).admit(origin);
                        let guarantee = Division::new(limit, present as usize).guarantee;
                        if network < present && before < guarantee && !node {
                            prop_assert!(taken.is_ok(), "{before} of {guarantee}");
                        }
                        held.extend(taken.map(|permit| (network, permit)));
                    }
                    Operation::Drop(index) if !held.is_empty() => drop(held.swap_remove(index.index(held.len()))),
                    Operation::Drop(_) => {}
                    Operation::Divide(count) => {
                        present = count;
                        budget.divide(&networks(0..count));
                    }
                }
                let shares = budget.shares.lock().unwrap();
                let borrowed: u32 = shares.values().map(|share| share.held().borrowed()).sum();
                prop_assert_eq!(budget.totals.borrowed.load(Relaxed), i64::from(borrowed));
                prop_assert_eq!(budget.totals.used.load(Relaxed), held.len());
                for (network, share) in shares.iter() {
                    let count = held.iter().filter(|(other, _)| Uuid::from_u128(*other) == *network);
                    prop_assert_eq!(share.held().used as usize, count.count());
                }
            }
        }
    }

    #[test]
    fn accounts_agree_after_a_race_of_workers_and_divisions() {
        let budget = ConnectionBudget::new(64);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(worker);
                    let mut held = Vec::new();
                    for _ in 0..20_000 {
                        match random.u8(0..8) {
                            0 => held.clear(),
                            1 => budget.divide(&networks(0..random.u128(0..6))),
                            _ => held.extend(ask(budget, random.u128(0..6)).ok()),
                        }
                    }
                });
            }
        });
        assert_eq!((budget.totals.used.load(Relaxed), budget.totals.borrowed.load(Relaxed)), (0, 0));
    }
}
