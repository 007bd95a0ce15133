//! Reports of the nodes, as the fleet processes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use fiberlb_daemon::throttle::Throttle;
use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::{
    self, AccessLogReport, Acknowledgement, Configuration, Hello, NodeTrouble, Observer, Refusal,
    ReportedConnection, ReportedEjection, ReportedShare, ResultKind, TrafficReport,
};
use crate::api::{Draining, LoggedConnection};
use crate::fleet::delivery::share_book::{ShareBook, ShareReport};
use crate::fleet::facade::{Fleet, FleetNotice};
use crate::fleet::verdicts::VerdictChange;
use crate::resources::{Kind, Tree};
use crate::status::{BackendVerdict, EjectedBackend, InconclusiveCheck};

impl Observer for Fleet {
    fn joined(
        &self,
        epoch: u64,
        hello: &Hello,
    ) -> Result<watch::Receiver<Option<Arc<Configuration>>>, Refusal> {
        let held = self.direct_vips(&hello.node_id);
        let mut state = self.state_mut();
        for (load_balancer, vip) in hello.held_vips.iter().filter_map(|id| held.get(id)) {
            state.held(*load_balancer, *vip, &hello.node_id);
        }
        let was_away = state.joined(hello, epoch, Instant::now());
        let to_allocate: Vec<Uuid> = state.demands.networks().filter(|_| was_away).collect();
        drop(state);
        self.request_allocation(to_allocate);
        tracing::info!(
            node = hello.node_id,
            chassis = hello.chassis,
            release = hello.release,
            zone = hello.zone,
            epoch,
            "proxy node connected"
        );
        Ok(self.open_channel(&hello.node_id))
    }

    fn heard(&self, node: &str, epoch: u64) {
        if let Some(node) = self.state_mut().node_of_stream(node, epoch) {
            node.contact.last = Some(Instant::now());
        }
    }

    fn acknowledged(&self, node: &str, epoch: u64, settled: bool, results: Vec<Acknowledgement>) {
        let subject = |result: Acknowledgement| Some((self.subject(result.kind, result.id)?, result));
        let results: Vec<(FleetNotice, Acknowledgement)> = results.into_iter().filter_map(subject).collect();
        let (mut news, mut refused) = (BTreeSet::new(), Vec::new());
        let mut state = self.state_mut();
        for (subject, Acknowledgement { kind, id, generation, error }) in results {
            // A node may report on a resource that was just revoked, or that was never its own.
            if !state.serves(node, subject, kind, id) {
                continue;
            }
            let Some(reporter) = state.node_of_stream(node, epoch) else { return };
            let result = error.map_or(Ok(generation), Err);
            if reporter.results.get(&id) == Some(&result) {
                continue;
            }
            if let Err(error) = &result {
                refused.push((kind, id, error.clone()));
            }
            reporter.results.insert(id, result);
            // Results of pools are shown with the node alone.
            if kind != ResultKind::Pool {
                news.insert(subject);
            }
        }
        if let Some(reporter) = state.node_of_stream(node, epoch) {
            log_refused(node, &mut reporter.refusals, &refused);
        }
        if settled && let Some(reporter) = state.node_of_stream(node, epoch) {
            reporter.is_settled = true;
            for id in std::mem::take(&mut reporter.revoked) {
                reporter.forget(id);
            }
        }
        drop(state);
        for subject in news {
            self.notify(subject);
        }
    }

    fn verdicts(&self, node: &str, epoch: u64, complete: bool, verdicts: Vec<agents::Verdict>) {
        if self.state_mut().node_of_stream(node, epoch).is_none() {
            return;
        }
        let now = self.now();
        let known: BTreeSet<Uuid> = verdicts.iter().map(|verdict| verdict.backend).collect();
        let mut changed: BTreeMap<Uuid, VerdictChange> = BTreeMap::new();
        let mut note = |tree, change: VerdictChange| {
            let most = changed.entry(tree).or_insert(change);
            *most = change.max(*most);
        };
        for verdict in verdicts {
            // A node may report on a backend that was just deleted, or that was never its own.
            let Some(tree) = self.tree_of_checked(node, verdict.backend) else { continue };
            let agents::Verdict { backend, up, reason, since_ms } = verdict;
            let mut state = self.state_mut();
            // The network may have left the node a moment ago.
            if state.checks(node, tree, backend) {
                let verdict = BackendVerdict { up, reason, since_ms };
                note(tree, state.record_verdict(tree, backend, node, verdict, now));
            }
        }
        if complete {
            let mut state = self.state_mut();
            let void = state.retain_verdicts(node, &known, now);
            drop(state);
            for (backend, change) in void {
                let Some(tree) = self.model.tree_of(Kind::Backend, backend) else { continue };
                note(tree.id(), change);
            }
        }
        for (tree, change) in changed {
            if change >= VerdictChange::Verdict {
                self.mark_judged(tree);
            }
            if change == VerdictChange::Health {
                self.notify(FleetNotice::Tree(tree));
                // A backend that one node has found up is no longer new to the others.
                self.mark_dirty(FleetNotice::Tree(tree));
            }
        }
    }

    fn inconclusive(&self, node: &str, epoch: u64, complete: bool, checks: Vec<agents::ReportedDoubt>) {
        if self.state_mut().node_of_stream(node, epoch).is_none() {
            return;
        }
        let known: BTreeSet<Uuid> = checks.iter().map(|check| check.backend).collect();
        let mut news = BTreeSet::new();
        for agents::ReportedDoubt { backend, reason, since_ms } in checks {
            let Some(tree) = self.tree_of_checked(node, backend) else { continue };
            let said = reason.map(|reason| InconclusiveCheck { reason, since_ms });
            let mut state = self.state_mut();
            if state.checks(node, tree, backend) && state.inconclusive.record(backend, node, said) {
                news.insert(tree);
            }
        }
        if complete {
            let void = self.state_mut().inconclusive.retain_known(node, &known);
            let trees = void.into_iter().filter_map(|backend| self.model.tree_of(Kind::Backend, backend));
            news.extend(trees.map(|tree| tree.id()));
        }
        news.into_iter().for_each(|tree| self.mark_judged(tree));
    }

    fn counters(&self, node: &str, epoch: u64, listeners: Vec<TrafficReport>, backends: Vec<TrafficReport>) {
        let removed = self.removed(&listeners, &backends);
        let of_listener = |report: &TrafficReport| {
            let tree = self.model.tree_of(Kind::Listener, report.subject)?;
            Some((tree.id(), None, report.clone()))
        };
        let of_backend = |report: TrafficReport| {
            let tree = self.model.tree_of(Kind::Backend, report.subject)?;
            let pool = tree.backends.get(&report.subject)?.spec.pool_id;
            Some((tree.id(), Some(pool), report))
        };
        let reports: Vec<(Uuid, Option<Uuid>, TrafficReport)> = listeners
            .iter()
            .filter_map(of_listener)
            .chain(backends.into_iter().filter_map(of_backend))
            .collect();
        let now = Instant::now();
        let mut state = self.state_mut();
        let Some(reporter) = state.node_of_stream(node, epoch) else { return };
        reporter.count(listeners, now);
        let boot_id = reporter.hello.as_ref().map(|hello| hello.boot_id.clone()).unwrap_or_default();
        for (tree, parent, subject, left) in removed {
            if state.has_tree(node, tree) {
                state.traffic.record_removed(tree, (parent, subject), node, left, now);
            }
        }
        let (mut dealt, mut news) = (BTreeSet::<Uuid>::new(), BTreeSet::new());
        for (tree, pool, report) in reports {
            // The network may have left the node a moment ago, or was never its own.
            if state.has_tree(node, tree) {
                if let Some(share) = report.share {
                    let (is_dealt, is_news) = deal(&mut state.shares(), node, &report, share, now);
                    dealt.extend(is_dealt.then_some(report.subject));
                    news.extend(is_news.then_some(tree));
                }
                state.traffic.record((tree, pool), (node, &boot_id), report, now);
            }
        }
        drop(state);
        dealt.into_iter().for_each(|listener| self.mark_share_dirty(listener));
        news.into_iter().for_each(|tree| self.notify(FleetNotice::Tree(tree)));
    }

    fn ejections(&self, node: &str, epoch: u64, ejections: Vec<ReportedEjection>) {
        if self.state().ejections.is_empty() && ejections.iter().all(|it| it.ejection.is_none()) {
            return;
        }
        let owned = |it: ReportedEjection| Some((self.model.tree_of(Kind::Backend, it.backend)?.id(), it));
        let owned: Vec<(Uuid, ReportedEjection)> = ejections.into_iter().filter_map(owned).collect();
        let changes: Vec<(Uuid, ReportedEjection)> = {
            let state = self.state();
            let is_known = |tree: Uuid, it: &ReportedEjection| state.ejections.has(tree, it.backend, node);
            owned.into_iter().filter(|(tree, it)| it.ejection.is_some() || is_known(*tree, it)).collect()
        };
        let (mut news, now) = (BTreeSet::new(), Instant::now());
        for (tree, ReportedEjection { backend, ejection }) in changes {
            let ejection = ejection.map(|(until_ms, reason)| EjectedBackend { until_ms, reason });
            // Locked for each anew, so that others get their turn.
            let mut state = self.state_mut();
            if state.node_of_stream(node, epoch).is_none() {
                break;
            }
            // The network may have left the node a moment ago, or was never its own.
            if state.has_tree(node, tree) && state.ejections.record(tree, backend, node, ejection, now) {
                news.insert(tree);
            }
        }
        news.retain(|tree| self.state_mut().ejections.publish(*tree, now));
        news.into_iter().for_each(|tree| self.mark_judged(tree));
    }

    fn troubles(&self, node: &str, epoch: u64, troubles: Vec<NodeTrouble>) {
        let tree = |id| self.subject(ResultKind::Listener, id);
        let (of_listeners, of_node): (Vec<_>, Vec<_>) =
            troubles.into_iter().partition(|trouble| trouble.listener.is_some());
        let mut news = BTreeSet::new();
        let mut state = self.state_mut();
        // A node may report on a listener that was just revoked, or that was never its own.
        let of_listeners: BTreeMap<Uuid, String> = of_listeners
            .into_iter()
            .filter_map(|trouble| Some((trouble.listener?, trouble.text)))
            .filter(|(id, _)| {
                tree(*id).is_some_and(|tree| state.serves(node, tree, ResultKind::Listener, *id))
            })
            .collect();
        let Some(reporter) = state.node_of_stream(node, epoch) else { return };
        reporter.troubles = of_node.into_iter().map(|trouble| trouble.text).collect();
        let before = std::mem::replace(&mut reporter.listener_troubles, of_listeners);
        let now = &reporter.listener_troubles;
        let changed = before.keys().chain(now.keys()).filter(|id| before.get(*id) != now.get(*id));
        news.extend(changed.filter_map(|id| tree(*id)));
        drop(state);
        for subject in news {
            self.notify(subject);
        }
    }

    fn read_listeners(&self) -> watch::Receiver<Arc<BTreeSet<Uuid>>> {
        self.readers.listeners()
    }

    fn access_log(&self, node: &str, epoch: u64, report: AccessLogReport) {
        let AccessLogReport { connections, mut omitted } = report;
        let mut by_listener: BTreeMap<Uuid, Vec<ReportedConnection>> = BTreeMap::new();
        for reported in connections {
            by_listener.entry(reported.connection.listener).or_default().push(reported);
        }
        for listener in omitted.keys() {
            by_listener.entry(*listener).or_default();
        }
        let trees = by_listener.keys().filter_map(|id| Some((*id, self.model.tree_of(Kind::Listener, *id)?)));
        let mut trees: BTreeMap<Uuid, Arc<Tree>> = trees.collect();
        let mut state = self.state_mut();
        if state.node_of_stream(node, epoch).is_none() {
            return;
        }
        // A node may speak of a listener that was just revoked, or that was never its own.
        trees.retain(|id, tree| state.serves(node, FleetNotice::Tree(tree.id()), ResultKind::Listener, *id));
        drop(state);
        for (listener, tree) in trees {
            let reported = by_listener.remove(&listener).unwrap_or_default().into_iter();
            // A listener of another project may have had the same id before.
            let own = reported.filter(|it| it.project == tree.load_balancer.spec.project_id);
            let connections: Vec<LoggedConnection> =
                own.map(|it| LoggedConnection { node: node.to_owned(), ..it.connection }).collect();
            self.readers.pass(listener, &connections, omitted.remove(&listener).unwrap_or_default());
        }
    }

    fn left(&self, node: &str, epoch: u64, reason: &str, is_renewed: bool) {
        if is_renewed {
            tracing::debug!(node, epoch, "proxy node renews its stream");
        } else {
            tracing::warn!(node, epoch, reason, "proxy node disconnected; waiting for it to reconnect");
        }
        let mut state = self.state_mut();
        if let Some(node) = state.node_of_stream(node, epoch) {
            node.contact.connected = false;
            node.since = Instant::now();
        }
        drop(state);
        self.close_channel(node);
        // The controller must compute the deadline for the node's death.
        self.wake.notify_one();
    }
}

impl Fleet {
    /// Connections that a node has left of removed listeners and backends: tree, load balancer or pool, subject, count.
    fn removed(
        &self,
        listeners: &[TrafficReport],
        backends: &[TrafficReport],
    ) -> Vec<(Uuid, Uuid, Uuid, Draining)> {
        let of = |kind: Kind, parent: Kind| {
            move |report: &TrafficReport| {
                let drain = report.drain.filter(|_| self.model.tree_of(kind, report.subject).is_none())?;
                let tree = self.model.tree_of(parent, drain.parent)?;
                Some((tree.id(), drain.parent, report.subject, drain.left))
            }
        };
        let of_listeners = listeners.iter().filter_map(of(Kind::Listener, Kind::LoadBalancer));
        of_listeners.chain(backends.iter().filter_map(of(Kind::Backend, Kind::Pool))).collect()
    }

    /// Deals the shares anew that nodes have to give up by now. Others might report nothing for seconds.
    pub(super) fn hand_shares_over(&self, now: Instant) {
        let due = self.state().shares().handovers(now);
        for (tree, listener) in due {
            let state = self.state();
            let mut shares = state.shares();
            let before: Vec<String> = shares.without(listener).collect();
            let is_dealt = shares.rebalance(listener, now);
            let is_news = !shares.without(listener).eq(before);
            drop(shares);
            drop(state);
            if is_dealt {
                self.mark_share_dirty(listener);
            }
            if is_news {
                self.notify(FleetNotice::Tree(tree));
            }
        }
    }

    /// Tree or network that a result concerns; `None` if there is none.
    fn subject(&self, kind: ResultKind, id: Uuid) -> Option<FleetNotice> {
        let kind = match kind {
            ResultKind::Network => return Some(FleetNotice::Network(id)),
            ResultKind::Listener => Kind::Listener,
            ResultKind::Pool => Kind::Pool,
        };
        Some(FleetNotice::Tree(self.model.tree_of(kind, id)?.id()))
    }
}

/// Records a node's use of its share of a listener's connection limit. Returns whether shares are dealt anew, and whether
/// others are without one now.
fn deal(
    shares: &mut ShareBook,
    node: &str,
    report: &TrafficReport,
    ReportedShare { in_force, above_total }: ReportedShare,
    now: Instant,
) -> (bool, bool) {
    let before: Vec<String> = shares.without(report.subject).collect();
    let active = u32::try_from(report.connections_active).unwrap_or(u32::MAX);
    shares.report(report.subject, node, ShareReport { in_force, active, above_total });
    let is_dealt = shares.rebalance(report.subject, now);
    (is_dealt, !shares.without(report.subject).eq(before))
}

/// Logs what a node cannot carry out: few of it at a time, since the node says it as often as it likes. All of it is in the
/// node's status.
fn log_refused(node: &str, throttle: &mut Throttle, refused: &[(ResultKind, Uuid, String)]) {
    let Some(((kind, id, error), others)) = refused.split_first() else { return };
    if let Some(messages) = throttle.admit(tokio::time::Instant::now()) {
        let others = others.len();
        tracing::warn!(
            node, ?kind, %id, error, others, messages, "proxy node failed to apply a resource; the node retries"
        );
    }
}

#[cfg(test)]
mod tests;
