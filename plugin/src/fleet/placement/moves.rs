//! Placement of a network, and its moves from one node to another: make before break.
//!
//! A node that should no longer serve a network goes on until its successors serve everything that it does
//! (`obstacle`). Only then does its port drain: OVN sends it no new connections, and it keeps its port, its
//! address and its listeners until its connections have ended or the drain deadline has passed (`holds`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::api::Draining;
use crate::datapath::NodeFeatures;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{Duty, PortRecord};
use crate::fleet::placement::demand::ProxiedListener;
use crate::fleet::placement::ranking::{Candidate, place_each};
use crate::fleet::state::{FleetState, Now};
use crate::status::Liveness;

/// Time for which a connection may still be on its way to a node that has left OVN's rows: northd and the
/// chassis must apply the change, and the node's counters are a second old.
const SETTLE: Duration = Duration::from_secs(5);

/// Next step for a port of a node on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Fate {
    /// It serves and stays.
    Stays,
    /// It should go; text with what it waits for.
    Waits(String),
    /// Its successors serve: it takes no new connections from now on.
    Drains,
    /// It drains, and should serve again.
    Returns,
    /// It is no longer needed.
    Goes,
}

/// Network that cannot leave a node yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fleet) struct NetworkWait {
    pub(in crate::fleet) network: Uuid,
    /// Reason, for people.
    pub(in crate::fleet) why: String,
}

impl FleetState {
    /// Nodes that should serve a network, in order of preference. Nodes that are dead for long or drained are
    /// left out; a cordoned one keeps what it has. A node without contact since the plugin started may have
    /// been dead for any time: it keeps what it has and gets no more.
    ///
    /// For each set of capabilities that a listener on the network needs there are nodes that have it, as far as
    /// the fleet has such nodes.
    pub(in crate::fleet) fn placed(&self, network: Uuid, now: Instant) -> Vec<&str> {
        let serves = |(id, node): &(&String, &Node)| {
            node.record.is_some() && !self.is_gone(node, now) && self.may_serve(network, id, node)
        };
        let candidates = self.nodes.iter().filter(serves);
        let candidates: Vec<_> = candidates.map(|(id, node)| Candidate { id, zone: node.zone() }).collect();
        let any = NodeFeatures::default();
        let mut requirements = self.demands.requirements(network).peekable();
        let unasked = requirements.peek().is_none().then_some(&any);
        let meets = |node: &Candidate<'_>, needs: &&NodeFeatures| self.can_serve(node.id, needs);
        place_each(network, &candidates, requirements.chain(unasked), meets, self.rules.nodes_per_network)
    }

    /// True if a node has all these capabilities.
    pub(in crate::fleet) fn can_serve(&self, node: &str, needs: &NodeFeatures) -> bool {
        self.nodes.get(node).is_some_and(|node| node.can_serve(needs))
    }

    fn may_serve(&self, network: Uuid, id: &str, node: &Node) -> bool {
        let port = self.allocations.port(network, id);
        match node.duty() {
            Duty::Active => node.contact.last.is_some() || port.is_some(),
            Duty::Cordoned => port.is_some_and(|port| port.draining_since.is_none()),
            Duty::Draining => false,
        }
    }

    /// Next step for each port on a network.
    pub(in crate::fleet) fn fates(&self, network: Uuid, now: Now) -> Vec<(&str, &PortRecord, Fate)> {
        let wanted = self.wanted(network, now.at);
        let ports = self.allocations.ports(network);
        ports.map(|(node, port)| (node, port, self.fate(network, node, port, &wanted, now))).collect()
    }

    /// The nodes that need a port on a network.
    pub(in crate::fleet) fn wanted(&self, network: Uuid, now: Instant) -> Vec<&str> {
        if self.demands.has(network) { self.placed(network, now) } else { Vec::new() }
    }

    fn fate(&self, network: Uuid, node: &str, port: &PortRecord, wanted: &[&str], now: Now) -> Fate {
        match port.draining_since {
            _ if !self.demands.has(network) => Fate::Goes,
            Some(_) if wanted.contains(&node) => Fate::Returns,
            None if wanted.contains(&node) => Fate::Stays,
            _ if self.is_forgotten(node) => Fate::Goes,
            // Where all are lost, the first one that reconnects finds its allocations.
            _ if self.is_lost(node, now.at) && !wanted.is_empty() => Fate::Goes,
            None => self.obstacle(network, node, wanted, now.at).map_or(Fate::Drains, Fate::Waits),
            Some(_) => self.holds(network, node, now).map_or(Fate::Goes, Fate::Waits),
        }
    }

    /// True if a node was removed, or is dead for so long that its networks move to others without it.
    pub(in crate::fleet) fn is_lost(&self, node: &str, now: Instant) -> bool {
        self.is_forgotten(node) || self.nodes.get(node).is_some_and(|node| self.is_gone(node, now))
    }

    fn is_forgotten(&self, node: &str) -> bool {
        self.nodes.get(node).is_none_or(|node| node.record.is_none() && !node.contact.connected)
    }

    /// Reason why a network cannot leave a node yet: its successors must serve all that it does, each as far as
    /// its capabilities go.
    fn obstacle(&self, network: Uuid, node: &str, wanted: &[&str], now: Instant) -> Option<String> {
        if wanted.is_empty() {
            return Some("no other node may take it".to_owned());
        }
        let has_successor =
            |listener: &ProxiedListener| wanted.iter().any(|other| self.can_serve(other, &listener.needs));
        let mut needed = self.served_on(network, node);
        if let Some((id, listener)) = needed.find(|(_, listener)| !has_successor(listener)) {
            let needs = &listener.needs;
            return Some(format!("no other node can serve listener {id}: it needs the {needs}"));
        }
        wanted.iter().find_map(|other| self.lacks(network, node, other, now))
    }

    /// The listeners on a network that a node serves, or may serve without having reported it.
    fn served_on<'a>(
        &'a self,
        network: Uuid,
        node: &str,
    ) -> impl Iterator<Item = (Uuid, &'a ProxiedListener)> {
        let node = self.nodes.get(node);
        self.proxied_on(network)
            .filter(move |(id, listener)| node.is_some_and(|node| may_be_served(node, *id, listener)))
    }

    /// Resource on a network that a node serves and its successor does not, as a reason.
    fn lacks(&self, network: Uuid, node: &str, other: &str, now: Instant) -> Option<String> {
        let successor = self.nodes.get(other)?;
        if successor.contact.liveness(now) == Liveness::Dead {
            return Some(format!("node {other} is dead"));
        }
        if self.allocations.port(network, other).is_none() {
            return Some(format!("node {other} has no address there yet"));
        }
        let lacks = |id: &Uuid| match successor.results.get(id) {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(format!("node {other}: {error}")),
            None => Some(format!("node {other} does not serve it yet")),
        };
        let needed = self.served_on(network, node);
        let mut needed = needed.filter(|(_, listener)| successor.can_serve(&listener.needs));
        lacks(&network).or_else(|| needed.find_map(|(id, _)| lacks(&id)))
    }

    /// The listeners on a network that proxies carry.
    pub(in crate::fleet) fn proxied_on(
        &self,
        network: Uuid,
    ) -> impl Iterator<Item = (Uuid, &ProxiedListener)> {
        let demands = self.demands.on(network).filter_map(|tree| self.demands.of(tree));
        demands.flat_map(|demand| demand.proxied.iter().map(|(id, listener)| (*id, listener)))
    }

    /// Records whether OVN's rows send new connections to a node's draining port.
    pub(in crate::fleet) fn set_listed(&mut self, network: Uuid, node: &str, is_listed: bool, now: Instant) {
        let key = (network, node.to_owned());
        if is_listed {
            self.clear_since.remove(&key);
        } else {
            self.clear_since.entry(key).or_insert(now);
        }
    }

    /// Reason why a port that drains must stay.
    fn holds(&self, network: Uuid, node: &str, now: Now) -> Option<String> {
        let settled = self.clear_since.get(&(network, node.to_owned())).map(|since| *since + SETTLE);
        let Some(settled) = settled.filter(|settled| *settled <= now.at) else {
            return Some("OVN has just sent it connections".to_owned());
        };
        if self.holds_vip(network, node) {
            return Some("it holds a VIP that no other node has taken over yet".to_owned());
        }
        if self.drained(network, node, now.at) >= self.rules.drain {
            return None;
        }
        match self.connections(network, node, settled) {
            None => Some("its connections are not counted yet".to_owned()),
            Some(0) => {
                self.is_needed(network, node).then(|| "no other node has checked all backends".to_owned())
            }
            Some(count) => Some(format!("{count} connections go through it")),
        }
    }

    /// True if a port has drained for as long as it may, and others serve all that it does: no row has it any more, whatever OVN
    /// would send it. A tenant must not be able to keep a node from draining.
    pub(in crate::fleet) fn is_overdue(
        &self,
        network: Uuid,
        node: &str,
        wanted: &[&str],
        now: Instant,
    ) -> bool {
        let serves = |other: &&str, id: &Uuid| {
            let node = self.nodes.get(*other).filter(|node| node.is_there(now));
            node.is_some_and(|node| matches!(node.results.get(id), Some(Ok(_))))
        };
        self.allocations.is_draining(network, node)
            && self.drained(network, node, now) >= self.rules.drain
            && self.served_on(network, node).all(|(id, _)| wanted.iter().any(|other| serves(other, &id)))
    }

    /// Time for which a port drains.
    fn drained(&self, network: Uuid, node: &str, now: Instant) -> Duration {
        let now = self.clock.ms(now);
        let began = self.drains.get(&(network, node.to_owned())).copied().unwrap_or(now);
        Duration::from_millis(now.saturating_sub(began))
    }

    /// Connections of a node on a network, as counted since `since`; `None`: not counted since.
    fn connections(&self, network: Uuid, node: &str, since: Instant) -> Option<u64> {
        let node = self.nodes.get(node)?;
        // Connections to a DIRECT VIP are lost once it has moved away from the node.
        let listeners = self.proxied_on(network).filter(|(_, listener)| listener.is_behind_ovn);
        let mut total = 0_u64;
        for (id, listener) in listeners {
            match (node.counters.get(&id), node.counted_at.get(&id)) {
                (Some(counters), Some(at)) if *at >= since => {
                    total = total.saturating_add(counters.connections_active);
                }
                (None, _) if !may_be_served(node, id, listener) => {}
                _ => return None,
            }
        }
        Some(total)
    }

    /// True if a node that checks a backend on a network is the only one with a verdict on it.
    fn is_needed(&self, network: Uuid, node: &str) -> bool {
        self.checked_on(network).any(|backend| self.verdicts.needs(backend, node))
    }

    /// True if a port on a network is to be added, drained or released.
    pub(in crate::fleet) fn is_moving(&self, network: Uuid, now: Now) -> bool {
        self.fates(network, now).iter().any(|(_, _, fate)| *fate != Fate::Stays)
    }

    /// Reason why a network cannot leave a node yet: any network if the node is drained, else one that has
    /// moved.
    pub(in crate::fleet) fn wait_of(&self, node: &str, now: Now) -> Option<NetworkWait> {
        self.allocations.networks_of(node).fold(None, |why, network| self.wait(why, network, node, now))
    }

    /// The same of all nodes, by node.
    pub(in crate::fleet) fn waits(&self, now: Now) -> HashMap<&str, NetworkWait> {
        let mut waits: HashMap<&str, NetworkWait> = HashMap::new();
        for network in self.allocations.networks() {
            for (node, _) in self.allocations.ports(network) {
                let before = waits.remove(node);
                waits.extend(self.wait(before, network, node, now).map(|why| (node, why)));
            }
        }
        waits
    }

    /// Connections that are left on the networks that drain from a node.
    pub(in crate::fleet) fn draining_of(&self, node: &str, now: Now) -> Draining {
        let mut all = Draining::default();
        let networks = self.allocations.networks_of(node);
        networks.filter_map(|network| self.draining_on(network, node, now)).for_each(|left| all.add(&left));
        all
    }

    /// The same of all nodes, by node.
    pub(in crate::fleet) fn draining(&self, now: Now) -> HashMap<&str, Draining> {
        let mut all: HashMap<&str, Draining> = HashMap::new();
        for network in self.allocations.networks() {
            for (node, _) in self.allocations.ports(network) {
                if let Some(left) = self.draining_on(network, node, now) {
                    all.entry(node).or_default().add(&left);
                }
            }
        }
        all
    }

    /// Connections that are left on a network that drains from a node.
    fn draining_on(&self, network: Uuid, node: &str, now: Now) -> Option<Draining> {
        if !self.allocations.is_draining(network, node) {
            return None;
        }
        let counters = &self.nodes.get(node)?.counters;
        let active = self.proxied_on(network).filter_map(|(id, _)| counters.get(&id));
        let connections =
            active.fold(0, |sum: u64, listener| sum.saturating_add(listener.connections_active));
        let left = self.rules.drain.saturating_sub(self.drained(network, node, now.at)).as_millis();
        let deadline_ms = now.ms.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
        Some(Draining { connections, deadline_ms: Some(deadline_ms) })
    }

    /// Reason why a network cannot leave a node, where it counts for more than the one of another network.
    /// Moves that have not begun may need action by an operator.
    fn wait(&self, other: Option<NetworkWait>, network: Uuid, node: &str, now: Now) -> Option<NetworkWait> {
        let is_drained = self.nodes.get(node).is_some_and(|node| node.duty() == Duty::Draining);
        let port = self.allocations.port(network, node);
        let Some(port) = port.filter(|port| is_drained || port.draining_since.is_some()) else {
            return other;
        };
        if other.is_some() && port.draining_since.is_some() {
            return other;
        }
        match self.fate(network, node, port, &self.wanted(network, now.at), now) {
            Fate::Waits(why) => Some(NetworkWait { network, why }),
            _ => other,
        }
    }
}

/// True if a node serves a listener, or may do so without having reported it.
fn may_be_served(node: &Node, id: Uuid, listener: &ProxiedListener) -> bool {
    match node.results.get(&id) {
        Some(result) => result.is_ok(),
        None => !node.is_settled && node.can_serve(&listener.needs),
    }
}

#[cfg(test)]
mod tests;
