//! Shares of the nodes in the connection limits of listeners, dealt by need. Pure.
//!
//! A share is lowered first, and only when the node has it in force, and no more connections than it, others get what was
//! freed: the sum of what nodes may have is never above the limit. A node whose share is on its way gets no other one
//! before, so that what it reports cannot be taken for another one.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::shares::NodePlace;

/// Least time between two changes of the shares of one listener.
const PAUSE: Duration = Duration::from_secs(1);

/// Shares of all listeners with a connection limit.
#[derive(Debug, Default)]
pub(in crate::fleet) struct ShareBook {
    listeners: HashMap<Uuid, SharedLimit>,
}

/// Shares in the limit of one listener.
#[derive(Debug)]
struct SharedLimit {
    tree: Uuid,
    limit: u32,
    nodes: BTreeMap<String, NodeShare>,
    /// Time of the latest change.
    changed: Option<Instant>,
}

/// Share of one node.
#[derive(Clone, Copy, Debug, Default)]
struct NodeShare {
    /// Share that it was dealt last.
    dealt: u32,
    /// Share that it is to have, once there is enough.
    target: u32,
    /// Most connections that it may have, for all that is known.
    held: u32,
    /// True if the share that it was dealt is in force.
    is_in_force: bool,
    /// Share in force, as it has reported it; None: it has not reported yet.
    in_force: Option<u32>,
    /// Connections that it had last.
    active: u32,
    /// Clients above its share, as it has counted them; None: it has not reported yet.
    above_total: Option<u64>,
    /// Of these, those since the shares were last dealt.
    refused: u64,
}

/// Report of a node.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) struct ShareReport {
    /// Share in force.
    pub in_force: u32,
    /// Connections at this moment.
    pub active: u32,
    /// Clients above the share, since the node's process started.
    pub above_total: u64,
}

impl ShareBook {
    /// The share of a node in the limit of a listener of `tree`, which all of `nodes` serve. `None`: it is none of them.
    pub(in crate::fleet) fn share(
        &mut self,
        (tree, listener): (Uuid, Uuid),
        limit: u32,
        nodes: &[&str],
        node: &str,
    ) -> Option<u32> {
        let shared = self.listeners.entry(listener).or_insert_with(|| SharedLimit {
            tree,
            limit,
            nodes: BTreeMap::new(),
            changed: None,
        });
        shared.serve(listener, limit, nodes);
        Some(shared.nodes.get(node)?.dealt)
    }

    /// Nodes that turn every client of a listener away, since they have no share, or will soon have none.
    pub(in crate::fleet) fn without(&self, listener: Uuid) -> impl Iterator<Item = String> {
        let shares = self.listeners.get(&listener).into_iter().flat_map(|shared| &shared.nodes);
        shares.filter(|(_, share)| share.is_none()).map(|(node, _)| node.clone())
    }

    /// Takes in the report of a node.
    pub(in crate::fleet) fn report(&mut self, listener: Uuid, node: &str, report: ShareReport) {
        let shared = self.listeners.get_mut(&listener);
        if let Some(share) = shared.and_then(|shared| shared.nodes.get_mut(node)) {
            share.report(report);
        }
    }

    /// Deals the shares of a listener anew if nodes have turned clients away, or goes on with what could not be dealt yet.
    /// Returns true if any share has changed.
    pub(in crate::fleet) fn rebalance(&mut self, listener: Uuid, now: Instant) -> bool {
        let Some(shared) = self.listeners.get_mut(&listener) else { return false };
        if shared.changed.is_some_and(|changed| now.saturating_duration_since(changed) < PAUSE) {
            return false;
        }
        shared.set_targets(listener);
        let has_changed = shared.deal();
        if has_changed {
            shared.changed = Some(now);
        }
        has_changed
    }

    /// Forgets the listeners of a tree that `is_there` is false for.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        self.listeners.retain(|listener, shared| shared.tree != tree || is_there(listener));
    }
}

impl SharedLimit {
    /// Takes in who serves the listener, and its limit. The first nodes get equal parts; those that come later what is free,
    /// up to such a part, and more as soon as the others have given it back.
    fn serve(&mut self, listener: Uuid, limit: u32, nodes: &[&str]) {
        let is_new = self.nodes.is_empty();
        let is_other_limit = self.limit != limit;
        self.limit = limit;
        let before = self.nodes.len();
        // What a node that is gone had is free.
        self.nodes.retain(|node, _| nodes.contains(&node.as_str()));
        let mut is_other = is_other_limit || self.nodes.len() < before;
        for (index, node) in nodes.iter().enumerate() {
            if self.nodes.contains_key(*node) {
                continue;
            }
            is_other = true;
            let part = NodePlace { index, nodes: nodes.len() }.part(limit, listener);
            let dealt = if is_new { part } else { part.min(self.free()) };
            let share = NodeShare { dealt, target: part, held: dealt, ..NodeShare::default() };
            self.nodes.insert((*node).to_owned(), share);
        }
        if is_other && !is_new {
            self.aim(listener);
        }
    }

    /// Part of the limit that no node may have.
    fn free(&self) -> u32 {
        let held = self.nodes.values().fold(0_u32, |sum, node| sum.saturating_add(node.held));
        self.limit.saturating_sub(held)
    }

    /// Sets other targets if a node has turned clients away, or has no share and gets no clients therefore.
    fn set_targets(&mut self, listener: Uuid) {
        let is_enough_for_all = usize::try_from(self.limit).is_ok_and(|limit| limit >= self.nodes.len());
        let is_wanting = |node: &NodeShare| node.refused > 0 || (node.target == 0 && is_enough_for_all);
        if self.nodes.values().any(is_wanting) {
            self.aim(listener);
        }
    }

    /// Sets targets by what nodes need: what they have and have turned away, as far as there is enough for all, and equal parts
    /// of what is left.
    fn aim(&mut self, listener: Uuid) {
        let needs: Vec<u32> = self.nodes.values().map(NodeShare::need).collect();
        let parts = divided(self.limit, &needs);
        let left = self.limit.saturating_sub(parts.iter().sum());
        let nodes = parts.len();
        for (index, (node, part)) in self.nodes.values_mut().zip(parts).enumerate() {
            node.target = part.saturating_add(NodePlace { index, nodes }.part(left, listener));
            node.refused = 0;
        }
    }

    /// Lowers shares, and raises others by what is free. Returns true if any has changed.
    fn deal(&mut self) -> bool {
        let mut has_changed = false;
        for node in self.nodes.values_mut().filter(|node| node.is_in_force && node.target < node.dealt) {
            (node.dealt, node.is_in_force) = (node.target, false);
            has_changed = true;
        }
        let mut free = self.free();
        for node in self.nodes.values_mut().filter(|node| node.is_in_force && node.target > node.dealt) {
            let more = free.min(node.target - node.dealt);
            if more > 0 {
                node.dealt += more;
                node.is_in_force = false;
                free -= node.dealt.saturating_sub(node.held);
                node.held = node.held.max(node.dealt);
                has_changed = true;
            }
        }
        has_changed
    }
}

impl NodeShare {
    /// True if the node turns every client away, or will soon.
    fn is_none(&self) -> bool {
        self.dealt == 0 || self.in_force == Some(0)
    }

    fn report(&mut self, report: ShareReport) {
        let ShareReport { in_force, active, above_total } = report;
        self.is_in_force = in_force == self.dealt;
        self.in_force = Some(in_force);
        // One that has more than it was dealt has it from an earlier leader, or on its way.
        self.held =
            if self.is_in_force { self.dealt.max(active) } else { self.held.max(in_force).max(active) };
        let before = self.above_total.replace(above_total).unwrap_or(above_total);
        // A process that was started anew counts from nought.
        let more = above_total.checked_sub(before).unwrap_or(above_total);
        self.refused = self.refused.saturating_add(more);
        self.active = active;
    }

    fn need(&self) -> u32 {
        self.active.saturating_add(u32::try_from(self.refused).unwrap_or(u32::MAX))
    }
}

/// Parts of a number for so many needs: all of each, or where that is too much, the same for those who need more than it.
fn divided(total: u32, needs: &[u32]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|index| needs.get(*index));
    let (mut left, mut parts) = (total, vec![0; needs.len()]);
    for (done, index) in order.iter().enumerate() {
        let others = u32::try_from(needs.len() - done).unwrap_or(u32::MAX).max(1);
        let part = needs.get(*index).copied().unwrap_or(0).min(left / others);
        if let Some(place) = parts.get_mut(*index) {
            *place = part;
        }
        left -= part;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TREE: Uuid = Uuid::from_u128(1);
    const LISTENER: Uuid = Uuid::from_u128(7);
    const SECOND: Duration = Duration::from_secs(1);

    fn share(book: &mut ShareBook, limit: u32, nodes: &[&str], node: &str) -> u32 {
        book.share((TREE, LISTENER), limit, nodes, node).unwrap()
    }

    fn report(book: &mut ShareBook, node: &str, in_force: u32, active: u32, above_total: u64) {
        book.report(LISTENER, node, ShareReport { in_force, active, above_total });
    }

    fn without(book: &ShareBook) -> Vec<String> {
        book.without(LISTENER).collect()
    }

    #[test]
    fn parts_are_by_need_and_the_same_for_those_who_need_more() {
        assert_eq!(divided(10, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(divided(10, &[100, 2, 100]), [4, 2, 4]);
        assert_eq!(divided(3, &[100, 100]), [1, 2]);
        assert_eq!(divided(0, &[5]), [0]);
        assert_eq!(divided(7, &[]), [0; 0]);
        assert_eq!(divided(u32::MAX, &[u32::MAX, 1]), [u32::MAX - 1, 1]);
    }

    #[test]
    fn a_share_goes_to_who_needs_it_after_the_other_one_has_given_it_back() {
        let (mut book, mut now) = (ShareBook::default(), Instant::now());
        let nodes = ["a", "b"];
        let shares = |book: &mut ShareBook| nodes.map(|node| share(book, 6, &nodes, node));
        assert_eq!(shares(&mut book), [3, 3]);
        assert!(!book.rebalance(LISTENER, now), "nobody has reported");
        report(&mut book, "a", 3, 3, 0);
        report(&mut book, "b", 3, 2, 7);
        assert!(!book.rebalance(LISTENER, now), "nobody is in need");
        report(&mut book, "a", 3, 3, 10);
        assert!(book.rebalance(LISTENER, now));
        assert_eq!(shares(&mut book), [3, 2], "b keeps what it has");
        report(&mut book, "a", 3, 3, 11);
        now += SECOND;
        assert!(!book.rebalance(LISTENER, now), "b has not confirmed it");
        report(&mut book, "b", 3, 2, 7);
        assert!(!book.rebalance(LISTENER, now));
        report(&mut book, "b", 2, 3, 7);
        assert!(!book.rebalance(LISTENER, now), "it still has three");
        report(&mut book, "b", 2, 2, 7);
        assert!(book.rebalance(LISTENER, now));
        assert_eq!(shares(&mut book), [4, 2]);
        report(&mut book, "a", 4, 4, 11);
        report(&mut book, "b", 2, 0, 7);
        report(&mut book, "a", 4, 4, 20);
        assert!(!book.rebalance(LISTENER, now), "once a second");
        now += SECOND;
        assert!(book.rebalance(LISTENER, now));
        assert_eq!(shares(&mut book), [4, 0]);
    }

    #[test]
    fn who_comes_gets_what_is_free_and_who_is_gone_frees_its_own() {
        let (mut book, now) = (ShareBook::default(), Instant::now());
        assert_eq!(share(&mut book, 6, &["a"], "a"), 6);
        report(&mut book, "a", 6, 5, 0);
        assert_eq!(share(&mut book, 6, &["a", "b"], "b"), 0, "a may have all of it");
        assert_eq!(without(&book), ["b"]);
        report(&mut book, "b", 0, 0, 0);
        assert!(book.rebalance(LISTENER, now));
        assert_eq!(share(&mut book, 6, &["a", "b"], "a"), 5);
        report(&mut book, "a", 5, 5, 0);
        assert!(book.rebalance(LISTENER, now + SECOND));
        assert_eq!(share(&mut book, 6, &["a", "b"], "b"), 1);
        assert_eq!(without(&book), ["b"], "it is not in force");
        report(&mut book, "b", 1, 0, 0);
        assert!(without(&book).is_empty());
        assert_eq!(share(&mut book, 6, &["b"], "b"), 1);
        assert!(book.rebalance(LISTENER, now + 2 * SECOND));
        assert_eq!(share(&mut book, 6, &["b"], "b"), 6);
        assert_eq!(book.share((TREE, LISTENER), 6, &["b"], "a"), None);
        book.retain(TREE, |listener| *listener != LISTENER);
        assert!(book.listeners.is_empty());
    }

    #[test]
    fn a_node_without_share_gets_one_as_soon_as_others_need_less() {
        let (mut book, mut now) = (ShareBook::default(), Instant::now());
        let nodes = ["a", "b"];
        assert_eq!(share(&mut book, 6, &["a"], "a"), 6);
        report(&mut book, "a", 6, 6, 0);
        let mut shares = |book: &mut ShareBook, active: u32| {
            nodes.map(|node| {
                let in_force = share(book, 6, &nodes, node);
                report(book, node, in_force, if node == "a" { active } else { 0 }, 0);
                now += SECOND;
                book.rebalance(LISTENER, now);
                share(book, 6, &nodes, node)
            })
        };
        for _ in 0..4 {
            assert_eq!(shares(&mut book, 6), [6, 0]);
        }
        for _ in 0..4 {
            shares(&mut book, 2);
        }
        assert_eq!(shares(&mut book, 2), [4, 2]);
        assert!(without(&book).is_empty());
    }

    /// A node as it is: shares arrive late, and connections come and go.
    #[derive(Clone, Debug, Default)]
    struct Node {
        on_the_way: Vec<u32>,
        in_force: u32,
        active: u32,
        refused: u64,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Publish,
        Arrive(usize),
        Connect(usize, u32),
        Close(usize, u32),
        Report(usize),
        Rebalance,
    }

    fn step() -> impl Strategy<Value = Step> {
        let node = 0_usize..3;
        prop_oneof![
            3 => Just(Step::Publish),
            4 => node.clone().prop_map(Step::Arrive),
            4 => (node.clone(), 1_u32..8).prop_map(|(node, count)| Step::Connect(node, count)),
            2 => (node.clone(), 1_u32..8).prop_map(|(node, count)| Step::Close(node, count)),
            4 => node.prop_map(Step::Report),
            3 => Just(Step::Rebalance),
        ]
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    proptest! {
        /// Whatever is delayed: the sum of the connections is never above the limit.
        #[test]
        fn the_limit_is_kept_whatever_comes_when(
            limit in 0_u32..20,
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let (mut book, mut now) = (ShareBook::default(), Instant::now());
            let mut nodes: [Node; 3] = Default::default();
            for (node, name) in nodes.iter_mut().zip(NAMES) {
                node.on_the_way.push(share(&mut book, limit, &NAMES, name));
            }
            for step in steps {
                match step {
                    Step::Publish => for (node, name) in nodes.iter_mut().zip(NAMES) {
                        node.on_the_way.push(share(&mut book, limit, &NAMES, name));
                    },
                    Step::Arrive(node) if !nodes[node].on_the_way.is_empty() => {
                        nodes[node].in_force = nodes[node].on_the_way.remove(0);
                    }
                    Step::Arrive(_) => {}
                    Step::Connect(node, count) => for _ in 0..count {
                        let node = &mut nodes[node];
                        if node.active < node.in_force { node.active += 1 } else { node.refused += 1 }
                    },
                    Step::Close(node, count) => nodes[node].active = nodes[node].active.saturating_sub(count),
                    Step::Report(node) => {
                        let Node { in_force, active, refused, .. } = nodes[node];
                        report(&mut book, NAMES[node], in_force, active, refused);
                    }
                    Step::Rebalance => {
                        now += SECOND;
                        book.rebalance(LISTENER, now);
                    }
                }
                let active: u32 = nodes.iter().map(|node| node.active).sum();
                prop_assert!(active <= limit, "{active} of {limit}: {nodes:?} {book:?}");
            }
            // Once all is quiet, one node that needs all of it gets all of it.
            for node in &mut nodes {
                node.active = 0;
            }
            for _ in 0..12 {
                for (node, name) in nodes.iter_mut().zip(NAMES) {
                    node.on_the_way.clear();
                    node.in_force = share(&mut book, limit, &NAMES, name);
                    report(&mut book, name, node.in_force, node.active, node.refused);
                }
                nodes[0].refused += 1_000;
                nodes[0].active = nodes[0].in_force;
                now += SECOND;
                book.rebalance(LISTENER, now);
            }
            prop_assert_eq!(nodes[0].in_force, limit, "{:?}", book);
        }
    }
}
