//! Gives the nodes and listeners of networks what they need, and takes back what nobody needs.

use std::time::{Duration, Instant};

use fiberlb_ovn::plan;
use uuid::Uuid;

use super::Controller;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{Duty, FleetKey};
use crate::fleet::facade::Notice;
use crate::fleet::placement::allocation::{self, AllocationError, Space};
use crate::fleet::placement::listed::is_listed;
use crate::fleet::state::Now;
use crate::resources::now_ms;
use crate::store::{CommitError, Transaction, Write};

/// Longest time of giving before deaths are looked at and nodes are told: each write takes the store some milliseconds, and
/// there may be very many.
const TURN: Duration = Duration::from_millis(200);

impl Controller {
    /// Gives what is needed on networks, for a while; what is left is asked for again.
    pub(super) async fn allocate_all(&mut self, mut networks: impl Iterator<Item = Uuid> + Send) {
        let until = Instant::now() + TURN;
        for network in networks.by_ref() {
            if Instant::now() >= until {
                self.fleet.want([network]);
                break;
            }
            self.allocate(network, until).await;
        }
        let later: Vec<Uuid> = networks.collect();
        if !later.is_empty() {
            self.fleet.want(later);
        }
    }

    /// Gives the nodes and listeners of a network what they need, and takes back what nobody needs.
    async fn allocate(&mut self, network: Uuid, until: Instant) {
        loop {
            let transaction = match self.next_allocation(network) {
                Ok(transaction) => transaction,
                Err(error) => return self.trouble(network, &error),
            };
            if transaction.writes.is_empty() {
                if self.fleet.state_mut().set_trouble(network, None) {
                    tracing::info!(%network, "the proxy nodes of the network have all that they need");
                    self.fleet.look_at(Notice::Network(network));
                }
                if self.fleet.state().is_moving(network, self.clock()) {
                    // What is missing is heard of in many ways; this is soon enough.
                    self.retry([network]);
                }
                return;
            }
            let moved = ports_moved(&transaction);
            match self.fleet.commit(transaction).await {
                Ok(revision) => {
                    self.reach(revision).await;
                    self.tell_of_moves(network, &moved);
                }
                Err(CommitError::Conflict { .. }) => return self.retry([network]),
                Err(error) => {
                    tracing::warn!(%network, %error, "what proxy nodes need could not be stored; trying again");
                    return self.retry([network]);
                }
            }
            if Instant::now() >= until {
                return self.fleet.want([network]);
            }
        }
    }

    fn clock(&self) -> Now {
        Now { at: self.fleet.now(), ms: now_ms() }
    }

    fn next_allocation(&self, network: Uuid) -> Result<Transaction, AllocationError> {
        let fleet = &self.fleet;
        self.look_who_is_listed(network);
        let nb = fleet.northbound.read();
        let taken = |address| {
            fleet.model.has_vip(network, address)
                || plan::address_holder(network, address, Uuid::nil(), &nb).is_some()
        };
        let space = Space::new(&plan::subnets(network, &nb), &taken);
        allocation::next(&fleet.state(), network, &space, self.clock())
    }

    /// Notes of the ports that drain whether OVN's rows still send connections there.
    fn look_who_is_listed(&self, network: Uuid) {
        let nb = self.fleet.northbound.read();
        let listed: Vec<(String, bool)> = {
            let state = self.fleet.state();
            let draining = state.given.ports(network).filter(|(_, port)| port.draining_since.is_some());
            let listeners = || state.proxied_on(network).map(|(listener, _)| listener);
            let installation = self.fleet.installation;
            draining
                .map(|(node, port)| (node.to_owned(), is_listed(port, listeners(), installation, &nb)))
                .collect()
        };
        let mut state = self.fleet.state_mut();
        for (node, is_listed) in listed {
            state.set_listed(network, &node, is_listed, Instant::now());
        }
    }

    /// Says on which nodes a network drains, and which are drained.
    fn tell_of_moves(&self, network: Uuid, nodes: &[String]) {
        let state = self.fleet.state();
        for node in nodes {
            if state.given.is_draining(network, node) {
                tracing::info!(%network, node, "the network has moved to other proxy nodes; its connections through this one may end");
            } else if state.given.port(network, node).is_none() {
                tracing::info!(%network, node, "the network has left the proxy node");
            }
            let duty = state.node(node).map(Node::duty);
            if duty == Some(Duty::Draining) && state.given.networks_of(node).next().is_none() {
                tracing::info!(node, "the proxy node is drained");
            }
        }
    }

    fn trouble(&mut self, network: Uuid, error: &AllocationError) {
        if self.fleet.state_mut().set_trouble(network, Some(&error.to_string())) {
            tracing::warn!(%network, %error, "a network cannot be served by proxy nodes; trying again");
            self.fleet.look_at(Notice::Network(network));
        }
        self.retry([network]);
    }
}

/// The nodes whose port on a network a transaction changes or takes back.
fn ports_moved(transaction: &Transaction) -> Vec<String> {
    let node = |write: &Write| match FleetKey::parse(write.key()) {
        Some(FleetKey::Port(_, node)) => Some(node),
        _ => None,
    };
    transaction.writes.iter().filter_map(node).collect()
}
