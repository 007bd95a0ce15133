//! Allocations of nodes and listeners, as stored.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use uuid::Uuid;

use crate::fleet::directory::records::PortRecord;
use fiberlb_store::Revision;

/// Allocations of nodes and listeners.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Allocations {
    /// By network and node.
    ports: BTreeMap<Uuid, BTreeMap<String, (PortRecord, Revision)>>,
    /// Listeners of allocated proxy ports, with the places of their own ports in a range, by network and port.
    proxy_ports: HashMap<Uuid, BTreeMap<u16, (Uuid, u16)>>,
    /// First proxy ports.
    by_listener: HashMap<Uuid, u16>,
}

impl Allocations {
    /// Sets the port of a node on a network (`None`: none).
    pub(in crate::fleet) fn set_port(
        &mut self,
        network: Uuid,
        node: &str,
        record: Option<PortRecord>,
        revision: Revision,
    ) {
        let ports = self.ports.entry(network).or_default();
        match record {
            Some(record) => drop(ports.insert(node.to_owned(), (record, revision))),
            None => drop(ports.remove(node)),
        }
        if ports.is_empty() {
            self.ports.remove(&network);
        }
    }

    /// Sets the listener of a proxy port on a network, with the place in a range of the listener's port that it stands for (`None`:
    /// none).
    pub(in crate::fleet) fn set_proxy_port(
        &mut self,
        network: Uuid,
        port: u16,
        listener: Option<(Uuid, u16)>,
    ) {
        let ports = self.proxy_ports.entry(network).or_default();
        let before = match listener {
            Some(listener) => ports.insert(port, listener),
            None => ports.remove(&port),
        };
        if ports.is_empty() {
            self.proxy_ports.remove(&network);
        }
        if let Some((before, _)) = before.filter(|(before, _)| self.by_listener.get(before) == Some(&port)) {
            self.by_listener.remove(&before);
        }
        if let Some((listener, 0)) = listener {
            self.by_listener.insert(listener, port);
        }
    }

    /// Ports of nodes on a network.
    pub(in crate::fleet) fn ports(&self, network: Uuid) -> impl Iterator<Item = (&str, &PortRecord)> {
        self.ports.get(&network).into_iter().flatten().map(|(node, (port, _))| (node.as_str(), port))
    }

    /// Port of a node on a network.
    pub(in crate::fleet) fn port(&self, network: Uuid, node: &str) -> Option<&PortRecord> {
        self.ports.get(&network)?.get(node).map(|(port, _)| port)
    }

    /// Revision that last put the port of a node on a network; that of an absent key if there is none.
    pub(in crate::fleet) fn revision(&self, network: Uuid, node: &str) -> Revision {
        let port = self.ports.get(&network).and_then(|ports| ports.get(node));
        port.map_or(Revision::ZERO, |(_, revision)| *revision)
    }

    /// True if a node has a port on a network that takes no new connections.
    pub(in crate::fleet) fn is_draining(&self, network: Uuid, node: &str) -> bool {
        self.port(network, node).is_some_and(|port| port.draining_since.is_some())
    }

    /// Networks on which nodes have a port.
    pub(in crate::fleet) fn networks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.ports.keys().copied()
    }

    /// Networks on which a node has a port.
    pub(in crate::fleet) fn networks_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = Uuid> + 'a {
        self.ports.iter().filter(move |(_, ports)| ports.contains_key(node)).map(|(network, _)| *network)
    }

    /// True if a node has an address on a network.
    pub(in crate::fleet) fn has_address(&self, network: Uuid, address: IpAddr) -> bool {
        self.ports(network).any(|(_, port)| port.all_hosts().any(|host| host == address))
    }

    /// The port that proxies listen on for a listener, the first one for a range.
    pub(in crate::fleet) fn proxy_port(&self, listener: Uuid) -> Option<u16> {
        self.by_listener.get(&listener).copied()
    }

    /// First one of as many consecutive proxy ports as a listener has of its own; `None`: they are not all there.
    pub(in crate::fleet) fn proxy_block(&self, network: Uuid, listener: Uuid, ports: u16) -> Option<u16> {
        let (first, allocated) = (self.proxy_port(listener)?, self.proxy_ports.get(&network)?);
        let is_own = |offset: u16| {
            let port = first.checked_add(offset);
            port.and_then(|port| allocated.get(&port)) == Some(&(listener, offset))
        };
        (0..ports).all(is_own).then_some(first)
    }

    /// Allocated proxy ports on a network, with their listeners.
    pub(in crate::fleet) fn proxy_ports(&self, network: Uuid) -> impl Iterator<Item = (Uuid, u16)> + '_ {
        self.proxy_ports.get(&network).into_iter().flatten().map(|(port, (listener, _))| (*listener, *port))
    }
}
