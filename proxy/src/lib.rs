//! FiberLB's node agent.
//!
//! The plugin's updates are received by [`link`], checked into a [`configuration`], kept on [`disk`], and
//! applied by the [`agent`] loop in this order: [`network`] makes namespaces, links and addresses,
//! [`dataplane`] listens and proxies, [`health`] probes backends. Its [`verdicts`] reach the data plane at
//! once, and the plugin by the link. The layers of these modules are those of `layers.txt`.

pub mod access_log;
pub mod agent;
pub mod app;
pub mod arguments;
pub mod client_tls;
pub mod config;
pub mod configuration;
pub mod dataplane;
pub mod disk;
pub mod health;
pub mod link;
pub mod metrics;
pub mod network;
pub mod proxy_protocol;
mod readiness;
pub mod results;
pub mod shortage;
pub mod sockets;
pub mod troubles;
pub mod verdicts;
