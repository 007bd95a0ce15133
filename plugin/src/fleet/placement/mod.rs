//! Which nodes serve a network, what they and listeners are allocated for it, and how a network moves between nodes. Pure.

pub(super) mod allocation;
pub(super) mod demand;
pub(super) mod given;
mod holders;
pub(super) mod listed;
pub(super) mod moves;
mod ranking;
