//! Why a network is not as it should be.

use fiberlb_node::netlink::NetlinkError;
use fiberlb_node::netns::NetnsError;
use fiberlb_node::ovs::PlugError;
use thiserror::Error;

/// A network is not as it should be. It is tried again.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// No network can be had at all.
    #[error(
        "cannot manage networks on this machine; the agent's log says why (it needs CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    )]
    Machine,
    /// Its namespace.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// Links, addresses, routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A link's name, which cannot be.
    #[error("{0}")]
    Name(String),
    /// Its port on the bridge.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// Open vSwitch's database.
    #[error("cannot plug into Open vSwitch: {0}")]
    Vswitch(String),
    /// What ovs-vswitchd says of the port.
    #[error("Open vSwitch cannot use link {link}: {error}")]
    Interface {
        /// The link.
        link: String,
        /// What it says.
        error: String,
    },
}

impl NetworkError {
    /// A link's name, which cannot be.
    pub(super) fn name(error: impl std::fmt::Display) -> Self {
        Self::Name(format!("{error}"))
    }
}
