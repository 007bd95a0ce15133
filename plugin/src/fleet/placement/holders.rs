//! Holders of DIRECT VIPs.

use std::net::IpAddr;
use std::time::Instant;

use uuid::Uuid;

use crate::fleet::directory::records::PortRecord;
use crate::fleet::placement::demand::Demand;
use crate::fleet::placement::ranking::{Candidate, place};
use crate::fleet::state::FleetState;
use crate::status::Liveness;

impl FleetState {
    /// The node that holds a VIP of a load balancer.
    pub(in crate::fleet) fn holder(&self, load_balancer: Uuid, vip: IpAddr) -> Option<&str> {
        self.holders.get(&(load_balancer, vip)).map(String::as_str)
    }

    /// VIPs that a node holds, or held before their load balancers ceased to be DIRECT.
    pub(in crate::fleet) fn held_by(&self, node: &str) -> impl Iterator<Item = (Uuid, IpAddr)> {
        self.holders.iter().filter(move |(_, holder)| *holder == node).map(|(key, _)| *key)
    }

    /// True if a node holds VIPs of a load balancer, or held them before it ceased to be DIRECT.
    pub(in crate::fleet) fn has_holder(&self, load_balancer: Uuid, vips: &[IpAddr]) -> bool {
        vips.iter().any(|vip| self.holder(load_balancer, *vip).is_some())
    }

    /// Records that a node reports to hold a VIP: it keeps it, unless another one was assigned it meanwhile.
    pub(in crate::fleet) fn held(&mut self, load_balancer: Uuid, vip: IpAddr, node: &str) {
        self.holders.entry((load_balancer, vip)).or_insert_with(|| node.to_owned());
    }

    /// Assigns each VIP of a tree to a live node: the current holder, unless the network has moved away from
    /// it, or else the first choice. A node that can serve all of the tree's listeners, and reaches backends of each, comes
    /// before all others.
    /// Returns true if any VIP moved.
    pub(in crate::fleet) fn assign_vips(
        &mut self,
        load_balancer: Uuid,
        network: Uuid,
        vips: &[IpAddr],
        now: Instant,
    ) -> bool {
        let liveness = |id: &str| self.nodes.get(id).map(|node| node.contact.liveness(now));
        let needs = self.demands.of(load_balancer).and_then(Demand::needs_of_holder).unwrap_or_default();
        let listeners =
            || self.demands.of(load_balancer).into_iter().flat_map(|demand| demand.proxied.values());
        let reaches = |id: &str| {
            let hosts: Vec<IpAddr> =
                self.allocations.port(network, id).into_iter().flat_map(PortRecord::hosts).collect();
            listeners().all(|listener| listener.is_served_from(&hosts))
        };
        let is_able = |id: &str| self.nodes.get(id).is_some_and(|node| node.can_serve(&needs)) && reaches(id);
        let candidates: Vec<String> = {
            let placed = self.placed(network, now);
            // A node without contact since the plugin started may hold it.
            let is_unseen = |id: &str| self.nodes.get(id).is_some_and(|node| node.contact.last.is_none());
            let serving = self.allocations.ports(network).filter(|(_, port)| port.draining_since.is_none());
            let mut may_hold = placed.iter().copied().chain(serving.map(|(node, _)| node));
            let waits = may_hold.any(|id| is_unseen(id) && liveness(id) == Some(Liveness::Silent));
            let candidates = placed.into_iter().map(|id| Candidate { id, zone: "" });
            let ranked = place(load_balancer, candidates, self.rules.nodes_per_network);
            let alive = ranked.into_iter().filter(|id| {
                liveness(id) == Some(Liveness::Alive) && self.allocations.port(network, id).is_some()
            });
            // Without another live node, a draining one is better than none.
            let draining = self.allocations.ports(network).filter(|(_, port)| port.draining_since.is_some());
            let draining = draining.map(|(node, _)| node).filter(|id| liveness(id) == Some(Liveness::Alive));
            // Without a node that can serve all, some of it is better than nothing.
            let (able, unable): (Vec<_>, Vec<_>) = alive.chain(draining).partition(|id| is_able(id));
            if waits { Vec::new() } else { able.into_iter().chain(unable).map(str::to_owned).collect() }
        };
        let mut moved = false;
        for vip in vips {
            let holder = self.holders.get(&(load_balancer, *vip)).map(String::as_str);
            let lives = holder.is_some_and(|id| {
                let stays =
                    |id| self.allocations.port(network, id).is_some_and(|port| port.draining_since.is_none());
                let is_best = is_able(id) || candidates.first().is_none_or(|first| !is_able(first));
                liveness(id).is_some_and(|liveness| liveness != Liveness::Dead)
                    && is_best
                    && (stays(id) || candidates.first().is_some_and(|first| first == id))
            });
            if let Some(next) = candidates.first().filter(|_| !lives) {
                moved |= holder != Some(next.as_str());
                self.holders.insert((load_balancer, *vip), next.clone());
            }
        }
        moved
    }

    /// True if a node holds a VIP on a network.
    pub(in crate::fleet) fn holds_vip(&self, network: Uuid, node: &str) -> bool {
        let is_direct = |demand: &Demand| demand.needs_of_holder().is_some();
        let is_there = |tree: Uuid| {
            self.demands.of(tree).is_some_and(|demand| demand.network == network && is_direct(demand))
        };
        self.holders.iter().any(|((tree, _), holder)| holder == node && is_there(*tree))
    }

    /// Drops the holders of a load balancer's VIPs.
    pub(in crate::fleet) fn forget_holders(&mut self, load_balancer: Uuid) {
        self.holders.retain(|(id, _), _| *id != load_balancer);
    }
}
