//! Accounting: counters of listeners and of backends, and throttles for the log lines that a tenant can
//! cause.

mod backend;
mod connection;
mod counters;
mod durations;
mod instant;
mod pending;
mod session;
mod throttle;

pub(in crate::dataplane) use self::{
    backend::{Assignment, BackendLoad, Parting},
    connection::ConnectionAccount,
    counters::{AtomicCounters, increment},
    instant::AtomicInstant,
    session::SessionAccount,
    throttle::{ListenerThrottles, LogThrottle},
};
pub use self::{
    backend::{BackendCounters, BackendDrain},
    counters::{HeaderRefusal, ListenerCounters, ListenerDrain},
    durations::Durations,
};
