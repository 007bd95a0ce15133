//! Configuration of the node, as the plugin sends it: networks, pools and listeners, each checked on its own.
//!
//! A [`Configuration`] is an immutable snapshot. [`Change`]s lead from one to the next; an unusable resource
//! is refused alone and by name, and its last good form stays in force, unless its new form asks for what
//! this release does not know. The configurations of the data plane and of the health checker follow from it
//! by pure functions ([`dataplane`], [`targets`]). Knows no socket, namespace or stream.

mod change;
mod derive;
#[cfg(test)]
pub(crate) mod fixture;
mod invalid;
mod listener;
mod network;
mod pool;
mod snapshot;

pub use change::{Change, IdError, RemovedIds};
pub use derive::{Factories, NeighbourCounts, dataplane, in_probation, neighbours, targets};
pub use invalid::ResourceError;
pub use listener::{Listener, ListenerNames};
pub use network::{Network, Route, Vip};
pub use pool::{Backend, Pool};
pub use snapshot::{Configuration, Item, Items, Refusal, Resource};

use fiberlb_proto::agent::v1;

/// Kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// A tenant network on this node.
    Network,
    /// A listener.
    Listener,
    /// A pool.
    Pool,
}

impl ResourceKind {
    /// The kind's value on the wire.
    #[must_use]
    pub fn to_wire(self) -> v1::result::Kind {
        match self {
            Self::Network => v1::result::Kind::Network,
            Self::Listener => v1::result::Kind::Listener,
            Self::Pool => v1::result::Kind::Pool,
        }
    }
}

impl std::fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Listener => "listener",
            Self::Pool => "pool",
        })
    }
}
