//! The control plane of FiberLB.
//!
//! Data flows one way: [`grpc`] parses requests of tenants, the use cases of [`api`] check them and write them to
//! the [store](fiberlb_store); its change stream feeds the [`catalog`], which answers every read; [`reconcile`] compares the model with OVN's
//! northbound database, writes the diff there, and publishes what it observed. On a shared store,
//! [`leadership`] elects the leader. [`app`] joins the parts.

pub mod agents;
pub mod api;
pub mod app;
pub mod arguments;
pub mod auth;
pub mod catalog;
pub mod config;
pub mod datapath;
pub mod fleet;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grpc;
pub mod leadership;
pub mod metrics;
mod networks;
mod readiness;
pub mod reconcile;
pub mod resources;
mod rows;
pub mod status;
mod vips;
mod wire;
