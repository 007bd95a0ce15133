//! The control plane of FiberLB.
//!
//! Data flows one way: [`api`] checks requests of tenants and writes them to the [`store`]; the store's
//! change stream feeds the [`catalog`], which answers every read; [`reconcile`] compares the model with OVN's
//! northbound database, writes the diff there, and publishes what it observed. On a shared store,
//! [`leadership`] elects the leader. [`app`] joins the parts.

pub mod agents;
pub mod api;
pub mod app;
pub mod arguments;
pub mod catalog;
pub mod config;
pub mod datapath;
pub mod fleet;
pub mod leadership;
pub mod metrics;
mod metrics_server;
pub mod reconcile;
pub mod resources;
mod rows;
mod server;
pub mod status;
pub mod store;
mod tls;
