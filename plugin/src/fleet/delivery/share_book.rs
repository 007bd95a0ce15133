//! Shares of the nodes in the connection limits of listeners, dealt by need. Pure.
//!
//! A share is lowered first, and only when the node has it in force, and no more connections than it, others get what was
//! freed: the sum of what nodes may have is never above the limit. A node whose share is on its way gets no other one
//! before, so that what it reports cannot be taken for another one. There are two exceptions: a limit that is lowered, and a
//! node that is dead.
//!
//! Nodes that drain, or are dead, give their shares up once OVN's rows have surely sent new clients to others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::shares::NodePlace;

/// Least time between two changes of the shares of one listener.
const PAUSE: Duration = Duration::from_secs(1);
/// Time in which OVN's rows have surely followed a drain or a death. Until then the node keeps its share.
const HANDOVER: Duration = Duration::from_secs(5);
/// Least time between two changes of which nodes have a share at all, where need alone asks for it: OVN's row changes too.
const MEMBERSHIP_PAUSE: Duration = Duration::from_secs(30);
/// Least gain of the nodes in need that is worth other shares: this part of the limit.
const LEAST_GAIN: u32 = 50;

/// Shares of all listeners with a connection limit.
#[derive(Debug, Default)]
pub(in crate::fleet) struct ShareBook {
    listeners: HashMap<Uuid, SharedLimit>,
}

/// Node that serves a listener.
#[derive(Clone, Copy, Debug)]
pub(in crate::fleet) struct Sharer<'a> {
    /// Node id.
    pub node: &'a str,
    /// State of the node.
    pub state: SharerState,
}

/// State of a node that serves a listener: as long as there is one of an earlier state, those of a later one need no share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::fleet) enum SharerState {
    /// Takes new connections.
    #[default]
    Serves,
    /// Is to become empty.
    Drains,
    /// It is silent.
    Dead,
}

/// Shares in the limit of one listener.
#[derive(Debug)]
struct SharedLimit {
    tree: Uuid,
    limit: u32,
    nodes: BTreeMap<String, NodeShare>,
    /// Time of the latest change.
    changed: Option<Instant>,
    /// Time of the latest change of which nodes have a share at all.
    membership_changed: Option<Instant>,
}

/// Share of one node.
#[derive(Clone, Copy, Debug)]
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
    /// Of these, those of the last seconds, since the shares were last dealt.
    refused: u64,
    state: SharerState,
    /// Time of the latest change of its state.
    since: Instant,
    /// True if it was last dealt nothing for its state.
    has_left: bool,
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
    /// The share of a node in the limit of a listener of `tree`, which all of `sharers` serve. `None`: it is none of them.
    pub(in crate::fleet) fn share(
        &mut self,
        (tree, listener): (Uuid, Uuid),
        limit: u32,
        sharers: &[Sharer<'_>],
        node: &str,
        now: Instant,
    ) -> Option<u32> {
        let shared = self.listeners.entry(listener).or_insert_with(|| SharedLimit {
            tree,
            limit,
            nodes: BTreeMap::new(),
            changed: None,
            membership_changed: None,
        });
        shared.serve(listener, limit, sharers, now);
        Some(shared.nodes.get(node)?.dealt)
    }

    /// Share that a node was dealt last.
    pub(in crate::fleet) fn dealt(&self, listener: Uuid, node: &str) -> Option<u32> {
        Some(self.listeners.get(&listener)?.nodes.get(node)?.dealt)
    }

    /// Nodes that turn every client of a listener away, since they have no share, or will soon have none.
    pub(in crate::fleet) fn without(&self, listener: Uuid) -> impl Iterator<Item = String> {
        let shares = self.listeners.get(&listener).into_iter().flat_map(|shared| &shared.nodes);
        shares.filter(|(_, share)| share.is_none()).map(|(node, _)| node.clone())
    }

    /// Listeners, with their trees, of which a node has to give up its share by now, or may have one again.
    pub(in crate::fleet) fn handovers(&self, now: Instant) -> Vec<(Uuid, Uuid)> {
        let due = self.listeners.iter().filter(|(_, shared)| shared.is_handover(now));
        due.map(|(listener, shared)| (shared.tree, *listener)).collect()
    }

    /// Records the report of a node.
    pub(in crate::fleet) fn report(&mut self, listener: Uuid, node: &str, report: ShareReport) {
        let shared = self.listeners.get_mut(&listener);
        if let Some(share) = shared.and_then(|shared| shared.nodes.get_mut(node)) {
            share.report(report);
        }
    }

    /// Deals the shares of a listener anew if nodes have turned clients away, or have to give up theirs, or goes on with what
    /// could not be dealt yet. Returns true if any share has changed.
    pub(in crate::fleet) fn rebalance(&mut self, listener: Uuid, now: Instant) -> bool {
        let Some(shared) = self.listeners.get_mut(&listener) else { return false };
        if shared.changed.is_some_and(|changed| now.saturating_duration_since(changed) < PAUSE) {
            return false;
        }
        shared.set_targets(listener, now);
        let has_changed = shared.deal(now);
        if has_changed {
            shared.changed = Some(now);
        }
        has_changed
    }

    /// Drops the listeners of a tree that `is_there` is false for.
    pub(in crate::fleet) fn retain(&mut self, tree: Uuid, is_there: impl Fn(&Uuid) -> bool) {
        self.listeners.retain(|listener, shared| shared.tree != tree || is_there(listener));
    }
}

impl SharedLimit {
    /// Updates the nodes that serve the listener, and its limit. The first nodes get equal parts; those that come later what
    /// is free, up to such a part, and more as soon as the others have released it. What is above a lowered limit is cut at once.
    fn serve(&mut self, listener: Uuid, limit: u32, sharers: &[Sharer<'_>], now: Instant) {
        let is_new = self.nodes.is_empty();
        let is_other_limit = self.limit != limit;
        self.limit = limit;
        let before = self.nodes.len();
        // What a node that is gone had is free.
        self.nodes.retain(|node, _| sharers.iter().any(|sharer| sharer.node == node));
        let mut is_other = is_other_limit || self.nodes.len() < before;
        let first = sharers.iter().map(|sharer| sharer.state).min().unwrap_or_default();
        let takes = |sharer: &&Sharer<'_>| sharer.state == first;
        let takers = sharers.iter().filter(takes).count();
        for (index, sharer) in sharers.iter().enumerate() {
            if let Some(share) = self.nodes.get_mut(sharer.node) {
                share.set_state(sharer.state, now);
                continue;
            }
            is_other = true;
            let index = sharers.iter().take(index).filter(takes).count();
            let has_left = !takes(&sharer);
            let part = if has_left { 0 } else { NodePlace { index, nodes: takers }.part(limit, listener) };
            let dealt = if is_new { part } else { part.min(self.free()) };
            self.nodes.insert(sharer.node.to_owned(), NodeShare::new(dealt, sharer.state, has_left, now));
        }
        if is_other && !is_new {
            self.aim(listener, now);
        }
        if self.nodes.values().fold(0_u32, |sum, node| sum.saturating_add(node.dealt)) > limit {
            self.nodes.values_mut().for_each(NodeShare::lower);
        }
    }

    /// Part of the limit that no node may have.
    fn free(&self) -> u32 {
        let held = self.nodes.values().fold(0_u32, |sum, node| sum.saturating_add(node.held));
        self.limit.saturating_sub(held)
    }

    /// True if a node has to give up its share by now, or may have one again.
    fn is_handover(&self, now: Instant) -> bool {
        let first = self.first();
        self.nodes.values().any(|node| node.has_left != node.leaves(first, now))
    }

    /// Sets other targets if a node has to give up its share, or may have one again; or if nodes have turned clients away, or
    /// have no share and get no clients therefore, and would gain enough.
    fn set_targets(&mut self, listener: Uuid, now: Instant) {
        let first = self.first();
        self.nodes.values_mut().for_each(|node| node.give_up(first, now));
        if self.is_handover(now) {
            return self.aim(listener, now);
        }
        let takers = self.nodes.values().filter(|node| !node.has_left).count();
        let is_enough_for_all = usize::try_from(self.limit).is_ok_and(|limit| limit >= takers);
        let may_enter = is_enough_for_all && self.may_change_membership(now);
        let is_wanting =
            |node: &NodeShare| node.refused > 0 || (may_enter && !node.has_left && node.target == 0);
        if !self.nodes.values().any(is_wanting) {
            return;
        }
        let targets = self.targets(listener, now);
        let gain = |(node, target): (&NodeShare, &u32)| {
            if is_wanting(node) { target.saturating_sub(node.target) } else { 0 }
        };
        let gain = self.nodes.values().zip(&targets).map(gain).fold(0, u32::saturating_add);
        if gain >= (self.limit / LEAST_GAIN).max(1) {
            self.adopt(targets);
        }
    }

    /// Marks the nodes that have to give up their shares, and sets the targets of the others anew.
    fn aim(&mut self, listener: Uuid, now: Instant) {
        let first = self.first();
        self.nodes.values_mut().for_each(|node| node.has_left = node.leaves(first, now));
        self.adopt(self.targets(listener, now));
    }

    fn adopt(&mut self, targets: Vec<u32>) {
        for (node, target) in self.nodes.values_mut().zip(targets) {
            (node.target, node.refused) = (target, 0);
        }
    }

    /// Targets by what nodes need: what they have and have turned away, as far as there is enough for all, and equal parts of
    /// what is left. In the order of the nodes.
    fn targets(&self, listener: Uuid, now: Instant) -> Vec<u32> {
        let keeps_members = !self.may_change_membership(now);
        let takers: Vec<&NodeShare> = self.nodes.values().filter(|node| !node.has_left).collect();
        let needs: Vec<Need> = takers.iter().map(|node| node.need(keeps_members)).collect();
        let mut parts = divided(self.limit, &needs).into_iter().enumerate().collect::<Vec<_>>();
        let left = self.limit.saturating_sub(parts.iter().map(|(_, part)| part).sum());
        let nodes = parts.len();
        // What cannot be divided goes to those who have least, and stays with one of these that has had it.
        let before = |index: usize| takers.get(index).map(|node| Reverse(node.target));
        parts.sort_by_key(|(index, part)| {
            (*part, before(*index), NodePlace { index: *index, nodes }.turn(listener))
        });
        for (turn, (_, part)) in parts.iter_mut().enumerate() {
            *part = part.saturating_add(NodePlace { index: turn, nodes }.part(left, Uuid::nil()));
        }
        parts.sort_unstable();
        let mut parts = parts.into_iter().map(|(_, part)| part);
        self.nodes.values().map(|node| if node.has_left { 0 } else { parts.next().unwrap_or(0) }).collect()
    }

    /// Lowers shares, and raises others by what is free. Returns true if any has changed.
    fn deal(&mut self, now: Instant) -> bool {
        let members = |nodes: &BTreeMap<String, NodeShare>| {
            nodes.values().map(|node| node.dealt > 0).collect::<Vec<_>>()
        };
        let before = members(&self.nodes);
        let mut has_changed = false;
        for node in self.nodes.values_mut().filter(|node| node.is_in_force && node.target < node.dealt) {
            node.lower();
            has_changed = true;
        }
        let mut free = self.free();
        for node in self.nodes.values_mut().filter(|node| node.is_in_force && node.target > node.dealt) {
            // What it has already is not taken from what is free.
            let own = node.held.saturating_sub(node.dealt);
            let more = free.saturating_add(own).min(node.target - node.dealt);
            if more > 0 {
                node.dealt += more;
                node.is_in_force = false;
                free -= node.dealt.saturating_sub(node.held);
                node.held = node.held.max(node.dealt);
                has_changed = true;
            }
        }
        if members(&self.nodes) != before {
            self.membership_changed = Some(now);
        }
        has_changed
    }

    /// The first state that any node is in.
    fn first(&self) -> SharerState {
        self.nodes.values().map(|node| node.state).min().unwrap_or_default()
    }

    fn may_change_membership(&self, now: Instant) -> bool {
        self.membership_changed.is_none_or(|at| now.saturating_duration_since(at) >= MEMBERSHIP_PAUSE)
    }
}

impl NodeShare {
    fn new(dealt: u32, state: SharerState, has_left: bool, since: Instant) -> Self {
        Self {
            dealt,
            target: dealt,
            held: dealt,
            is_in_force: false,
            in_force: None,
            active: 0,
            above_total: None,
            refused: 0,
            state,
            since,
            has_left,
        }
    }

    fn set_state(&mut self, state: SharerState, now: Instant) {
        if self.state != state {
            (self.state, self.since) = (state, now);
        }
    }

    /// True if the node turns every client away, or will soon.
    fn is_none(&self) -> bool {
        self.dealt == 0 || self.in_force == Some(0)
    }

    /// True if it has to give up its share to nodes in the state `first`.
    fn leaves(&self, first: SharerState, now: Instant) -> bool {
        self.state > first && (self.has_left || now.saturating_duration_since(self.since) >= HANDOVER)
    }

    /// Takes its share without its word, where it has none: a dead node, or an agent that does not know shares.
    fn give_up(&mut self, first: SharerState, now: Instant) {
        let is_silent = self.state == SharerState::Dead || self.in_force.is_none();
        let is_over = now.saturating_duration_since(self.since) >= HANDOVER;
        if is_silent && is_over && self.leaves(first, now) {
            (self.dealt, self.held, self.active, self.is_in_force) = (0, 0, 0, false);
        }
    }

    /// Lowers its share to what it is to have.
    fn lower(&mut self) {
        if self.target < self.dealt {
            (self.dealt, self.is_in_force) = (self.target, false);
        }
    }

    fn report(&mut self, report: ShareReport) {
        let ShareReport { in_force, active, above_total } = report;
        self.is_in_force = in_force == self.dealt;
        self.in_force = Some(in_force);
        // One that has more than it was dealt has it from an earlier leader, from before it was dead, or on its way.
        self.held =
            if self.is_in_force { self.dealt.max(active) } else { self.held.max(in_force).max(active) };
        let before = self.above_total.replace(above_total).unwrap_or(above_total);
        // A process that was started anew counts from nought.
        let more = above_total.checked_sub(before).unwrap_or(above_total);
        self.refused = (self.refused / 2).saturating_add(more);
        self.active = active;
    }

    /// Connections that it needs. Those that have a share at all keep one if `keeps_members`.
    fn need(&self, keeps_members: bool) -> Need {
        let refused = u32::try_from(self.refused).unwrap_or(u32::MAX);
        let least = u32::from(keeps_members && self.target > 0);
        Need { connections: self.active.saturating_add(refused).max(least), before: self.target }
    }
}

/// Need of a node.
#[derive(Clone, Copy, Debug)]
struct Need {
    /// Connections.
    connections: u32,
    /// Its target before.
    before: u32,
}

/// Parts of a number for so many needs: all of each, or where that is too much, the same for those who need more than it. What
/// cannot be divided stays with those who have most, so that it does not move as needs come and go.
fn divided(total: u32, needs: &[Need]) -> Vec<u32> {
    let mut sorted: Vec<u32> = needs.iter().map(|need| need.connections).collect();
    sorted.sort_unstable();
    let (mut left, mut most) = (total, u32::MAX);
    for (done, need) in sorted.iter().enumerate() {
        let equal = left / u32::try_from(needs.len() - done).unwrap_or(u32::MAX);
        if *need > equal {
            most = equal;
            break;
        }
        left -= need;
    }
    let mut parts: Vec<u32> = needs.iter().map(|need| need.connections.min(most)).collect();
    let rest = total - parts.iter().sum::<u32>();
    let mut cut: Vec<(usize, &Need)> =
        needs.iter().enumerate().filter(|(_, need)| need.connections > most).collect();
    cut.sort_by_key(|(_, need)| Reverse(need.before));
    for (index, _) in cut.into_iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
        if let Some(part) = parts.get_mut(index) {
            *part += 1;
        }
    }
    parts
}

#[cfg(test)]
mod tests;
