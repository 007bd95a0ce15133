//! Shared parts of FiberLB's daemons: settings files, logs, signals, the frame of `main`, the service manager, backoff, names, and the HTTP listener
//! with TLS, metrics and readiness.
//!
//! It knows neither load balancers nor OVN nor gRPC.

pub mod admin;
pub mod backoff;
pub mod descriptors;
pub mod errors;
pub mod listen;
pub mod logs;
pub mod manual;
pub mod metrics;
pub mod names;
pub mod program;
pub mod secrets;
pub mod service;
pub mod settings;
pub mod signals;
#[cfg(feature = "test-support")]
pub mod testing;
pub mod throttle;
pub mod tls;
