//! Listeners in force: as the workers share them, and as one worker serves them.

use std::{
    cell::Cell,
    fmt,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use uuid::Uuid;

use super::{
    acceptor::Handler,
    admission::{NetworkShare, Permit},
    bandwidth::Bandwidth,
    client_limits::{Admitted, ClientGate, ClientPlace, LimitRefusal},
    clients::{AddressSet, AllowedClients},
    connections::OpenConnections,
    ports::ListenerPorts,
    share::{ClientRefusal, Origin},
};
use crate::{
    dataplane::{
        account::{AtomicCounters, ListenerThrottles, increment},
        balance::{PoolDivision, PoolSnapshot},
        record::{ListenerSink, RecordLabels},
        spec::{Limits, NodeAddresses, Protocol},
    },
    shortage::Shortages,
    sockets::SocketFactory,
};

/// Place where the records of a listener's connections go.
pub(in crate::dataplane) struct ListenerLog {
    pub(in crate::dataplane) labels: Arc<RecordLabels>,
    pub(in crate::dataplane) sink: Arc<dyn ListenerSink>,
}

impl fmt::Debug for ListenerLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ListenerLog").field("labels", &self.labels).finish_non_exhaustive()
    }
}

/// A listener in force, shared by the workers.
pub(in crate::dataplane) struct SharedListener {
    pub(in crate::dataplane) id: Uuid,
    pub(in crate::dataplane) name: String,
    pub(in crate::dataplane) network: Uuid,
    pub(in crate::dataplane) protocol: Protocol,
    pub(in crate::dataplane) factory: Arc<dyn SocketFactory>,
    /// Pools that divide its connections, with their weights.
    pub(in crate::dataplane) pools: Vec<(Arc<PoolSnapshot>, u16)>,
    pub(in crate::dataplane) limits: Limits,
    /// Clients that it admits.
    pub(in crate::dataplane) clients: AllowedClients,
    /// Connections and rates of clients. None: no limit needs them.
    pub(in crate::dataplane) gate: Option<Arc<ClientGate>>,
    /// Bytes of its connections. None: there is no limit.
    pub(in crate::dataplane) bandwidth: Option<Arc<Bandwidth>>,
    /// Proxies that state their clients.
    pub(in crate::dataplane) proxies: AddressSet,
    /// Ports that it listens on.
    pub(in crate::dataplane) ports: ListenerPorts,
    /// Addresses that clients know it by, with the first port.
    pub(in crate::dataplane) frontends: Vec<SocketAddr>,
    pub(in crate::dataplane) counters: Arc<AtomicCounters>,
    pub(in crate::dataplane) log: Arc<ListenerLog>,
    /// Share of its network in the connections of the node.
    pub(in crate::dataplane) share: Arc<NetworkShare>,
    /// Nodes on its network.
    pub(in crate::dataplane) nodes: Arc<NodeAddresses>,
    /// Shortages of the node.
    pub(in crate::dataplane) shortages: Arc<Shortages>,
}

impl SharedListener {
    /// True if its pools are these very snapshots.
    pub(in crate::dataplane) fn has_pools(&self, pools: &[(Arc<PoolSnapshot>, u16)]) -> bool {
        let own = self.pools.iter().map(|(pool, _)| Arc::as_ptr(pool));
        own.eq(pools.iter().map(|(pool, _)| Arc::as_ptr(pool)))
    }

    /// Admits a connection of `peer` to the address `local`.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(in crate::dataplane) fn admit(&self, peer: IpAddr, local: IpAddr) -> Result<Permit, ClientRefusal> {
        if !self.clients.admit(peer) {
            return Err(ClientRefusal::Cidr);
        }
        self.admit_peer(peer, local)
    }

    /// Admits a connection as [`Self::admit`] does, whoever its client is.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(in crate::dataplane) fn admit_peer(
        &self,
        peer: IpAddr,
        local: IpAddr,
    ) -> Result<Permit, ClientRefusal> {
        self.share.admit(Origin::of(peer, local, &self.nodes))
    }

    /// Admits a connection by the limits of its client, and by the rate of all. None: it need not be counted as the
    /// client's.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(in crate::dataplane) fn admit_client(
        &self,
        client: IpAddr,
    ) -> Result<Option<Box<ClientPlace>>, LimitRefusal> {
        let Some(gate) = &self.gate else { return Ok(None) };
        Ok(match gate.admit(client, &self.limits, Instant::now())? {
            Admitted::Counted(place) => Some(place),
            Admitted::Uncounted => None,
            Admitted::NoRoom => {
                increment(&self.counters.clients_uncounted);
                None
            }
        })
    }
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
    pub(in crate::dataplane) pools: Rc<PoolDivision>,
    pub(in crate::dataplane) connections: OpenConnections,
    pub(in crate::dataplane) throttles: Rc<ListenerThrottles>,
    /// True if the last client had sent something before it had a backend, so that the next one is expected to.
    pub(in crate::dataplane) clients_speak_first: Cell<bool>,
    /// Serves the clients that its sockets accept, in its protocol. None: its transport has no connections.
    pub(in crate::dataplane) handler: Option<Handler>,
}

impl fmt::Debug for WorkerListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkerListener")
            .field("shared", &self.shared)
            .field("pools", &self.pools)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}
