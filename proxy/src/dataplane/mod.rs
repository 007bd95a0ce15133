//! The data plane: accepts clients of listeners and connects them to backends.
//!
//! A [`Dataplane`] has workers, each a thread with a runtime, listening sockets (`SO_REUSEPORT`) and
//! connections of its own: a connection lives and dies on one thread. A [`DataplaneSpec`] is applied as a
//! whole; a change of a backend's health reaches the selection at once, through the [`Rotation`].
//!
//! The layers are those of `layers.txt`. `control` applies configurations to the workers; a module for each
//! protocol, `tcp` and `udp`, is the life of a connection or a session from top to bottom; `trace` is what
//! operators see of single ones; `listen` binds, accepts and admits; `balance` selects a backend by the keys of a client and knows no protocol; `account` counts; `queue` is where
//! clients wait for a backend. The
//! data plane knows neither namespaces nor gRPC: sockets come from a
//! [`SocketFactory`](crate::sockets::SocketFactory).

mod account;
mod balance;
mod control;
mod error;
mod listen;
mod pause;
mod queue;
mod record;
mod spec;
mod tcp;
mod trace;
mod udp;

pub use self::{
    account::{BackendCounters, BackendDrain, Durations, HeaderRefusal, ListenerCounters, ListenerDrain},
    balance::{Ejection, Rotation},
    control::{CutReason, Cuts, Dataplane, DataplaneOptions, ListenerOutcome, Pulse},
    error::{ListenerError, StartError},
    record::{
        ConnectFailure, ConnectionLog, ConnectionRecord, EndReason, ListenerSink, NoLog, ReachedBackend,
        RecordLabels, SelectedBy,
    },
    spec::{
        Algorithm, BackendSpec, DataplaneSpec, Limits, ListenerSpec, MAX_WEIGHT, NodeAddresses,
        PassiveHealthSpec, PoolSpec, Protocol, QueueSpec, SourceIpPersistence, Transport, WeightedPool,
        capabilities,
    },
};
