//! The stream to the plugin (`fiberlb.agent.v1`): to any one of those that there are, for each brings it to the one that
//! leads.
//!
//! [`Protocol`] is the node's half of one stream: a state machine without IO and clock. [`Link`] keeps a stream up: it
//! connects, moves to another plugin, and carries what the rest of the agent says and hears. Knows neither namespaces nor sockets of
//! tenants.

mod attempts;
mod chunks;
mod client;
mod endpoint;
mod protocol;
mod session;

pub use client::{Link, Node, Settings, Status};
pub use endpoint::{PluginEndpoint, PluginEndpointError, TlsError, TlsFiles};
pub use protocol::{Event, Protocol, VERSION, Violation};
pub use session::{Ack, News, Wiring};
