//! The proxy nodes: which ones there are, which networks they serve, what they are sent, and what they
//! report.
//!
//! [`FleetState`](state::FleetState) is the whole state, without IO or a clock. Four modules decide,
//! purely but for an operator's duties, which are stored: [`directory`] on nodes and their deaths, [`placement`] on the nodes of each network, [`verdicts`]
//! on the health of backends, [`delivery`] on the configuration of each node. [`Fleet`] joins them: it
//! receives messages of the nodes (through [`crate::agents`]), and changes of the model and the store; its
//! [`Controller`] allocates addresses and proxy ports, publishes to the nodes, and notifies the reconciler of
//! changed trees and networks.

mod clock;
mod controller;
mod delivery;
mod directory;
#[cfg(test)]
pub(crate) mod examples;
mod facade;
mod observer;
mod placement;
mod readers;
mod settings;
mod state;
mod verdicts;
mod view;

pub use controller::Controller;
pub use directory::DutyError;
pub use directory::node::Node;
pub use directory::records::{Duty, NodeRecord, PortRecord};
pub use directory::status::{NodeStatus, NodeView};
pub use facade::{Fleet, FleetNotice};
pub(crate) use readers::LogReader;
pub use settings::FleetSettings;
