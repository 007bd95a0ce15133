//! Traffic of listeners and backends over all nodes, from the counters that nodes report. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::agents::TrafficReport;
use crate::api::Traffic;

/// Age of a report above which its connections count no more: of a node that is gone, or serves a subject no longer.
/// Nodes report every 5 s.
const FRESH: Duration = Duration::from_secs(20);

/// Age of a report above which it is forgotten: a process that has not been heard for so long is not awaited.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Most reasons of a subject: those of a node that states ever new ones are not kept.
const MOST_REASONS: usize = 64;

/// Traffic of the listeners and backends of all trees. Counters of a node begin anew with its process, and with a subject
/// that returns to it; what they had counted before stays in the sums.
#[derive(Debug, Default)]
pub(in crate::fleet) struct TrafficTotals {
    trees: HashMap<Uuid, HashMap<Uuid, SubjectTotals>>,
}

/// Sums over all nodes, and the reports from which they were last raised.
#[derive(Debug, Default)]
struct SubjectTotals {
    connections: u64,
    failed: u64,
    bytes_in: u64,
    bytes_out: u64,
    reasons: BTreeMap<String, u64>,
    reports: BTreeMap<String, LastReport>,
}

/// Last report of a node.
#[derive(Debug)]
struct LastReport {
    /// Process of the node, by a hash of its boot id.
    process: u64,
    report: TrafficReport,
    at: Instant,
}

impl LastReport {
    /// True if a report goes on from this one: the same process, and no counter has fallen.
    fn is_continued(&self, process: u64, report: &TrafficReport) -> bool {
        let counters = |it: &TrafficReport| {
            [it.connections_total, it.connections_failed_total, it.bytes_in_total, it.bytes_out_total]
        };
        self.process == process
            && counters(report).iter().zip(counters(&self.report)).all(|(now, before)| *now >= before)
    }
}

impl TrafficTotals {
    /// Adds what the process of a node has counted since its last report.
    pub(in crate::fleet) fn record(
        &mut self,
        tree: Uuid,
        (node, boot_id): (&str, &str),
        report: TrafficReport,
        now: Instant,
    ) {
        let process = hash(boot_id);
        let totals = self.trees.entry(tree).or_default().entry(report.subject).or_default();
        if !totals.reports.contains_key(node) {
            totals.reports.retain(|_, heard| now.saturating_duration_since(heard.at) < KEPT);
        }
        let before = totals.reports.remove(node);
        let before =
            before.filter(|before| before.is_continued(process, &report)).map(|before| before.report);
        let raise = |sum: &mut u64, counter: fn(&TrafficReport) -> u64| {
            let since = counter(&report).saturating_sub(before.as_ref().map_or(0, counter));
            *sum = sum.saturating_add(since);
        };
        raise(&mut totals.connections, |it| it.connections_total);
        raise(&mut totals.failed, |it| it.connections_failed_total);
        raise(&mut totals.bytes_in, |it| it.bytes_in_total);
        raise(&mut totals.bytes_out, |it| it.bytes_out_total);
        for (reason, total) in &report.reasons {
            if totals.reasons.len() >= MOST_REASONS && !totals.reasons.contains_key(reason) {
                continue;
            }
            let sum = totals.reasons.entry(reason.clone()).or_default();
            let counted = before.as_ref().and_then(|before| before.reasons.get(reason));
            *sum = sum.saturating_add(total.saturating_sub(counted.copied().unwrap_or_default()));
        }
        totals.reports.insert(node.to_owned(), LastReport { process, report, at: now });
    }

    /// Forgets subjects of a tree that are gone.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        let Some(subjects) = self.trees.get_mut(&tree) else { return };
        subjects.retain(|subject, _| is_there(subject));
        if subjects.is_empty() {
            self.trees.remove(&tree);
        }
    }

    /// Traffic of the subjects of a tree that were ever counted.
    pub(in crate::fleet) fn of(&self, tree: Uuid, now: Instant) -> BTreeMap<Uuid, Traffic> {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < FRESH;
        let shown = |(subject, totals): (&Uuid, &SubjectTotals)| {
            let fresh = totals.reports.iter().filter(|(_, heard)| is_fresh(heard.at));
            let traffic = Traffic {
                connections: totals.connections,
                failed: totals.failed,
                bytes_in: totals.bytes_in,
                bytes_out: totals.bytes_out,
                reasons: totals.reasons.clone(),
                active: fresh.map(|(node, heard)| (node.clone(), heard.report.connections_active)).collect(),
            };
            (*subject, traffic)
        };
        self.trees.get(&tree).into_iter().flatten().map(shown).collect()
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Uuid = Uuid::from_u128(1);
    const LISTENER: Uuid = Uuid::from_u128(2);

    fn report(total: u64, active: u64) -> TrafficReport {
        TrafficReport {
            subject: LISTENER,
            connections_total: total,
            connections_active: active,
            connections_failed_total: total / 10,
            bytes_in_total: total * 100,
            bytes_out_total: total * 1_000,
            reasons: BTreeMap::from([("client_reset".to_owned(), total / 5)]),
            share: None,
        }
    }

    #[test]
    fn nodes_are_summed_and_never_counted_twice() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        totals.record(TREE, ("a", "1"), report(10, 3), now);
        totals.record(TREE, ("b", "1"), report(20, 4), now);
        totals.record(TREE, ("a", "1"), report(15, 1), now + FRESH);
        let traffic = &totals.of(TREE, now + FRESH / 2)[&LISTENER];
        assert_eq!((traffic.connections, traffic.bytes_in, traffic.bytes_out), (35, 3_500, 35_000));
        assert_eq!(traffic.reasons, BTreeMap::from([("client_reset".to_owned(), 7)]));
        assert_eq!(traffic.active, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 4)]));
        let later = &totals.of(TREE, now + FRESH)[&LISTENER];
        assert_eq!((later.connections, &later.active), (35, &BTreeMap::from([("a".to_owned(), 1)])));
    }

    #[test]
    fn what_begins_anew_takes_nothing_away() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        let mut counted = |boot_id, report| {
            totals.record(TREE, ("a", boot_id), report, now);
            totals.of(TREE, now)[&LISTENER].connections
        };
        assert_eq!(counted("1", report(10, 3)), 10);
        assert_eq!(counted("1", report(2, 1)), 12, "the listener has left the node and come back");
        assert_eq!(counted("2", report(50, 1)), 62, "another process, though it has counted more");
        assert_eq!(counted("2", report(50, 1)), 62, "a process that was out of reach for a while");
        let fewer_bytes = TrafficReport { bytes_in_total: 1, ..report(60, 1) };
        assert_eq!(counted("2", fewer_bytes), 122, "all of a report is judged alike");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        totals.record(TREE, ("a", "1"), report(10, 3), now);
        totals.record(TREE, ("b", "1"), report(10, 3), now + KEPT);
        assert_eq!(totals.trees[&TREE][&LISTENER].reports.len(), 1);
        totals.retain(TREE, |_| true);
        assert_eq!(totals.of(TREE, now)[&LISTENER].connections, 20);
        totals.retain(TREE, |_| false);
        assert!(totals.trees.is_empty());
    }

    #[test]
    fn no_node_can_make_a_sum_overflow() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        for node in ["a", "b", "c"] {
            let most = TrafficReport { bytes_in_total: i64::MAX as u64, ..report(1, 1) };
            totals.record(TREE, (node, "1"), most, now);
        }
        assert_eq!(totals.of(TREE, now)[&LISTENER].bytes_in, u64::MAX);
    }
}
