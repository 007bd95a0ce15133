//! Traffic of listeners over all nodes, from the counters that nodes report. Pure.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use crate::agents::ListenerCounters;
use crate::api::Traffic;

/// Traffic of the listeners of all trees. Counters of a node begin anew with its process; what they had counted before
/// stays in the sums.
#[derive(Debug, Default)]
pub(in crate::fleet) struct TrafficTotals {
    trees: HashMap<Uuid, HashMap<Uuid, ListenerTotals>>,
}

/// Sums over all nodes, and the counters from which they were last raised.
#[derive(Debug, Default)]
struct ListenerTotals {
    connections: u64,
    failed: u64,
    bytes_in: u64,
    bytes_out: u64,
    reported: BTreeMap<String, ListenerCounters>,
}

impl TrafficTotals {
    /// Adds what a node has counted since its last report.
    pub(in crate::fleet) fn record(&mut self, tree: Uuid, node: &str, now: ListenerCounters) {
        let totals = self.trees.entry(tree).or_default().entry(now.listener).or_default();
        let before = totals.reported.insert(node.to_owned(), now);
        let raise = |sum: &mut u64, counter: fn(&ListenerCounters) -> u64| {
            let before = before.as_ref().map_or(0, counter);
            // Lower than before: it began anew.
            let since = counter(&now).checked_sub(before).unwrap_or_else(|| counter(&now));
            *sum = sum.saturating_add(since);
        };
        raise(&mut totals.connections, |it| it.connections_total);
        raise(&mut totals.failed, |it| it.connections_failed_total);
        raise(&mut totals.bytes_in, |it| it.bytes_in_total);
        raise(&mut totals.bytes_out, |it| it.bytes_out_total);
    }

    /// Forgets the counters of a node whose process is another one, or that serves a listener no more, for `is_over`
    /// listeners. The sums stay.
    pub(in crate::fleet) fn end(&mut self, node: &str, is_over: impl Fn(Uuid) -> bool) {
        for (listener, totals) in self.trees.values_mut().flatten() {
            if is_over(*listener) {
                totals.reported.remove(node);
            }
        }
    }

    /// Forgets listeners of a tree that are gone.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        let Some(listeners) = self.trees.get_mut(&tree) else { return };
        listeners.retain(|listener, _| is_there(listener));
        if listeners.is_empty() {
            self.trees.remove(&tree);
        }
    }

    /// Traffic of the listeners of a tree that were ever counted. Only nodes that are `there` have connections.
    pub(in crate::fleet) fn of(
        &self,
        tree: Uuid,
        is_there: impl Fn(&str) -> bool,
    ) -> BTreeMap<Uuid, Traffic> {
        let shown = |(listener, totals): (&Uuid, &ListenerTotals)| {
            let reported = totals.reported.iter().filter(|(node, _)| is_there(node));
            let active = reported.map(|(node, counters)| (node.clone(), counters.connections_active));
            let traffic = Traffic {
                connections: totals.connections,
                failed: totals.failed,
                bytes_in: totals.bytes_in,
                bytes_out: totals.bytes_out,
                active: active.collect(),
            };
            (*listener, traffic)
        };
        self.trees.get(&tree).into_iter().flatten().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Uuid = Uuid::from_u128(1);
    const LISTENER: Uuid = Uuid::from_u128(2);

    fn counters(total: u64, active: u64) -> ListenerCounters {
        ListenerCounters {
            listener: LISTENER,
            connections_total: total,
            connections_active: active,
            connections_failed_total: total / 10,
            bytes_in_total: total * 100,
            bytes_out_total: total * 1_000,
        }
    }

    fn shown(totals: &TrafficTotals) -> Traffic {
        totals.of(TREE, |_| true).remove(&LISTENER).unwrap()
    }

    #[test]
    fn nodes_are_summed_and_never_counted_twice() {
        let mut totals = TrafficTotals::default();
        totals.record(TREE, "a", counters(10, 3));
        totals.record(TREE, "b", counters(20, 4));
        totals.record(TREE, "a", counters(15, 1));
        let traffic = shown(&totals);
        assert_eq!((traffic.connections, traffic.bytes_in, traffic.bytes_out), (35, 3_500, 35_000));
        assert_eq!(traffic.active, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 4)]));
        let only_b = totals.of(TREE, |node| node == "b").remove(&LISTENER).unwrap();
        assert_eq!((only_b.connections, only_b.active.len()), (35, 1));
    }

    #[test]
    fn a_process_that_begins_anew_takes_nothing_away() {
        let mut totals = TrafficTotals::default();
        totals.record(TREE, "a", counters(10, 3));
        totals.record(TREE, "a", counters(2, 1));
        assert_eq!(shown(&totals).connections, 12);
        totals.end("a", |_| true);
        assert!(shown(&totals).active.is_empty());
        totals.record(TREE, "a", counters(50, 1));
        assert_eq!(shown(&totals).connections, 62, "known to be another process, though it has counted more");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut totals = TrafficTotals::default();
        totals.record(TREE, "a", counters(10, 3));
        totals.retain(TREE, |_| true);
        assert_eq!(totals.trees.len(), 1);
        totals.retain(TREE, |_| false);
        assert!(totals.trees.is_empty());
    }

    #[test]
    fn no_node_can_make_a_sum_overflow() {
        let mut totals = TrafficTotals::default();
        for node in ["a", "b", "c"] {
            let most = ListenerCounters { bytes_in_total: i64::MAX as u64, ..counters(1, 1) };
            totals.record(TREE, node, most);
        }
        assert_eq!(shown(&totals).bytes_in, u64::MAX);
    }
}
