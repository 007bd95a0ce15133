//! What nodes and listeners were given, as it is stored.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use uuid::Uuid;

use crate::fleet::directory::records::PortRecord;
use crate::store::Revision;

/// What nodes and listeners were given.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Given {
    /// By network and node.
    ports: BTreeMap<Uuid, BTreeMap<String, (PortRecord, Revision)>>,
    /// The listeners that proxy ports were given to, by network and port.
    proxy_ports: HashMap<Uuid, BTreeMap<u16, Uuid>>,
    by_listener: HashMap<Uuid, u16>,
}

impl Given {
    /// Notes what a node has on a network (`None`: nothing).
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

    /// Notes which listener has a proxy port on a network (`None`: none).
    pub(in crate::fleet) fn set_proxy_port(&mut self, network: Uuid, port: u16, listener: Option<Uuid>) {
        let ports = self.proxy_ports.entry(network).or_default();
        let before = match listener {
            Some(listener) => ports.insert(port, listener),
            None => ports.remove(&port),
        };
        if ports.is_empty() {
            self.proxy_ports.remove(&network);
        }
        if let Some(before) = before.filter(|before| self.by_listener.get(before) == Some(&port)) {
            self.by_listener.remove(&before);
        }
        if let Some(listener) = listener {
            self.by_listener.insert(listener, port);
        }
    }

    /// What nodes were given on a network.
    pub(in crate::fleet) fn ports(&self, network: Uuid) -> impl Iterator<Item = (&str, &PortRecord)> {
        self.ports.get(&network).into_iter().flatten().map(|(node, (port, _))| (node.as_str(), port))
    }

    /// What a node was given on a network.
    pub(in crate::fleet) fn port(&self, network: Uuid, node: &str) -> Option<&PortRecord> {
        self.ports.get(&network)?.get(node).map(|(port, _)| port)
    }

    /// The transaction that put what a node was given on a network last; that of an absent key where it was given nothing.
    pub(in crate::fleet) fn revision(&self, network: Uuid, node: &str) -> Revision {
        let port = self.ports.get(&network).and_then(|ports| ports.get(node));
        port.map_or(Revision::ZERO, |(_, revision)| *revision)
    }

    /// Whether a node has a port on a network that takes no new connections.
    pub(in crate::fleet) fn is_draining(&self, network: Uuid, node: &str) -> bool {
        self.port(network, node).is_some_and(|port| port.draining_since.is_some())
    }

    /// Networks on which nodes were given something.
    pub(in crate::fleet) fn networks(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.ports.keys().copied()
    }

    /// The networks on which a node was given something.
    pub(in crate::fleet) fn networks_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = Uuid> + 'a {
        self.ports.iter().filter(move |(_, ports)| ports.contains_key(node)).map(|(network, _)| *network)
    }

    /// Whether a node has an address on a network.
    pub(in crate::fleet) fn has_address(&self, network: Uuid, address: IpAddr) -> bool {
        self.ports(network).any(|(_, port)| port.hosts().any(|host| host == address))
    }

    /// The port that proxies listen on for a listener.
    pub(in crate::fleet) fn proxy_port(&self, listener: Uuid) -> Option<u16> {
        self.by_listener.get(&listener).copied()
    }

    /// The proxy ports that are taken on a network, with the listeners that have them.
    pub(in crate::fleet) fn proxy_ports(&self, network: Uuid) -> impl Iterator<Item = (Uuid, u16)> + '_ {
        self.proxy_ports.get(&network).into_iter().flatten().map(|(port, listener)| (*listener, *port))
    }
}
