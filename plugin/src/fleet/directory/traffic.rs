//! Traffic of listeners, pools and backends over all nodes, from the counters that nodes report. Pure.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::agents::TrafficReport;
use crate::api::{Draining, Traffic};

/// Age of a report above which its connections count no more: of a node that is gone, or serves a subject no longer.
/// Nodes report every 5 s.
const FRESH: Duration = Duration::from_secs(20);

/// Age of a report above which it is dropped: a process that was silent for so long is not awaited.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Most reasons of a subject: those of a node that states ever new ones are not kept.
const MOST_REASONS: usize = 64;

/// Most removed subjects of a pool or tree whose connections are known.
const MOST_REMOVED: usize = 1_000;

/// Traffic of the listeners, pools and backends of all trees. Counters of a node begin anew with its process, and with a subject
/// that returns to it; what they had counted before stays in the sums.
#[derive(Debug, Default)]
pub(in crate::fleet) struct TrafficTotals {
    trees: HashMap<Uuid, HashMap<Uuid, SubjectTotals>>,
}

/// Sums over all nodes, and the reports from which they were last raised.
#[derive(Debug, Default)]
struct SubjectTotals {
    /// Without connections of the moment.
    sum: Traffic,
    /// None of a pool, which nobody reports.
    reports: BTreeMap<String, LastReport>,
    /// Connections of a pool's removed backends, or a tree's removed listeners, by node and subject, with the report's time.
    removed: HashMap<(String, Uuid), (Draining, Instant)>,
}

impl SubjectTotals {
    /// Adds what was counted meanwhile.
    fn add(&mut self, mut since: Traffic) {
        let is_full = self.sum.reasons.len() >= MOST_REASONS;
        since.reasons.retain(|reason, _| !is_full || self.sum.reasons.contains_key(reason));
        self.sum.add(&since);
    }
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

/// Traffic that a process has counted since its report `before`.
fn since(report: &TrafficReport, before: Option<&TrafficReport>) -> Traffic {
    let since =
        |counter: fn(&TrafficReport) -> u64| counter(report).saturating_sub(before.map_or(0, counter));
    let of_reason = |(reason, total): (&String, &u64)| {
        let counted = before.and_then(|before| before.reasons.get(reason)).copied();
        (reason.clone(), total.saturating_sub(counted.unwrap_or_default()))
    };
    Traffic {
        connections: since(|it| it.connections_total),
        failed: since(|it| it.connections_failed_total),
        bytes_in: since(|it| it.bytes_in_total),
        bytes_out: since(|it| it.bytes_out_total),
        active: BTreeMap::new(),
        reasons: report.reasons.iter().map(of_reason).collect(),
        durations: before.map_or(report.durations, |before| report.durations.since(&before.durations)),
        draining: Draining::default(),
    }
}

impl TrafficTotals {
    /// Adds what the process of a node has counted since its last report on a listener, or a backend of `pool`.
    pub(in crate::fleet) fn record(
        &mut self,
        (tree, pool): (Uuid, Option<Uuid>),
        (node, boot_id): (&str, &str),
        report: TrafficReport,
        now: Instant,
    ) {
        let process = hash(boot_id);
        let subjects = self.trees.entry(tree).or_default();
        let totals = subjects.entry(report.subject).or_default();
        if !totals.reports.contains_key(node) {
            totals.reports.retain(|_, heard| now.saturating_duration_since(heard.at) < KEPT);
        }
        let before = totals.reports.remove(node);
        let before = before.filter(|before| before.is_continued(process, &report));
        let since = since(&report, before.as_ref().map(|before| &before.report));
        totals.reports.insert(node.to_owned(), LastReport { process, report, at: now });
        if let Some(pool) = pool {
            totals.add(since.clone());
            subjects.entry(pool).or_default().add(since);
        } else {
            totals.add(since);
        }
    }

    /// Records what a node has left of a subject that is no more, for its pool or tree.
    pub(in crate::fleet) fn record_removed(
        &mut self,
        tree: Uuid,
        (parent, subject): (Uuid, Uuid),
        node: &str,
        left: Draining,
        now: Instant,
    ) {
        let removed = &mut self.trees.entry(tree).or_default().entry(parent).or_default().removed;
        let key = (node.to_owned(), subject);
        if left.connections == 0 {
            removed.remove(&key);
            return;
        }
        let is_known = removed.contains_key(&key);
        if !is_known {
            removed.retain(|_, (_, at)| is_fresh(*at, now));
        }
        if is_known || removed.len() < MOST_REMOVED {
            removed.insert(key, (left, now));
        }
    }

    /// Drops removed subjects of a tree.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        let Some(subjects) = self.trees.get_mut(&tree) else { return };
        subjects.retain(|subject, _| is_there(subject));
        if subjects.is_empty() {
            self.trees.remove(&tree);
        }
    }

    /// Traffic of the subjects of a tree that were ever counted.
    pub(in crate::fleet) fn of(&self, tree: Uuid, now: Instant) -> BTreeMap<Uuid, Traffic> {
        let shown = |(subject, totals): (&Uuid, &SubjectTotals)| {
            let fresh = totals.reports.iter().filter(|(_, heard)| is_fresh(heard.at, now));
            let fresh: Vec<(&String, &LastReport)> = fresh.collect();
            let mut draining = Draining::default();
            fresh
                .iter()
                .filter_map(|(_, heard)| heard.report.drain)
                .for_each(|drain| draining.add(&drain.left));
            let removed = totals.removed.values().filter(|(_, at)| is_fresh(*at, now));
            removed.for_each(|(left, _)| draining.add(left));
            let active = fresh.into_iter();
            let active =
                active.map(|(node, heard)| (node.clone(), heard.report.connections_active)).collect();
            let traffic = Traffic { active, draining, ..totals.sum.clone() };
            (*subject, traffic)
        };
        self.trees.get(&tree).into_iter().flatten().map(shown).collect()
    }
}

fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < FRESH
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::ReportedDrain;
    use crate::api::Durations;

    const TREE: Uuid = Uuid::from_u128(1);
    const LISTENER: Uuid = Uuid::from_u128(2);
    /// Owner of a listener.
    const OF_TREE: (Uuid, Option<Uuid>) = (TREE, None);

    fn report(total: u64, active: u64) -> TrafficReport {
        TrafficReport {
            subject: LISTENER,
            connections_total: total,
            connections_active: active,
            connections_failed_total: total / 10,
            bytes_in_total: total * 100,
            bytes_out_total: total * 1_000,
            reasons: BTreeMap::from([("client_reset".to_owned(), total / 5)]),
            durations: Durations { counts: [0, total / 2, 0, 0, 0, 0, 0, 0], sum_us: total },
            drain: None,
            share: None,
        }
    }

    #[test]
    fn nodes_are_summed_and_never_counted_twice() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        totals.record(OF_TREE, ("a", "1"), report(10, 3), now);
        totals.record(OF_TREE, ("b", "1"), report(20, 4), now);
        totals.record(OF_TREE, ("a", "1"), report(15, 1), now + FRESH);
        let traffic = &totals.of(TREE, now + FRESH / 2)[&LISTENER];
        assert_eq!((traffic.connections, traffic.bytes_in, traffic.bytes_out), (35, 3_500, 35_000));
        assert_eq!(traffic.reasons, BTreeMap::from([("client_reset".to_owned(), 7)]));
        let durations = Durations { counts: [0, 17, 0, 0, 0, 0, 0, 0], sum_us: 35 };
        assert_eq!(traffic.durations, durations);
        assert_eq!(traffic.active, BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 4)]));
        let later = &totals.of(TREE, now + FRESH)[&LISTENER];
        assert_eq!((later.connections, &later.active), (35, &BTreeMap::from([("a".to_owned(), 1)])));
    }

    #[test]
    fn what_begins_anew_takes_nothing_away() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        let mut counted = |boot_id, report| {
            totals.record(OF_TREE, ("a", boot_id), report, now);
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
    fn a_pool_has_what_its_backends_have_carried_also_when_they_are_gone() {
        let (mut totals, now, pool) = (TrafficTotals::default(), Instant::now(), Uuid::from_u128(9));
        let of_backend =
            |backend, total| TrafficReport { subject: Uuid::from_u128(backend), ..report(total, 1) };
        for (node, backend, total) in [("a", 5, 10), ("a", 6, 10), ("b", 5, 20), ("a", 5, 15)] {
            totals.record((TREE, Some(pool)), (node, "1"), of_backend(backend, total), now);
        }
        let shown = |totals: &TrafficTotals| totals.of(TREE, now)[&pool].clone();
        let before = shown(&totals);
        assert_eq!((before.connections, before.durations.sum_us), (45, 45));
        assert_eq!(before.reasons, BTreeMap::from([("client_reset".to_owned(), 9)]));
        totals.retain(TREE, |id| *id == pool);
        assert_eq!(totals.trees[&TREE].len(), 1);
        assert_eq!(shown(&totals), before);
    }

    #[test]
    fn what_drains_is_told_also_of_subjects_that_are_gone() {
        let (mut totals, now, pool) = (TrafficTotals::default(), Instant::now(), Uuid::from_u128(9));
        let left = |connections, deadline_ms| Draining { connections, deadline_ms: Some(deadline_ms) };
        let drain = Some(ReportedDrain { parent: pool, left: left(3, 50) });
        for node in ["a", "b"] {
            totals.record((TREE, Some(pool)), (node, "1"), TrafficReport { drain, ..report(9, 3) }, now);
        }
        let draining = |totals: &TrafficTotals, id: Uuid, at: Instant| totals.of(TREE, at)[&id].draining;
        assert_eq!(draining(&totals, LISTENER, now), left(6, 50));
        let gone = Uuid::from_u128(7);
        totals.record_removed(TREE, (pool, gone), "a", left(4, 60), now);
        totals.record_removed(TREE, (pool, gone), "b", left(1, 70), now);
        assert_eq!(draining(&totals, pool, now), left(5, 70));
        totals.record_removed(TREE, (pool, gone), "b", left(0, 70), now);
        assert_eq!(draining(&totals, pool, now), left(4, 60));
        assert_eq!(draining(&totals, pool, now + FRESH), Draining::default());
        for number in 100..100 + 2 * MOST_REMOVED as u128 {
            totals.record_removed(TREE, (pool, Uuid::from_u128(number)), "a", left(1, 60), now);
        }
        assert_eq!(draining(&totals, pool, now).connections, 4 + MOST_REMOVED as u64 - 1);
        totals.record_removed(TREE, (pool, gone), "a", left(3, 60), now);
        assert_eq!(draining(&totals, pool, now).connections, 3 + MOST_REMOVED as u64 - 1);
        totals.record_removed(TREE, (pool, Uuid::from_u128(99)), "a", left(5, 60), now + FRESH);
        assert_eq!(
            draining(&totals, pool, now + FRESH).connections,
            5,
            "the others are not reported any more"
        );
    }

    #[test]
    fn a_node_that_states_ever_new_reasons_fills_no_memory() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        for number in 0..MOST_REASONS as u64 + 10 {
            let reasons = BTreeMap::from([(format!("reason-{number}"), 1)]);
            totals.record(OF_TREE, ("a", "1"), TrafficReport { reasons, ..report(number, 1) }, now);
        }
        assert_eq!(totals.of(TREE, now)[&LISTENER].reasons.len(), MOST_REASONS);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let (mut totals, now) = (TrafficTotals::default(), Instant::now());
        totals.record(OF_TREE, ("a", "1"), report(10, 3), now);
        totals.record(OF_TREE, ("b", "1"), report(10, 3), now + KEPT);
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
            totals.record(OF_TREE, (node, "1"), most, now);
        }
        assert_eq!(totals.of(TREE, now)[&LISTENER].bytes_in, u64::MAX);
    }
}
