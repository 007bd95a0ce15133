//! Reconciles the northbound database with the model, and observes the progress.
//!
//! Level-triggered: [`queue`] holds ids, never events. A run reads the whole tree, [`desired`] computes the
//! desired rows (pure), the planner of `fiberlb-northbound` computes the diff (pure), and [`apply`] sends it, for
//! many load balancers in one transaction (the only IO). On a shared store only the leader reconciles; its
//! [`fence`] keeps former leaders from writing.

mod apply;
mod chains;
mod desired;
#[cfg(test)]
mod docs;
#[cfg(test)]
pub(crate) mod examples;
mod fence;
mod metrics;
mod network;
mod planner;
mod purge;
mod queue;
mod reconciler;
mod standing;
mod verify;

pub use fence::Fence;
pub(crate) use metrics::register;
pub use planner::Planner;
pub use reconciler::{Ended, ReconcileSettings, Reconciler};
pub use verify::Differences;
