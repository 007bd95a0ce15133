//! TCP: relays the bytes of a client to a backend and back.
//!
//! `connection` is the life of a connection from top to bottom; `header` takes what a trusted proxy states of
//! its client, and makes what backends are told; `connect` reaches a backend, at which `turn` waits for a place; `relay`
//! moves the bytes.

mod connect;
mod connection;
mod header;
mod relay;
mod stream;
mod turn;
mod unique_id;

use std::rc::Rc;

use self::connection::Connection;
pub(in crate::dataplane) use self::relay::{MAX_PIPES, RelayResources};
use super::listen::{Accepted, Handler};

/// Handler of clients of TCP listeners, for one worker.
pub(in crate::dataplane) fn handler(resources: Rc<RelayResources>) -> Handler {
    Rc::new(move |accepted| start(accepted, &resources))
}

fn start(accepted: Accepted, resources: &Rc<RelayResources>) {
    let Some(connection) = Connection::admit(accepted) else { return };
    connection.spawn(Rc::clone(resources));
}
