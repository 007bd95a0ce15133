//! Admission of sessions: as of connections, and an end of circles.

use std::{cell::Cell, net::SocketAddr};

use super::{hops, port::Port, refusal::SessionRefusal};
use crate::{
    dataplane::listen::{ClientPlace, ClientRefusal, Permit, WorkerListener},
    shortage::NodeResource,
};

/// Shares of the node's resources that a session holds until it is dropped.
#[derive(Debug)]
pub(super) struct Admission {
    permit: Permit,
    /// Its part of what its client may have.
    _place: Option<Box<ClientPlace>>,
    /// Hops of its datagrams to the backend.
    hops: Cell<u8>,
}

/// A client that asks for a session, or has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Applicant {
    pub(super) client: SocketAddr,
    /// Hops that its datagram had left; 0: unknown.
    pub(super) hops: u8,
}

impl Admission {
    /// Asks for a session of a client, beside `others` of the listener.
    ///
    /// # Errors
    /// The reason why it gets none.
    pub(super) fn ask(
        port: &Port,
        listener: &WorkerListener,
        applicant: Applicant,
        others: u32,
        is_budget_spent: bool,
    ) -> Result<Self, SessionRefusal> {
        let permit = listener.shared.admit(applicant.client.ip(), port.address);
        let permit = permit.map_err(SessionRefusal::Client)?;
        if is_budget_spent {
            listener.shared.shortages.record(NodeResource::Connections);
            return Err(SessionRefusal::Client(ClientRefusal::Share));
        }
        if listener.shared.limits.connections.is_some_and(|limit| others >= limit) {
            return Err(SessionRefusal::Limit);
        }
        let hops = hops::behind(applicant.hops, permit.is_from_node()).ok_or(SessionRefusal::Hops)?;
        let place =
            listener.shared.admit_client(applicant.client.ip()).map_err(SessionRefusal::ClientLimit)?;
        Ok(Self { permit, _place: place, hops: Cell::new(hops) })
    }

    /// Hops of its datagrams to the backend.
    pub(super) fn hops(&self) -> u8 {
        self.hops.get()
    }

    /// Takes a datagram that has come with so many hops left. Those behind are lowered if it needs fewer: who knows the
    /// ports of sockets that are gone could else lead it through sessions that began with more, round and round. True if
    /// they are.
    ///
    /// # Errors
    /// It has none left.
    pub(super) fn pass(&self, received: u8) -> Result<bool, SessionRefusal> {
        let hops = hops::behind(received, self.permit.is_from_node()).ok_or(SessionRefusal::Hops)?;
        let is_lower = hops < self.hops.get();
        if is_lower {
            self.hops.set(hops);
        }
        Ok(is_lower)
    }
}
