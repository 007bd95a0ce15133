//! Brings the northbound database in step with the model, and says how far it is.
//!
//! Level-triggered: [`queue`] holds ids of load balancers, never what happened to them. A run reads the whole truth,
//! [`desired`] says what OVN should hold (pure), the planner of `fiberlb-ovn` says what is missing (pure), [`apply`] sends
//! it, many load balancers in one transaction (the only IO), and [`status`] says what a user sees (pure). Where several
//! plugins share a store, one of them reconciles: its [`fence`] keeps those that did before from writing, and what it
//! observed is published as [`StatusRecord`]s.

mod apply;
mod desired;
mod fence;
mod network;
mod observation;
#[cfg(test)]
mod page;
mod planner;
mod queue;
mod reconciler;
mod status;
mod status_record;
mod verify;

pub(crate) use desired::listener_row;
pub use desired::reservation_row;
pub use fence::Fence;
pub use observation::{Carried, Failure, Observation};
pub use planner::Planner;
pub use reconciler::{Ended, Reconciler, Settings};
pub use status::{Operating, Provisioning, Status, Statuses};
pub use status_record::StatusRecord;
pub use verify::{Difference, DifferenceKind, Differences, Subject};
