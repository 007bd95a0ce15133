//! Endpoints, and the listeners that own them.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use uuid::Uuid;

use crate::dataplane::{error::ListenerError, spec::Transport};

/// An address of a transport in one incarnation of a network: one set of listening sockets is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::dataplane) struct Endpoint {
    pub(in crate::dataplane) network: Uuid,
    /// Number of times that the network's factory was replaced.
    pub(in crate::dataplane) incarnation: u64,
    pub(in crate::dataplane) transport: Transport,
    pub(in crate::dataplane) address: SocketAddr,
}

/// Owners of the endpoints in the configuration that is being applied. The first claim wins.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct EndpointClaims {
    owners: HashMap<Endpoint, Uuid>,
    listeners: HashSet<Uuid>,
}

impl EndpointClaims {
    /// Registers a listener's id, which must be new.
    pub(in crate::dataplane) fn register(&mut self, listener: Uuid) -> Result<(), ListenerError> {
        if self.listeners.insert(listener) { Ok(()) } else { Err(ListenerError::DuplicateId) }
    }

    /// Claims all the endpoints for a listener, or none.
    pub(in crate::dataplane) fn claim(
        &mut self,
        listener: Uuid,
        endpoints: &[Endpoint],
    ) -> Result<(), ListenerError> {
        for endpoint in endpoints {
            if let Some(owner) = self.owners.get(endpoint).filter(|owner| **owner != listener) {
                return Err(ListenerError::AddressTaken { address: endpoint.address, owner: *owner });
            }
        }
        self.owners.extend(endpoints.iter().map(|endpoint| (*endpoint, listener)));
        Ok(())
    }

    /// Claims an endpoint if it is free.
    pub(in crate::dataplane) fn claim_free(&mut self, listener: Uuid, endpoint: Endpoint) {
        self.owners.entry(endpoint).or_insert(listener);
    }

    /// Owner of each endpoint.
    pub(in crate::dataplane) fn into_owners(self) -> HashMap<Endpoint, Uuid> {
        self.owners
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(transport: Transport) -> Endpoint {
        let address = ([192, 0, 2, 1], 53).into();
        Endpoint { network: Uuid::nil(), incarnation: 1, transport, address }
    }

    #[test]
    fn the_same_port_of_two_transports_has_two_owners() {
        let [first, second, third] = [1, 2, 3].map(Uuid::from_u128);
        let mut claims = EndpointClaims::default();
        claims.claim(first, &[dns(Transport::Tcp)]).unwrap();
        claims.claim(second, &[dns(Transport::Udp)]).unwrap();
        let taken = claims.claim(third, &[dns(Transport::Udp)]).unwrap_err();
        assert!(matches!(taken, ListenerError::AddressTaken { owner, .. } if owner == second), "{taken}");
        let owners = claims.into_owners();
        assert_eq!((owners[&dns(Transport::Tcp)], owners[&dns(Transport::Udp)]), (first, second));
    }

    #[test]
    fn a_listener_gets_all_of_its_endpoints_or_none() {
        let [first, second] = [1, 2].map(Uuid::from_u128);
        let mut claims = EndpointClaims::default();
        claims.claim(first, &[dns(Transport::Tcp)]).unwrap();
        assert!(claims.claim(second, &[dns(Transport::Udp), dns(Transport::Tcp)]).is_err());
        claims.claim_free(second, dns(Transport::Tcp));
        assert_eq!(claims.into_owners(), HashMap::from([(dns(Transport::Tcp), first)]));
    }
}
