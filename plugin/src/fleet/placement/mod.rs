//! Placement of networks on nodes, allocations for nodes and listeners, and moves of networks between nodes.
//! Pure.

pub(super) mod allocations;
pub(super) mod allocator;
pub(super) mod demand;
mod holders;
pub(super) mod listed;
pub(super) mod moves;
mod ranking;
