//! When nodes count as dead, and when their networks move to others.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::fleet::directory::node::Node;
use crate::fleet::state::State;
use crate::status::Liveness;

impl State {
    /// When a node will be dead, for the one that is so first.
    pub(in crate::fleet) fn next_death(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.dead).filter_map(|node| node.heard.deadline()).min()
    }

    /// The silence of all nodes that are not dead begins at `now`.
    pub(in crate::fleet) fn forgive(&mut self, now: Instant) {
        for node in self.nodes.values_mut().filter(|node| !node.dead) {
            match &mut node.heard.last {
                Some(last) => *last = now,
                None => node.heard.started = now,
            }
        }
    }

    /// When networks move away from a dead node, for the one that does so first.
    pub(in crate::fleet) fn next_move(&self) -> Option<Instant> {
        self.nodes.values().filter(|node| !node.gone).filter_map(|node| self.moves_at(node)).min()
    }

    fn moves_at(&self, node: &Node) -> Option<Instant> {
        node.heard.deadline()?.checked_add(self.rules.move_after)
    }

    /// Whether it is dead for so long that its networks move to others.
    pub(in crate::fleet) fn is_gone(&self, node: &Node, now: Instant) -> bool {
        self.moves_at(node).is_some_and(|at| now >= at)
    }

    /// Those whose networks move to others since the last look.
    pub(in crate::fleet) fn give_up(&mut self, now: Instant) -> Vec<String> {
        let goes = |(_, node): &(&String, &Node)| !node.gone && self.is_gone(node, now);
        let going: Vec<String> = self.nodes.iter().filter(goes).map(|(id, _)| id.clone()).collect();
        for id in &going {
            if let Some(node) = self.nodes.get_mut(id) {
                node.gone = true;
            }
        }
        going
    }

    /// Those that have died since the last look, and what they were given. What they said of backends is void.
    pub(in crate::fleet) fn bury(&mut self, now: Instant) -> Vec<String> {
        let dies = |node: &Node| !node.dead && node.heard.liveness(now) == Liveness::Dead;
        let mut died = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| dies(node)) {
            node.dead = true;
            node.since = now;
            node.results.clear();
            node.is_settled = false;
            died.push(id.clone());
        }
        for id in &died {
            self.verdicts.void_others(id, &BTreeSet::new());
        }
        died
    }
}
