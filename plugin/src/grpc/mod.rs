//! The gRPC adapter: `fiberlb.v1` in terms of the use cases ([`crate::api`]) and back.
//!
//! A call passes the layers of [`calls`] (deadlines), [`authentication`] and [`requests`] (what one may hold, and where large
//! ones are worked on) before it reaches its service. One file per kind parses and renders its message ([`kinds`]); services delegate. Field masks follow the
//! descriptors of the messages ([`mask`]).

mod authentication;
mod calls;
mod descriptors;
#[cfg(test)]
mod docs;
mod durations;
mod entries;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod harness;
mod kinds;
mod mask;
mod nodes;
mod requests;
mod routes;
mod server;
mod services;
mod shares;
mod state;
mod threads;
mod tree;
mod watch;
mod wire;

pub(crate) use server::serve;
pub(crate) use threads::ApiThreads;
