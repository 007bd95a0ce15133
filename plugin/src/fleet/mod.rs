//! The proxy nodes: who they are, which networks they serve, what they are sent, and what they report.
//!
//! [`State`](state::State) is all that is known, without IO or a clock. Four modules decide, purely: [`directory`] who is
//! there, [`placement`] who serves what, [`verdicts`] how backends fare, [`delivery`] what each node is sent. [`Fleet`] joins
//! them: it hears the nodes (through [`crate::agents`]), the model and the store; its [`Controller`] allocates addresses and
//! proxy ports, publishes to the nodes, and tells the reconciler which trees and networks to look at.

mod controller;
mod delivery;
mod directory;
#[cfg(test)]
pub(crate) mod examples;
mod facade;
mod observer;
mod placement;
mod settings;
mod state;
mod verdicts;
mod view;

pub use controller::Controller;
pub use directory::DutyError;
pub use directory::node::Node;
pub use directory::records::{Duty, NodeRecord, PortRecord};
pub use facade::{Fleet, Notice};
pub use placement::moves::Moves;
pub use settings::Settings;
