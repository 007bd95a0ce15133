//! Allocates what the nodes and listeners of networks need, and releases what is no longer needed.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_northbound::plan::{self, AddressUse};
use uuid::Uuid;

use super::Controller;
use crate::catalog::Model;
use crate::fleet::directory::node::Node;
use crate::fleet::directory::records::{
    Duty, FleetKey, PortRecord, absent, address_guard, reserved_for, unchanged,
};
use crate::fleet::facade::FleetNotice;
use crate::fleet::placement::allocator::{self, AllocationError, Space};
use crate::fleet::placement::listed::is_listed;
use crate::fleet::state::Now;
use crate::resources::{Tree, now_ms};
use fiberlb_store::{CommitError, Compare, Transaction, Write};

/// Longest run of allocations before deaths are judged and nodes updated: each write takes the store some
/// milliseconds, and there may be very many.
const TIME_SLICE: Duration = Duration::from_millis(200);

impl Controller {
    /// Allocates on networks for a limited time, and requests the rest again.
    pub(super) async fn allocate_all(&mut self, mut networks: impl Iterator<Item = Uuid> + Send) {
        let until = Instant::now() + TIME_SLICE;
        for network in networks.by_ref() {
            if Instant::now() >= until {
                self.fleet.request_allocation([network]);
                break;
            }
            self.allocate(network, until).await;
        }
        let later: Vec<Uuid> = networks.collect();
        if !later.is_empty() {
            self.fleet.request_allocation(later);
        }
    }

    /// Allocates what the nodes and listeners of a network need, and releases what is no longer needed.
    async fn allocate(&mut self, network: Uuid, until: Instant) {
        loop {
            let transaction = match self.next_allocation(network) {
                Ok(transaction) => transaction,
                Err(error) => return self.trouble(network, &error),
            };
            if transaction.writes.is_empty() {
                if self.fleet.state_mut().set_trouble(network, None) {
                    tracing::info!(%network, "allocation for proxy nodes recovered");
                    self.fleet.mark_dirty(FleetNotice::Network(network));
                }
                if self.fleet.state().is_moving(network, self.clock()) {
                    // Several conditions may be missing, each noticed in another way; polling is soon enough.
                    self.retry([network]);
                }
                return;
            }
            let moved = ports_moved(&transaction);
            match self.fleet.commit(transaction).await {
                Ok(revision) => {
                    self.reach(revision).await;
                    self.log_moves(network, &moved);
                }
                Err(CommitError::Conflict { keys }) => {
                    self.free_stranded(network, &keys).await;
                    return self.retry([network]);
                }
                Err(error) => {
                    tracing::warn!(%network, %error, "failed to store allocation for proxy nodes; retrying");
                    return self.retry([network]);
                }
            }
            if Instant::now() >= until {
                return self.fleet.request_allocation([network]);
            }
        }
    }

    /// Frees addresses that are reserved for nodes which do not have them: a release that does not know a node's further addresses
    /// leaves them so. Nobody else would, and each allocation would choose them again.
    pub(super) async fn free_stranded(&mut self, network: Uuid, keys: &[String]) {
        for key in keys {
            let Ok(Some(entry)) = self.fleet.store.get(key).await else { continue };
            let Some(node) = reserved_for(&entry.value) else { continue };
            let port = {
                let state = self.fleet.state();
                let port = state.allocations.port(network, &node);
                let has_it =
                    |port: &PortRecord| port.all_hosts().any(|host| address_guard(network, host) == *key);
                if port.is_some_and(has_it) {
                    continue;
                }
                let port_key = FleetKey::Port(network, node.clone());
                match port {
                    Some(_) => unchanged(&port_key, state.allocations.revision(network, &node)),
                    None => absent(port_key.to_string()),
                }
            };
            let compares = vec![port, Compare { key: key.clone(), revision: entry.revision }];
            let writes = vec![Write::Delete { key: key.clone() }];
            if self.fleet.commit(Transaction { compares, writes }).await.is_ok() {
                tracing::info!(%network, node, key, "freed an address that was reserved for a node which does not have it");
            }
        }
    }

    fn clock(&self) -> Now {
        Now { at: self.fleet.now(), ms: now_ms() }
    }

    fn next_allocation(&self, network: Uuid) -> Result<Transaction, AllocationError> {
        let fleet = &self.fleet;
        self.update_listed(network);
        let nb = fleet.northbound.read();
        let addresses = AddressUse::on(network, fleet.installation, &nb);
        let backends = OnceCell::new();
        let taken = |address| {
            fleet.model.has_vip(network, address)
                || backends.get_or_init(|| backend_addresses(network, &fleet.model)).contains(&address)
                || addresses.is_excluded(address)
                || addresses.holder(address, Uuid::nil()).is_some()
        };
        let space = Space::new(&plan::subnets(network, &nb), &taken);
        allocator::next(&fleet.state(), network, &space, self.clock())
    }

    /// Records which draining ports OVN's rows still send connections to.
    fn update_listed(&self, network: Uuid) {
        let nb = self.fleet.northbound.read();
        let listed: Vec<(String, bool)> = {
            let state = self.fleet.state();
            let draining = state.allocations.ports(network).filter(|(_, port)| port.draining_since.is_some());
            let listeners = || state.proxied_on(network).map(|(listener, _)| listener);
            let installation = self.fleet.installation;
            draining
                .map(|(node, port)| (node.to_owned(), is_listed(port, listeners(), installation, &nb)))
                .collect()
        };
        let now = self.fleet.now();
        let mut state = self.fleet.state_mut();
        let mut is_late = false;
        for (node, is_listed) in listed {
            state.set_listed(network, &node, is_listed, Instant::now());
            is_late |= is_listed && state.is_overdue(network, &node, &state.wanted(network, now), now);
        }
        drop(state);
        if is_late {
            // Nothing else says that the time has come at which the rows have to do without it.
            self.fleet.notify(FleetNotice::Network(network));
        }
    }

    /// Logs the nodes on which a network drains, and those that are drained.
    fn log_moves(&self, network: Uuid, nodes: &[String]) {
        let state = self.fleet.state();
        for node in nodes {
            if state.allocations.is_draining(network, node) {
                tracing::info!(%network, node, "network moved to other proxy nodes; draining it from this one");
            } else if state.allocations.port(network, node).is_none() {
                tracing::info!(%network, node, "network removed from proxy node");
            }
            let duty = state.node(node).map(Node::duty);
            if duty == Some(Duty::Draining) && state.allocations.networks_of(node).next().is_none() {
                tracing::info!(node, "proxy node drained");
            }
        }
    }

    fn trouble(&mut self, network: Uuid, error: &AllocationError) {
        if self.fleet.state_mut().set_trouble(network, Some(error)) {
            tracing::warn!(%network, %error, "failed to allocate for proxy nodes; retrying");
            self.fleet.mark_dirty(FleetNotice::Network(network));
        }
        self.retry([network]);
    }
}

/// Addresses on a network that connections and probes are made to: those of a node would come back to it.
fn backend_addresses(network: Uuid, model: &Model) -> HashSet<IpAddr> {
    let roots: BTreeSet<Uuid> = model.vips_on(network).into_values().collect();
    let trees = roots.into_iter().filter_map(|root| model.tree(root));
    let of = |tree: Arc<Tree>| -> Vec<IpAddr> {
        let backends = tree.backends.values();
        backends.flat_map(|backend| backend.spec.addresses().map(|(_, address)| address)).collect()
    };
    trees.flat_map(of).collect()
}

/// Nodes whose port on a network a transaction changes or releases.
fn ports_moved(transaction: &Transaction) -> Vec<String> {
    let node = |write: &Write| match FleetKey::parse(write.key()) {
        Some(FleetKey::Port(_, node)) => Some(node),
        _ => None,
    };
    transaction.writes.iter().filter_map(node).collect()
}
