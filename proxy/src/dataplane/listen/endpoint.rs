//! A listener in force, as the workers share it, and the addresses that it owns.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    configuration::{Limits, Listener, MAX_WEIGHT, Pool},
    counters::Counters,
    error::Refusal,
    pool::PoolSnapshot,
};
use crate::sockets::SocketFactory;

/// An address in one incarnation of a network: what one set of listening sockets is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) network: Uuid,
    /// Counts how often the network's factory was replaced.
    pub(super) incarnation: u64,
    pub(super) address: SocketAddr,
}

/// A listener in force.
pub(super) struct Service {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) factory: Arc<dyn SocketFactory>,
    pub(super) pool: Option<Arc<PoolSnapshot>>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Service")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a listener in itself.
pub(super) fn check(listener: &Listener, pools: &HashMap<Uuid, &Pool>) -> Result<(), Refusal> {
    if listener.addresses.is_empty() {
        return Err(Refusal::NoAddress);
    }
    if let Some(address) = listener.addresses.iter().find(|address| address.port() == 0) {
        return Err(Refusal::NoPort(*address));
    }
    let Some(id) = listener.pool else { return Ok(()) };
    check_weights(pools.get(&id).ok_or(Refusal::UnknownPool(id))?)
}

fn check_weights(pool: &Pool) -> Result<(), Refusal> {
    match pool.backends.iter().find(|backend| backend.weight > MAX_WEIGHT) {
        Some(backend) => Err(Refusal::Weight { backend: backend.id, weight: backend.weight }),
        None => Ok(()),
    }
}

/// Who has which address in the configuration that is being put in force. The first comer has it.
#[derive(Debug, Default)]
pub(super) struct Claims {
    owners: HashMap<Endpoint, Uuid>,
    listeners: HashSet<Uuid>,
}

impl Claims {
    /// Takes note of a listener's id, which must be new.
    pub(super) fn enter(&mut self, listener: Uuid) -> Result<(), Refusal> {
        if self.listeners.insert(listener) { Ok(()) } else { Err(Refusal::DuplicateId) }
    }

    /// Takes all the endpoints for a listener, or none.
    pub(super) fn take(&mut self, listener: Uuid, endpoints: &[Endpoint]) -> Result<(), Refusal> {
        for endpoint in endpoints {
            if let Some(owner) = self.owners.get(endpoint).filter(|owner| **owner != listener) {
                return Err(Refusal::AddressTaken { address: endpoint.address, owner: *owner });
            }
        }
        self.owners.extend(endpoints.iter().map(|endpoint| (*endpoint, listener)));
        Ok(())
    }

    /// Takes an endpoint if nobody has it.
    pub(super) fn take_free(&mut self, listener: Uuid, endpoint: Endpoint) {
        self.owners.entry(endpoint).or_insert(listener);
    }

    /// Who has what.
    pub(super) fn owners(self) -> HashMap<Endpoint, Uuid> {
        self.owners
    }
}
