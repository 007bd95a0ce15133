//! Deaths of nodes, and moves of their networks to others.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::fleet::directory::node::Node;
use crate::fleet::state::FleetState;
use crate::status::Liveness;

impl FleetState {
    /// Earliest instant at which a node is declared dead.
    pub(in crate::fleet) fn next_death(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.dead).filter_map(|node| node.contact.deadline()).min()
    }

    /// Restarts the silence timers of all nodes that are not dead.
    pub(in crate::fleet) fn extend_grace(&mut self, now: Instant) {
        for node in self.nodes.values_mut().filter(|node| !node.dead) {
            // Nor was any verdict received.
            node.alive_since = now;
            match &mut node.contact.last {
                Some(last) => *last = now,
                None => node.contact.started = now,
            }
        }
    }

    /// Earliest instant at which the networks of a dead node move.
    pub(in crate::fleet) fn next_move(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.gone).filter_map(|node| self.moves_at(node)).min()
    }

    fn moves_at(&self, node: &Node) -> Option<Instant> {
        node.contact.deadline()?.checked_add(self.rules.move_after)
    }

    /// True once a node has been dead for so long that its networks move to others.
    pub(in crate::fleet) fn is_gone(&self, node: &Node, now: Instant) -> bool {
        self.moves_at(node).is_some_and(|at| now >= at)
    }

    /// Marks nodes as gone whose networks move to others by now, and returns those that are newly so.
    pub(in crate::fleet) fn mark_gone(&mut self, now: Instant) -> Vec<String> {
        let goes = |(_, node): &(&String, &Node)| !node.gone && self.is_gone(node, now);
        let going: Vec<String> = self.nodes.iter().filter(goes).map(|(id, _)| id.clone()).collect();
        for id in &going {
            if let Some(node) = self.nodes.get_mut(id) {
                node.gone = true;
            }
        }
        going
    }

    /// Marks nodes as dead that are so by now, and returns those that are newly so. Drops their verdicts and
    /// results.
    pub(in crate::fleet) fn mark_dead(&mut self, now: Instant) -> Vec<String> {
        let dies = |node: &Node| !node.dead && node.contact.liveness(now) == Liveness::Dead;
        let mut died = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| dies(node)) {
            node.dead = true;
            node.since = now;
            node.results.clear();
            node.is_settled = false;
            died.push(id.clone());
        }
        for id in &died {
            self.retain_verdicts(id, &BTreeSet::new(), now);
            for network in self.allocations.networks_of(id).collect::<Vec<_>>() {
                self.judge_network(network, now);
            }
        }
        died
    }
}
