//! The stream to the leader among the plugins (`fiberlb.agent.v1`); the others redirect to it.
//!
//! [`Protocol`] is the node's half of one stream: a state machine without IO and clock. [`Link`] keeps a stream up: it
//! connects, moves to another plugin, and carries what the rest of the agent says and hears. Knows neither namespaces nor sockets of
//! tenants.

mod attempts;
mod chunks;
mod client;
mod endpoint;
mod protocol;
mod redirects;
mod session;

pub use client::{Link, Node, Settings, Status};
pub use endpoint::{PluginEndpoint, PluginEndpointError, TlsError, TlsFiles};
pub use protocol::{Event, Protocol, VERSION, Violation};
pub use session::{Ack, News, Wiring};
