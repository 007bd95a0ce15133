//! Sockets in a tenant's namespace.

use std::{
    io,
    net::IpAddr,
    sync::{PoisonError, RwLock},
};

use fiberlb_node::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{configuration::Network, sockets::SocketFactory};

/// Makes sockets in a namespace. It keeps the namespace alive, but not its name.
#[derive(Debug)]
pub struct NetnsSockets {
    netns: Netns,
    sources: RwLock<SourceAddresses>,
}

/// Addresses that connections are made from, by family. Empty where the kernel has one to choose from.
#[derive(Debug, Default)]
struct SourceAddresses {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
}

impl SourceAddresses {
    fn of(network: &Network) -> Self {
        let of_family = |is_v4: bool| {
            let hosts: Vec<IpAddr> = network.hosts().filter(|host| host.is_ipv4() == is_v4).collect();
            if hosts.len() > 1 { hosts } else { Vec::new() }
        };
        Self { v4: of_family(true), v6: of_family(false) }
    }

    /// One of them by chance: in turn, those of a backend would depend on how backends take turns.
    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let family = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        if family.is_empty() { None } else { family.get(fastrand::usize(..family.len())).copied() }
    }
}

impl NetnsSockets {
    /// Sockets in `netns`, whose connections have the source that the kernel chooses.
    #[must_use]
    pub fn new(netns: Netns) -> Self {
        Self { netns, sources: RwLock::default() }
    }

    /// Has connections come from each of the node's addresses on a network.
    pub(super) fn set_sources(&self, network: &Network) {
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = SourceAddresses::of(network);
    }
}

impl SocketFactory for NetnsSockets {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        self.netns.run(|| Socket::new(domain, kind.nonblocking().cloexec(), protocol)).flatten()
    }

    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.source(to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::configuration::{Resource as _, fixture};

    #[test]
    fn connections_come_from_each_address_of_a_family_if_there_are_several() {
        let mut wire = fixture::network(1);
        wire.source_addresses = vec!["10.0.0.6/24".to_owned(), "10.0.0.7/24".to_owned()];
        let sources = SourceAddresses::of(&Network::read(fixture::id(1), &wire).unwrap());
        let [v4, v6] = ["10.0.1.1", "fd00::1"].map(|text| text.parse().unwrap());
        let seen: BTreeSet<String> =
            (0..200).filter_map(|_| sources.source(v4)).map(|it| it.to_string()).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["10.0.0.5", "10.0.0.6", "10.0.0.7"]);
        assert_eq!(sources.source(v6), None);
    }
}
