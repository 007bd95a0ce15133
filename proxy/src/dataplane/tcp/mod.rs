//! TCP: relays the bytes of a client to a backend and back.
//!
//! `connection` is the life of a connection from top to bottom; `header` takes what a trusted proxy states of
//! its client, and makes what backends are told; `connect` reaches a backend by `attempt`s, for which `turn` waits for a
//! place; `relay` moves the bytes.

mod attempt;
mod connect;
mod connection;
mod header;
mod relay;
mod stream;
mod turn;
mod unique_id;

use std::rc::Rc;

pub(in crate::dataplane) use self::{attempt::MAX_BESIDE, relay::MAX_PIPES};
use self::{attempt::PendingCount, connection::Connection, relay::RelayResources};
use super::listen::{Accepted, Handler};

/// Resources that the connections of one worker share.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct TcpResources {
    relay: RelayResources,
    attempts: PendingCount,
}

/// Handler of clients of TCP listeners, for one worker.
pub(in crate::dataplane) fn handler(resources: Rc<TcpResources>) -> Handler {
    Rc::new(move |accepted| start(accepted, &resources))
}

fn start(accepted: Accepted, resources: &Rc<TcpResources>) {
    let Some(connection) = Connection::admit(accepted) else { return };
    connection.spawn(Rc::clone(resources));
}
