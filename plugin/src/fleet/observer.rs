//! What the nodes say, as the fleet takes it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::{
    self, Acknowledgement, Configuration, Hello, ListenerCounters, Observer, Refusal, ResultKind,
};
use crate::fleet::facade::{Fleet, Notice};
use crate::resources::Kind;
use crate::status::Verdict;

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
        let wanting: Vec<Uuid> = state.demands.networks().filter(|_| was_away).collect();
        drop(state);
        self.want(wanting);
        tracing::info!(
            node = hello.node_id,
            chassis = hello.chassis,
            release = hello.release,
            zone = hello.zone,
            epoch,
            "a proxy node has connected"
        );
        Ok(self.open_channel(&hello.node_id))
    }

    fn heard(&self, node: &str, epoch: u64) {
        if let Some(node) = self.state_mut().speaker(node, epoch) {
            node.heard.last = Some(Instant::now());
        }
    }

    fn acknowledged(&self, node: &str, epoch: u64, settled: bool, results: Vec<Acknowledgement>) {
        let subject = |result: Acknowledgement| Some((self.subject(result.kind, result.id)?, result));
        let results: Vec<(Notice, Acknowledgement)> = results.into_iter().filter_map(subject).collect();
        let mut news = BTreeSet::new();
        let mut state = self.state_mut();
        for (subject, Acknowledgement { kind, id, generation, error }) in results {
            // A node may speak of what was just taken from it, or of what was never its business.
            if !state.serves(node, subject, kind, id) {
                continue;
            }
            let Some(speaker) = state.speaker(node, epoch) else { return };
            let result = error.map_or(Ok(generation), Err);
            if speaker.results.get(&id) == Some(&result) {
                continue;
            }
            if let Err(error) = &result {
                tracing::warn!(node, ?kind, %id, error, "a proxy node cannot carry something out; it tries again by itself");
            }
            speaker.results.insert(id, result);
            // What a node says of a pool is shown with the node alone.
            if kind != ResultKind::Pool {
                news.insert(subject);
            }
        }
        if settled && let Some(speaker) = state.speaker(node, epoch) {
            speaker.is_settled = true;
            for id in std::mem::take(&mut speaker.taken_back) {
                speaker.forget(id);
            }
        }
        drop(state);
        for subject in news {
            self.notify(subject);
        }
    }

    fn verdicts(&self, node: &str, epoch: u64, complete: bool, verdicts: Vec<agents::Verdict>) {
        if self.state_mut().speaker(node, epoch).is_none() {
            return;
        }
        let known: BTreeSet<Uuid> = verdicts.iter().map(|verdict| verdict.backend).collect();
        let mut changed: BTreeSet<Uuid> = BTreeSet::new();
        for verdict in verdicts {
            // A node may speak of what was just deleted, or of what was never its business.
            let Some(tree) = self.tree_of_checked(node, verdict.backend) else { continue };
            let agents::Verdict { backend, up, reason, since_ms } = verdict;
            let mut state = self.state_mut();
            // What it checks may have been taken from it a moment ago.
            if state.checks(node, tree, backend)
                && state.judge(tree, backend, node, Verdict { up, reason, since_ms })
            {
                changed.insert(tree);
            }
        }
        if complete {
            let mut state = self.state_mut();
            let void = state.verdicts.void_others(node, &known);
            if let Some(speaker) = state.speaker(node, epoch) {
                speaker.has_reported = true;
            }
            drop(state);
            let trees = void.into_iter().filter_map(|backend| self.model.tree_of(Kind::Backend, backend));
            changed.extend(trees.map(|tree| tree.id()));
        }
        for tree in changed {
            self.notify(Notice::Tree(tree));
            // A backend that one node has found up is not new to the others any more.
            self.look_at(Notice::Tree(tree));
        }
    }

    fn counters(&self, node: &str, epoch: u64, counters: Vec<ListenerCounters>) {
        if let Some(node) = self.state_mut().speaker(node, epoch) {
            node.count(counters, Instant::now());
        }
    }

    fn left(&self, node: &str, epoch: u64, reason: &str) {
        tracing::warn!(node, epoch, reason, "the stream of a proxy node has ended; waiting for its return");
        let mut state = self.state_mut();
        if let Some(node) = state.speaker(node, epoch) {
            node.heard.connected = false;
            node.since = Instant::now();
        }
        drop(state);
        self.close_channel(node);
        // The controller must learn when the node counts as dead.
        self.wake.notify_one();
    }
}

impl Fleet {
    /// What a result concerns; `None`: nothing that there is.
    fn subject(&self, kind: ResultKind, id: Uuid) -> Option<Notice> {
        let kind = match kind {
            ResultKind::Network => return Some(Notice::Network(id)),
            ResultKind::Listener => Kind::Listener,
            ResultKind::Pool => Kind::Pool,
        };
        Some(Notice::Tree(self.model.tree_of(kind, id)?.id()))
    }
}

#[cfg(test)]
mod tests;
