//! Brings the northbound database in step with the model, and says how far it is.
//!
//! Level-triggered: [`queue`] holds ids of load balancers, never what happened to them. A run reads the whole truth,
//! [`desired`] says what OVN should hold (pure), the planner of `fiberlb-ovn` says what is missing (pure), [`apply`] sends
//! it, many load balancers in one transaction (the only IO). Where several plugins share a store, one of them reconciles: its
//! [`fence`] keeps those that did before from writing.

mod apply;
mod desired;
mod fence;
mod network;
#[cfg(test)]
mod page;
mod planner;
mod purge;
mod queue;
mod reconciler;
mod verify;

pub use fence::Fence;
pub use planner::Planner;
pub use reconciler::{Ended, Reconciler, Settings};
pub use verify::{Difference, DifferenceKind, Differences, Subject};
