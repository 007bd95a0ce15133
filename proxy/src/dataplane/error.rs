//! Why the data plane, or one listener, cannot be.

use std::{io, net::SocketAddr};

use uuid::Uuid;

/// The data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No worker was asked for.
    #[error("the data plane needs at least one worker")]
    NoWorkers,
    /// The thread of a worker cannot be started.
    #[error(
        "cannot start worker thread {worker}: {source}; is the limit on threads (ulimit -u, TasksMax) reached?"
    )]
    Thread {
        /// Number of the worker, from 0.
        worker: usize,
        /// What the kernel says.
        source: io::Error,
    },
    /// A worker has no event loop.
    #[error("cannot make the event loop of a worker: {0}; is the limit on open files (ulimit -n) reached?")]
    Runtime(io::Error),
}

/// Why one listener is not served as it was asked; the others are.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
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
    /// The address belongs to another listener of the same configuration.
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
        /// What was asked.
        weight: u16,
    },
    /// The kernel refuses the socket.
    #[error("cannot listen on {address}: {source}; does another program of this namespace have the port?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// A worker has gone: the process has to be restarted.
    #[error("a worker thread has ended; restart the proxy")]
    WorkerGone,
}
