//! Brings the northbound database in step with the model, and says how far it is.
//!
//! Level-triggered: [`queue`] holds ids of load balancers, never what happened to them. A run reads the whole truth,
//! [`desired`] says what OVN should hold (pure), the planner of `fiberlb-ovn` says what is missing (pure), [`apply`] sends
//! it, many load balancers in one transaction (the only IO), and [`status`] says what a user sees (pure).

mod apply;
mod desired;
mod network;
mod observation;
mod queue;
mod reconciler;
mod status;

pub use desired::reservation_row;
pub use observation::{Carried, Failure, Observation};
pub use reconciler::{Reconciler, Settings};
pub use status::{Operating, Provisioning, Status, Statuses};
