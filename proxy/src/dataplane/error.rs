//! Errors of the data plane and of single listeners.

use std::{io, net::SocketAddr};

use uuid::Uuid;

/// The data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The number of workers is 0.
    #[error("the data plane needs at least one worker")]
    NoWorkers,
    /// The thread of a worker cannot be started.
    #[error(
        "cannot start worker thread {worker}: {source}; is the limit on threads (ulimit -u, TasksMax) reached?"
    )]
    Thread {
        /// Number of the worker, from 0.
        worker: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// A worker has no event loop.
    #[error("cannot make the event loop of a worker: {0}; is the limit on open files (ulimit -n) reached?")]
    Runtime(io::Error),
}

/// Reason why one listener is not served as specified; the others are.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The network is not in the configuration: this node has no namespace for it.
    #[error("network {0} is not plugged in on this node")]
    UnknownNetwork(Uuid),
    /// The pool is not in the configuration.
    #[error("pool {0} is not in the configuration")]
    UnknownPool(Uuid),
    /// A listener without an address.
    #[error("it has no address to listen on")]
    NoAddress,
    /// Port 0 would be another port on each worker.
    #[error("{0} has no port")]
    NoPort(SocketAddr),
    /// The endpoint belongs to another listener of the same configuration.
    #[error("{address} is already taken by listener {owner}")]
    AddressTaken {
        /// The address.
        address: SocketAddr,
        /// The listener that has it.
        owner: Uuid,
    },
    /// A listener with this id came earlier in the configuration.
    #[error("its id is there twice")]
    DuplicateId,
    /// A weight that is out of range.
    #[error("backend {backend} has weight {weight}; the largest is 256")]
    Weight {
        /// The backend.
        backend: Uuid,
        /// Its weight.
        weight: u16,
    },
    /// The kernel refuses the socket.
    #[error("cannot listen on {address}: {source}; does another program of this namespace have the port?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The kernel's error.
        source: io::Error,
    },
    /// A worker has ended: the process has to be restarted.
    #[error("a worker thread has ended; restart the proxy")]
    WorkerGone,
}
