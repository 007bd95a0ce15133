//! Shared parts of FiberLB's daemons: settings files, logs, signals, backoff, names.
//!
//! It knows neither load balancers nor OVN nor gRPC.

pub mod backoff;
pub mod errors;
pub mod logs;
pub mod names;
pub mod settings;
pub mod signals;
