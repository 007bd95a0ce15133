//! Listeners in force: as the workers share them, and as one worker serves them.

use std::{fmt, net::SocketAddr, rc::Rc, sync::Arc};

use uuid::Uuid;

use super::{
    acceptor::Handler,
    admission::NetworkShare,
    clients::{AddressSet, AllowedClients},
    connections::OpenConnections,
};
use crate::{
    dataplane::{
        account::{AtomicCounters, ListenerThrottles},
        balance::{PoolSnapshot, WorkerPool},
        spec::{Limits, NodeAddresses, Protocol},
    },
    shortage::Shortages,
    sockets::SocketFactory,
};

/// A listener in force, shared by the workers.
pub(in crate::dataplane) struct SharedListener {
    pub(in crate::dataplane) id: Uuid,
    pub(in crate::dataplane) name: String,
    pub(in crate::dataplane) protocol: Protocol,
    pub(in crate::dataplane) factory: Arc<dyn SocketFactory>,
    pub(in crate::dataplane) pool: Option<Arc<PoolSnapshot>>,
    pub(in crate::dataplane) limits: Limits,
    /// Clients that it admits.
    pub(in crate::dataplane) clients: AllowedClients,
    /// Proxies that state their clients.
    pub(in crate::dataplane) proxies: AddressSet,
    /// Addresses that clients know it by.
    pub(in crate::dataplane) frontends: Vec<SocketAddr>,
    pub(in crate::dataplane) counters: Arc<AtomicCounters>,
    /// Share of its network in the connections of the node.
    pub(in crate::dataplane) share: Arc<NetworkShare>,
    /// Nodes on its network.
    pub(in crate::dataplane) nodes: Arc<NodeAddresses>,
    /// Shortages of the node.
    pub(in crate::dataplane) shortages: Arc<Shortages>,
}

impl fmt::Debug for SharedListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SharedListener")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A listener on one worker. A change of the configuration makes a new one; connections keep the one that
/// they began with.
pub(in crate::dataplane) struct WorkerListener {
    pub(in crate::dataplane) shared: Arc<SharedListener>,
    pub(in crate::dataplane) pool: Option<Rc<WorkerPool>>,
    pub(in crate::dataplane) connections: OpenConnections,
    pub(in crate::dataplane) throttles: Rc<ListenerThrottles>,
    /// Serves its clients in its protocol.
    pub(in crate::dataplane) handler: Handler,
}

impl fmt::Debug for WorkerListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkerListener")
            .field("shared", &self.shared)
            .field("pool", &self.pool)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
