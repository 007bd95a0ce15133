//! Publication of configurations to the nodes, one tree or network at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{self, NodePort, Routes, Topology};
use fiberlb_proto::agent::v1;
use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::Configuration;
use crate::datapath::{NodeFeatures, is_direct};
use crate::fleet::delivery::configuration::{Attachment, FleetFacts, add_tree, network};
use crate::fleet::delivery::node_configuration::NodeConfiguration;
use crate::fleet::delivery::share_book::{Sharer, SharerState};
use crate::fleet::delivery::shares::NodePlace;
use crate::fleet::directory::records::PortRecord;
use crate::fleet::facade::{Dirty, Fleet};
use crate::fleet::placement::demand::ProxiedListener;
use crate::fleet::state::FleetState;
use crate::resources::{Backend, Record, Tree};
use crate::status::{Health, Liveness};

/// Configuration channel of a connected node.
pub(in crate::fleet) struct Channel {
    configuration: NodeConfiguration,
    /// `None` until the northbound database has been read, where gateways and MTUs come from.
    sender: watch::Sender<Option<Arc<Configuration>>>,
}

impl Fleet {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the configuration channel of a node that has just said hello. The controller fills it.
    pub(in crate::fleet) fn open_channel(&self, node: &str) -> watch::Receiver<Option<Arc<Configuration>>> {
        let (sender, receiver) = watch::channel(None);
        self.channels()
            .insert(node.to_owned(), Channel { configuration: NodeConfiguration::default(), sender });
        self.wake.notify_one();
        receiver
    }

    /// Closes the channel of a node.
    pub(in crate::fleet) fn close_channel(&self, node: &str) {
        self.channels().remove(node);
    }

    /// Publishes changes to the nodes, and a full snapshot to newly connected ones.
    pub(in crate::fleet) fn publish(&self, dirty: &Dirty) {
        if !self.northbound.has_been_live() {
            return;
        }
        for (node, channel) in self.channels().iter_mut() {
            let is_new = channel.sender.borrow().is_none();
            if is_new {
                let networks: Vec<Uuid> = self.state().allocations.networks_of(node).collect();
                for network in networks {
                    self.update_network(&mut channel.configuration, node, network);
                }
            } else {
                self.update_changes(&mut channel.configuration, node, dirty);
            }
            let news = channel.configuration.take_changes();
            if let Some(gone) = &news {
                self.state_mut().revoke(node, gone, channel.configuration.current());
            }
            if is_new {
                self.state_mut().revoke_others(node, channel.configuration.current());
            }
            if news.is_some() || is_new {
                channel.sender.send_replace(Some(Arc::new(channel.configuration.current().clone())));
            }
        }
    }

    fn update_changes(&self, configuration: &mut NodeConfiguration, node: &str, dirty: &Dirty) {
        for network in &dirty.networks {
            self.update_network(configuration, node, *network);
        }
        for tree in &dirty.trees {
            self.update_tree(configuration, node, *tree);
        }
        let state = self.state();
        let shares = state.shares();
        for listener in &dirty.shares {
            if let Some(share) = shares.dealt(*listener, node) {
                configuration.set_share(*listener, share);
            }
        }
    }

    fn update_network(&self, configuration: &mut NodeConfiguration, node: &str, network: Uuid) {
        configuration.set_network(network, self.attachment(node, network));
        for tree in self.trees_on(network) {
            self.update_tree(configuration, node, tree);
        }
    }

    fn update_tree(&self, configuration: &mut NodeConfiguration, node: &str, id: Uuid) {
        let mut wanted = Configuration::default();
        let tree = self.model.tree(id);
        let state = self.state();
        if let (Some(tree), Some(demand)) = (tree, state.demands.of(id))
            && let Some(port) = state.allocations.port(demand.network, node)
            // A network that was allocated since comes with its trees; the node must not get them before it.
            && configuration.has_network(demand.network)
        {
            let facts = Known { state: &state, node, network: demand.network, now: self.now() };
            add_tree(&mut wanted, &tree, demand, port, &facts);
        }
        configuration.set_tree(id, wanted);
    }

    fn attachment(&self, node: &str, id: Uuid) -> Option<v1::Network> {
        // The reconciler takes these locks in this order too: in the other order, a writer that waits in
        // between would deadlock both.
        let nb = self.northbound.read();
        let state = self.state();
        let port = state.allocations.port(id, node)?.clone();
        let own = NodePort::new(self.installation, id, node, Vec::new());
        Some(network(&Attachment {
            network: id,
            port_name: own.name,
            mac: own.mac,
            port,
            routes: routes(id, &nb),
            mtu: plan::mtu(id, &nb).unwrap_or(self.settings.mtu),
            nodes: state.allocations.ports(id).flat_map(|(_, port)| port.all_hosts()).collect(),
            vips: self.vips_held(&state, node, id),
            answered: self.vips_left(&state, node, id),
        }))
    }

    /// VIPs on a network that a node held while they were DIRECT, and that the network's responder answers for now.
    fn vips_left(&self, state: &FleetState, node: &str, network: Uuid) -> Vec<v1::AnsweredVip> {
        let is_answered = |tree: &Tree, vip: IpAddr| {
            let spec = &tree.load_balancer.spec;
            spec.network == network
                && spec.vips.contains(&vip)
                && !tree.load_balancer.deleting
                && !is_direct(tree)
        };
        let left = state
            .held_by(node)
            .filter(|(tree, vip)| self.model.tree(*tree).is_some_and(|tree| is_answered(&tree, *vip)));
        let mac = plan::responder_mac(self.installation, network);
        left.map(|(_, vip)| v1::AnsweredVip { address: vip.to_string(), mac: mac.clone() }).collect()
    }

    /// DIRECT VIPs on a network.
    fn vips_held(&self, state: &FleetState, node: &str, network: Uuid) -> Vec<v1::Vip> {
        let trees = state.demands.on(network).filter_map(|id| self.model.tree(id));
        let direct = trees.filter(|tree| is_direct(tree) && !tree.load_balancer.deleting);
        let vip = |tree: &Tree, vip: IpAddr| v1::Vip {
            id: plan::virtual_port_row(self.installation, tree.id(), vip).to_string(),
            address: vip.to_string(),
            held: state.holder(tree.id(), vip) == Some(node),
        };
        direct
            .flat_map(|tree| {
                tree.load_balancer.spec.vips.iter().map(|ip| vip(&tree, *ip)).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Routes of a node on a network. On a physical one there may be routers of several tenants: none of them takes what is meant for
/// another.
fn routes(network: Uuid, nb: &Northbound) -> Routes {
    let mut routes = Topology::of(network, nb).unwrap_or_default().routes();
    if nb.is_physical(network) {
        routes.others.clear();
    }
    routes
}

/// Facts from the fleet's state.
struct Known<'a> {
    state: &'a FleetState,
    /// The node that is configured.
    node: &'a str,
    /// Network of the tree.
    network: Uuid,
    now: Instant,
}

impl Known<'_> {
    /// Nodes of the network that can serve any of these listeners, in the order of their ids. One that drains, or is dead, still has
    /// connections, for all that is known.
    fn serving(&self, listeners: &[&ProxiedListener]) -> Vec<&str> {
        let can_serve = |(node, port): &(&str, &PortRecord)| {
            let hosts: Vec<IpAddr> = port.hosts().collect();
            let serves = |listener: &&ProxiedListener| {
                self.state.can_serve(node, &listener.needs) && listener.is_served_from(&hosts)
            };
            listeners.iter().any(serves)
        };
        self.state.allocations.ports(self.network).filter(can_serve).map(|(node, _)| node).collect()
    }

    fn sharer_state(&self, node: &str) -> SharerState {
        let liveness = self.state.node(node).map_or(Liveness::Dead, |node| node.contact.liveness(self.now));
        if liveness == Liveness::Dead {
            SharerState::Dead
        } else if self.state.allocations.is_draining(self.network, node) {
            SharerState::Drains
        } else {
            SharerState::Serves
        }
    }
}

impl FleetFacts for Known<'_> {
    fn can_serve(&self, needs: &NodeFeatures) -> bool {
        self.state.can_serve(self.node, needs)
    }

    fn place(&self, listeners: &[&ProxiedListener]) -> NodePlace {
        let nodes = self.serving(listeners);
        NodePlace { index: nodes.iter().filter(|node| **node < self.node).count(), nodes: nodes.len() }
    }

    fn share(&self, tree: Uuid, id: Uuid, limit: u32, listener: &ProxiedListener) -> u32 {
        let nodes = self.serving(&[listener]);
        let sharers: Vec<Sharer<'_>> =
            nodes.into_iter().map(|node| Sharer { node, state: self.sharer_state(node) }).collect();
        let mut shares = self.state.shares();
        shares.share((tree, id), limit, &sharers, self.node, self.now).unwrap_or(0)
    }

    fn proxy_block(&self, network: Uuid, listener: Uuid, ports: u16) -> Option<u16> {
        self.state.allocations.proxy_block(network, listener, ports)
    }

    fn is_new(&self, backend: &Record<Backend>) -> bool {
        // Once one node has found it up, the others need not wait for their own probes.
        let found_up = matches!(self.state.verdicts.health(backend.id), Health::Up | Health::Degraded(_));
        !found_up && self.state.is_new(backend.id, self.now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fiberlb_northbound::plan::Capabilities;

    use super::*;
    use crate::fleet::delivery::share_book::ShareReport;
    use crate::fleet::examples::{fleet, join};
    use crate::fleet::placement::demand::Demand;
    use crate::resources::Datapath;
    use crate::resources::examples::{LISTENER, LOAD_BALANCER, NETWORK};
    use crate::status::Observation;

    #[tokio::test]
    async fn limits_are_shared_by_nodes_that_have_addresses_for_the_listener_alone() {
        let fleet = fleet(|listener| listener.datapath = Datapath::Proxy).await;
        let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
        let demand = Demand::of(&tree, &Capabilities::ALL, &Observation::default());
        fleet.state_mut().demands.set(LOAD_BALANCER, demand);
        join(&fleet, &["a", "b"]);
        let now = fleet.now();
        let shared = |node| {
            let state = fleet.state();
            let listener = &state.demands.of(LOAD_BALANCER).unwrap().proxied[&LISTENER];
            let facts = Known { state: &state, node, network: NETWORK, now };
            (facts.share(LOAD_BALANCER, LISTENER, 100, listener), facts.place(&[listener]).nodes)
        };
        assert_eq!([shared("a"), shared("b")], [(50, 2), (50, 2)]);
        let port = PortRecord::new(vec!["fd00::202/64".parse().unwrap()]);
        let revision = fleet.state().allocations.revision(NETWORK, "b");
        fleet.state_mut().allocations.set_port(NETWORK, "b", Some(port), revision);
        assert_eq!(shared("b"), (0, 1), "the VIP and the backends have IPv4 addresses");
        // What b had is a's, once a has what it was dealt in force.
        let report = ShareReport { in_force: 50, active: 0, above_total: 0 };
        fleet.state().shares().report(LISTENER, "a", report);
        fleet.state().shares().rebalance(LISTENER, now + Duration::from_secs(60));
        assert_eq!(shared("a"), (100, 1));
    }
}
