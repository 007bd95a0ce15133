//! Errors of tenant networks on this machine.

use fiberlb_node::netlink::NetlinkError;
use fiberlb_node::netns::NetnsError;
use fiberlb_node::ovs::PlugError;
use thiserror::Error;

/// Reason why a network is not as desired. It is retried.
#[derive(Debug, Error)]
pub enum NetworkError {
    /// No network can be managed at all.
    #[error(
        "cannot manage networks on this machine; the agent's log says why (it needs CAP_NET_ADMIN and CAP_SYS_ADMIN)"
    )]
    Machine,
    /// Error of its namespace.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// Error of links, addresses or routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Invalid name of a link.
    #[error("{0}")]
    Name(String),
    /// Error of its port on the bridge.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// Error of Open vSwitch's database.
    #[error("cannot plug into Open vSwitch: {0}")]
    Vswitch(String),
    /// Error that ovs-vswitchd reports for the port.
    #[error("Open vSwitch cannot use link {link}: {error}")]
    Interface {
        /// The link.
        link: String,
        /// The error.
        error: String,
    },
}

impl NetworkError {
    /// Error of a link's name.
    pub(super) fn name(error: impl std::fmt::Display) -> Self {
        Self::Name(format!("{error}"))
    }
}
