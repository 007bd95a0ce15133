//! FiberLB's node agent.
//!
//! What the plugin says comes by [`link`], becomes a checked [`configuration`], stays on [`disk`], and is carried out by the
//! [`agent`] loop in this order: [`network`] makes namespaces, links and addresses, [`dataplane`] listens and proxies,
//! [`health`] probes backends. Its [`verdicts`] reach the data plane at once, and the plugin by the link.

pub mod agent;
pub mod app;
pub mod arguments;
pub mod config;
pub mod configuration;
pub mod dataplane;
pub mod disk;
pub mod health;
pub mod link;
pub mod metrics;
pub mod network;
mod readiness;
pub mod results;
pub mod sockets;
pub mod verdicts;
