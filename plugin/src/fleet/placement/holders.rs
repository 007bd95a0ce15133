//! Which node holds a VIP that nodes hold in turn.

use std::net::IpAddr;
use std::time::Instant;

use uuid::Uuid;

use crate::datapath::Carrier;
use crate::fleet::placement::demand::Demand;
use crate::fleet::placement::ranking::{Candidate, place};
use crate::fleet::state::State;
use crate::status::Liveness;

impl State {
    /// The node that holds a VIP of a load balancer.
    pub(in crate::fleet) fn holder(&self, load_balancer: Uuid, vip: IpAddr) -> Option<&str> {
        self.holders.get(&(load_balancer, vip)).map(String::as_str)
    }

    /// A node says that it holds a VIP: it keeps it, unless another one was given it meanwhile.
    pub(in crate::fleet) fn held(&mut self, load_balancer: Uuid, vip: IpAddr, node: &str) {
        self.holders.entry((load_balancer, vip)).or_insert_with(|| node.to_owned());
    }

    /// Gives each VIP of a tree to a node that lives: the one that has it, unless the network has moved away from that, or
    /// else the first choice. Answers whether any VIP moved.
    pub(in crate::fleet) fn hand_out(
        &mut self,
        load_balancer: Uuid,
        network: Uuid,
        vips: &[IpAddr],
        now: Instant,
    ) -> bool {
        let liveness = |id: &str| self.nodes.get(id).map(|node| node.heard.liveness(now));
        let candidates: Vec<String> = {
            let placed = self.placed(network, now);
            // A node that the plugin has not heard of since it started may hold it.
            let unheard = |id: &str| self.nodes.get(id).is_some_and(|node| node.heard.last.is_none());
            let serving = self.given.ports(network).filter(|(_, port)| port.draining_since.is_none());
            let mut may_hold = placed.iter().copied().chain(serving.map(|(node, _)| node));
            let waits = may_hold.any(|id| unheard(id) && liveness(id) == Some(Liveness::Silent));
            let candidates = placed.into_iter().map(|id| Candidate { id, zone: "" });
            let ranked = place(load_balancer, candidates, self.rules.nodes_per_network);
            let alive = ranked
                .into_iter()
                .filter(|id| liveness(id) == Some(Liveness::Alive) && self.given.port(network, id).is_some());
            // Where nobody else lives, one that the network has moved away from is better than none.
            let draining = self.given.ports(network).filter(|(_, port)| port.draining_since.is_some());
            let draining = draining.map(|(node, _)| node).filter(|id| liveness(id) == Some(Liveness::Alive));
            if waits { Vec::new() } else { alive.chain(draining).map(str::to_owned).collect() }
        };
        let mut moved = false;
        for vip in vips {
            let holder = self.holders.get(&(load_balancer, *vip)).map(String::as_str);
            let lives = holder.is_some_and(|id| {
                let stays =
                    |id| self.given.port(network, id).is_some_and(|port| port.draining_since.is_none());
                liveness(id).is_some_and(|liveness| liveness != Liveness::Dead)
                    && (stays(id) || candidates.first().is_some_and(|first| first == id))
            });
            if let Some(next) = candidates.first().filter(|_| !lives) {
                moved |= holder != Some(next.as_str());
                self.holders.insert((load_balancer, *vip), next.clone());
            }
        }
        moved
    }

    /// Whether a node holds a VIP on a network.
    pub(in crate::fleet) fn holds_vip(&self, network: Uuid, node: &str) -> bool {
        let is_direct = |demand: &Demand| demand.proxied.values().any(|carrier| *carrier == Carrier::Direct);
        let is_there = |tree: Uuid| {
            self.demands.of(tree).is_some_and(|demand| demand.network == network && is_direct(demand))
        };
        self.holders.iter().any(|((tree, _), holder)| holder == node && is_there(*tree))
    }

    /// Forgets who holds the VIPs of a load balancer.
    pub(in crate::fleet) fn forget_holders(&mut self, load_balancer: Uuid) {
        self.holders.retain(|(id, _), _| *id != load_balancer);
    }
}
