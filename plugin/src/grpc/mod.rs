//! The gRPC adapter: `fiberlb.v1` in terms of the use cases ([`crate::api`]) and back.
//!
//! One file per kind parses and renders its message ([`kinds`]); services delegate. Field masks follow the
//! descriptors of the messages ([`mask`]).

mod authentication;
mod calls;
#[cfg(test)]
mod docs;
mod form;
mod kinds;
mod mask;
mod nodes;
mod routes;
mod server;
mod services;
mod state;
mod tree;
mod watch;
mod wire;

pub(crate) use server::serve;
