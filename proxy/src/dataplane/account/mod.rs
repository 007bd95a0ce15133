//! Accounting: counters of listeners and of backends, and throttles for the log lines that a tenant can
//! cause.

mod backend;
mod connection;
mod counters;
mod durations;
mod pending;
mod session;
mod throttle;

pub use self::{
    backend::BackendCounters,
    counters::{HeaderRefusal, ListenerCounters},
    durations::Durations,
};
pub(in crate::dataplane) use self::{
    backend::{Assignment, BackendLoad},
    connection::ConnectionAccount,
    counters::{AtomicCounters, increment},
    session::SessionAccount,
    throttle::{ListenerThrottles, LogThrottle},
};
