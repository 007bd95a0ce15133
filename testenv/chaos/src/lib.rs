//! Chaos tests: everything of a FiberLB installation may die, freeze or be cut off at any moment, while clients write and
//! connect without a pause; then the histories of these clients are checked. docs/chaos.md says how to run and read it.
//!
//! [`schedule`] plans the faults, as a pure function of a seed; [`nemesis`] injects them into a [`site`]. [`clients`] record
//! a [`history`], which [`checker`] checks by way of [`linearizability`] and [`register`]; [`tolerance`] tells which requests
//! of tenants may fail. [`run`] joins all of it.

pub mod checker;
pub mod clients;
pub mod clock;
pub mod growth;
pub mod history;
pub mod linearizability;
pub mod load_balancer;
pub mod nemesis;
pub mod objects;
pub mod register;
pub mod report;
pub mod run;
pub mod schedule;
pub mod site;
pub mod tolerance;
pub mod traffic;
pub mod verification;
