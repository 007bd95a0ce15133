//! The proxy nodes: who they are, which networks they serve, what they are told, and what they say.
//!
//! [`State`] is all that is known, without IO or a clock. [`placement`], [`health`], [`liveness`], [`allocation`] and
//! [`configuration`] decide, purely. [`Fleet`] joins them: it hears the nodes (through [`crate::agents`]), the model and the
//! store; its [`Controller`] gives nodes addresses and listeners proxy ports, tells the nodes what changes, and tells
//! the reconciler which trees and networks to look at.

mod allocation;
mod configuration;
mod controller;
mod demand;
mod described;
mod duties;
#[cfg(test)]
pub(crate) mod examples;
mod given;
mod hearing;
mod listed;
mod node;
mod placement;
mod publishing;
mod records;
mod settings;
mod shared;
mod state;
mod verdicts;

pub use controller::Controller;
pub use duties::DutyError;
pub use node::Node;
pub use records::{Duty, NodeRecord, PortRecord};
pub use settings::Settings;
pub use shared::{Fleet, Notice};
pub use state::Moves;
