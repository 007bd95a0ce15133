//! The stream to the leader among the plugins (`fiberlb.agent.v1`); the others redirect to it.
//!
//! [`StreamProtocol`] is the node's half of one stream: a state machine without IO and clock. [`Link`] keeps
//! a stream up: it connects, moves to another plugin, and carries the messages of the rest of the agent.
//! Knows neither namespaces nor sockets of tenants.

mod attempts;
mod chunks;
mod client;
mod dialer;
mod endpoint;
mod protocol;
mod redirects;
mod session;
mod shares;
mod tail;

pub use client::{Link, LinkSettings, LinkStatus, NodeIdentity};
pub use endpoint::{PluginEndpoint, PluginEndpointError, TlsError, TlsFiles};
pub use protocol::{StreamEvent, StreamProtocol, VERSION, Violation};
pub use session::{Ack, LinkWiring, PluginEvent};
