//! What the node is to do: networks, pools and listeners, each checked on its own when it comes.
//!
//! A [`Configuration`] is an immutable snapshot. [`Change`]s lead from one to the next; a resource that cannot be used is
//! refused alone and by name, and its last good form stays in force. What a configuration asks of the data plane and of the
//! health checker are pure functions ([`dataplane`], [`targets`]). Knows no socket, namespace or stream.

mod change;
mod derive;
#[cfg(test)]
pub(crate) mod fixture;
mod invalid;
mod listener;
mod network;
mod pool;
mod snapshot;

pub use change::{Change, NotId, Removed};
pub use derive::{Factories, dataplane, in_probation, targets};
pub use invalid::Invalid;
pub use listener::Listener;
pub use network::{Network, Vip};
pub use pool::{Backend, Pool};
pub use snapshot::{Configuration, Item, Refusal, Resource, Shelf};

use fiberlb_proto::agent::v1;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A tenant network on this node.
    Network,
    /// A listener.
    Listener,
    /// A pool.
    Pool,
}

impl Kind {
    /// As the wire has it.
    #[must_use]
    pub fn to_wire(self) -> v1::result::Kind {
        match self {
            Self::Network => v1::result::Kind::Network,
            Self::Listener => v1::result::Kind::Listener,
            Self::Pool => v1::result::Kind::Pool,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Listener => "listener",
            Self::Pool => "pool",
        })
    }
}
