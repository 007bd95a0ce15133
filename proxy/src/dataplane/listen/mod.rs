//! Listening: endpoints and their owners, listening sockets, accepting and admission of clients, and the
//! listeners as workers serve them. Hands accepted clients to a [`Handler`], and does not know what protocol
//! that one speaks.

mod acceptor;
mod admission;
mod bandwidth;
mod bind;
mod client_limits;
mod clients;
mod connections;
mod departures;
mod endpoint;
mod listener;
mod passive;
mod ports;
mod rate;
mod refusal;
mod share;

pub(in crate::dataplane) use self::{
    acceptor::{Accepted, Acceptor, Handler},
    admission::{ConnectionBudget, Permit},
    bandwidth::{Bandwidth, ByteTurn, Way},
    bind::{ListeningSocket, bind, set_keepalive},
    client_limits::{ClientGate, ClientPlace, ClientTables, LimitRefusal},
    clients::{AddressSet, AllowedClients},
    connections::{ConnectionSlot, OpenConnections},
    endpoint::{Endpoint, EndpointClaims},
    listener::{ListenerLog, SharedListener, WorkerListener},
    passive::{record_failure, record_success},
    ports::{ListenerPorts, PortOffset},
    refusal::{RefusalReason, log_refusal, record_limit},
    share::ClientRefusal,
};
