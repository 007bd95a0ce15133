//! What the nodes say, as the fleet takes it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use uuid::Uuid;

use super::health::Verdict;
use super::shared::{Fleet, Notice};
use crate::agents::{
    self, Acknowledgement, Configuration, Hello, ListenerCounters, Observer, Refusal, ResultKind,
};
use crate::resources::Kind;

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
        state.joined(hello, epoch, Instant::now());
        drop(state);
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

    fn acknowledged(&self, node: &str, epoch: u64, _settled: bool, results: Vec<Acknowledgement>) {
        let mut news = Vec::new();
        let mut state = self.state_mut();
        let Some(speaker) = state.speaker(node, epoch) else { return };
        for Acknowledgement { kind, id, generation, error } in results {
            let result = error.map_or(Ok(generation), Err);
            if speaker.results.get(&id) == Some(&result) {
                continue;
            }
            if let Err(error) = &result {
                tracing::warn!(node, ?kind, %id, error, "a proxy node cannot carry something out; it tries again by itself");
            }
            speaker.results.insert(id, result);
            news.push((kind, id));
        }
        drop(state);
        for (kind, id) in news {
            self.tell_of_result(kind, id);
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
            let Some(tree) = self.tree_of_checked(verdict.backend) else { continue };
            let agents::Verdict { backend, up, reason, since_ms } = verdict;
            if self.state_mut().verdicts.judge(backend, node, Verdict { up, reason, since_ms }) {
                changed.insert(tree);
            }
        }
        if complete {
            let void = self.state_mut().verdicts.void_others(node, &known);
            changed.extend(void.into_iter().filter_map(|backend| self.tree_of_checked(backend)));
        }
        for tree in changed {
            self.notify(Notice::Tree(tree));
        }
    }

    fn counters(&self, node: &str, epoch: u64, counters: Vec<ListenerCounters>) {
        if let Some(node) = self.state_mut().speaker(node, epoch) {
            node.counters.extend(counters.into_iter().map(|counters| (counters.listener, counters)));
            let results = &node.results;
            node.counters.retain(|listener, _| results.contains_key(listener));
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
    fn tell_of_result(&self, kind: ResultKind, id: Uuid) {
        let kind = match kind {
            ResultKind::Network => return self.notify(Notice::Network(id)),
            ResultKind::Listener => Kind::Listener,
            ResultKind::Pool => Kind::Pool,
        };
        if let Some(tree) = self.model.tree_of(kind, id) {
            self.notify(Notice::Tree(tree.id()));
        }
    }
}
