//! Admission of sessions: as of connections, and a bound of those that come from nodes.

use std::{net::SocketAddr, rc::Rc};

use super::{port::Port, refusal::SessionRefusal};
use crate::{
    dataplane::listen::{ClientRefusal, Permit, WorkerListener},
    shortage::NodeResource,
};

/// Most sessions of a listening socket that come from nodes. A circle of load balancers ends there: each datagram in it
/// passes all of its sessions, and the share of a network alone would allow very many.
const MAX_FROM_NODES: usize = 1_024;

/// What a session takes of the node, until it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    port: Rc<Port>,
    permit: Permit,
}

impl Admission {
    /// Asks for a session of a client, beside `others` of the listener.
    ///
    /// # Errors
    /// The reason why it gets none.
    pub(super) fn ask(
        port: &Rc<Port>,
        listener: &WorkerListener,
        client: SocketAddr,
        others: u32,
        is_budget_spent: bool,
    ) -> Result<Self, SessionRefusal> {
        let permit = listener.shared.admit(client.ip(), port.address).map_err(SessionRefusal::Client)?;
        if is_budget_spent {
            listener.shared.shortages.record(NodeResource::Connections);
            return Err(SessionRefusal::Client(ClientRefusal::Share));
        }
        if listener.shared.limits.connections.is_some_and(|limit| others >= limit) {
            return Err(SessionRefusal::Limit);
        }
        if permit.is_from_node() {
            if port.from_nodes.get() >= MAX_FROM_NODES {
                return Err(SessionRefusal::Client(ClientRefusal::Share));
            }
            port.from_nodes.set(port.from_nodes.get() + 1);
        }
        Ok(Self { port: Rc::clone(port), permit })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.permit.is_from_node() {
            self.port.from_nodes.set(self.port.from_nodes.get().saturating_sub(1));
        }
    }
}
