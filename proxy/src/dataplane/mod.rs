//! The TCP proxy.
//!
//! A [`Dataplane`] has workers, each a thread with a runtime, listening sockets (`SO_REUSEPORT`) and connections of its own: a
//! connection lives and dies on one thread. A [`Configuration`] is put in force as a whole; health flips reach the choice of a
//! backend at once, through the [`Rotation`].
//!
//! `connection` is the life of a connection from top to bottom; `selection` chooses its backend; `relay` moves its bytes. This module
//! knows neither namespaces nor gRPC: sockets come from a [`SocketFactory`](crate::sockets::SocketFactory).

mod acceptor;
mod account;
mod bind;
mod configuration;
mod connect;
mod connection;
mod counters;
mod error;
mod installed;
mod plane;
mod pool;
mod post;
mod relay;
mod room;
mod roster;
mod rotation;
mod selection;
mod service;
mod stream;
mod threads;
mod throttle;
mod worker;

pub use self::{
    configuration::{
        Algorithm, Backend, Configuration, Limits, Listener, MAX_WEIGHT, Pool, SourceIpPersistence,
    },
    counters::ListenerCounters,
    error::{Refusal, StartError},
    plane::{Dataplane, ListenerOutcome, Options},
    rotation::Rotation,
};
