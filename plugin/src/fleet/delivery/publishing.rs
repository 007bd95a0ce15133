//! Telling the nodes what they should have, one tree or network at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use fiberlb_ovn::plan::{self, NodePort};
use fiberlb_proto::agent::v1;
use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::Configuration;
use crate::datapath::is_direct;
use crate::fleet::delivery::configuration::{Attachment, Facts, add_tree, network};
use crate::fleet::delivery::described::Described;
use crate::fleet::facade::{Dirty, Fleet};
use crate::fleet::state::State;
use crate::resources::{Backend, Record, Tree, now_ms};
use crate::status::Health;

/// Age below which a backend of a checked pool is new to a node, in milliseconds.
const NEW_MS: u64 = 60_000;

/// The configuration of a node that is connected, or was.
pub(in crate::fleet) struct Channel {
    described: Described,
    /// None until the northbound database was seen: what networks look like comes from there.
    sender: watch::Sender<Option<Arc<Configuration>>>,
}

impl Fleet {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a node that has just said hello hears what it should have. The controller fills it.
    pub(in crate::fleet) fn open_channel(&self, node: &str) -> watch::Receiver<Option<Arc<Configuration>>> {
        let (sender, receiver) = watch::channel(None);
        self.channels().insert(node.to_owned(), Channel { described: Described::default(), sender });
        self.wake.notify_one();
        receiver
    }

    /// The node hears no more.
    pub(in crate::fleet) fn close_channel(&self, node: &str) {
        self.channels().remove(node);
    }

    /// Tells the nodes what changed, and those that are new to it everything.
    pub(in crate::fleet) fn publish(&self, dirty: &Dirty) {
        if !self.northbound.has_been_live() {
            return;
        }
        for (node, channel) in self.channels().iter_mut() {
            let is_new = channel.sender.borrow().is_none();
            if is_new {
                let networks: Vec<Uuid> = self.state().given.networks_of(node).collect();
                for network in networks {
                    self.describe_network(&mut channel.described, node, network);
                }
            } else {
                self.describe_changes(&mut channel.described, node, dirty);
            }
            let news = channel.described.take_news();
            if let Some(gone) = &news {
                self.state_mut().took_back(node, gone, channel.described.configuration());
            }
            if news.is_some() || is_new {
                channel.sender.send_replace(Some(Arc::new(channel.described.configuration().clone())));
            }
        }
    }

    fn describe_changes(&self, described: &mut Described, node: &str, dirty: &Dirty) {
        for network in &dirty.networks {
            self.describe_network(described, node, *network);
        }
        for tree in &dirty.trees {
            self.describe_tree(described, node, *tree);
        }
    }

    fn describe_network(&self, described: &mut Described, node: &str, network: Uuid) {
        described.set_network(network, self.attachment(node, network));
        for tree in self.trees_on(network) {
            self.describe_tree(described, node, tree);
        }
    }

    fn describe_tree(&self, described: &mut Described, node: &str, id: Uuid) {
        let mut wanted = Configuration::default();
        let tree = self.model.tree(id);
        let state = self.state();
        if let (Some(tree), Some(demand)) = (tree, state.demands.of(id))
            && let Some(port) = state.given.port(demand.network, node)
        {
            add_tree(&mut wanted, &tree, demand, port, &Known { state: &state, now_ms: now_ms() });
        }
        described.set_tree(id, wanted);
    }

    fn attachment(&self, node: &str, id: Uuid) -> Option<v1::Network> {
        // The reconciler takes these locks in this order too: the other way round, a writer that waits between would keep
        // both for ever.
        let nb = self.northbound.read();
        let state = self.state();
        let port = state.given.port(id, node)?.clone();
        let own = NodePort::new(self.installation, id, node, Vec::new());
        Some(network(&Attachment {
            network: id,
            port_name: own.name,
            mac: own.mac,
            port,
            gateways: plan::gateways(id, &nb),
            mtu: plan::mtu(id, &nb).unwrap_or(self.settings.mtu),
            vips: self.vips_held(&state, node, id),
        }))
    }

    /// The VIPs on a network that nodes hold in turn.
    fn vips_held(&self, state: &State, node: &str, network: Uuid) -> Vec<v1::Vip> {
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

/// What is asked about a tree while it is described.
struct Known<'a> {
    state: &'a State,
    now_ms: u64,
}

impl Facts for Known<'_> {
    fn proxy_port(&self, listener: Uuid) -> Option<u16> {
        self.state.given.proxy_port(listener)
    }

    fn is_new(&self, backend: &Record<Backend>) -> bool {
        // Once one node has found it up, the others need not wait for probes of their own.
        let found_up = matches!(self.state.verdicts.health(backend.id), Health::Up | Health::Degraded(_));
        !found_up && self.now_ms.saturating_sub(backend.created_at) < NEW_MS
    }
}
